"""A server with tokens: who may do what on either interface, and how a token ends."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvtwisted.core.errors import Unauthenticated
from kvtwisted.sessions.policy import NO_TOKEN

from .clients import Grpc, Http
from .harness import CLI, FREE_PORTS, PATIENCE, Launcher, Server, environment, eventually, run_twistd

ALL = "get,set,delete,scan,config_read,config_write,metrics,admin"


class Tokens:
    """A token file, worked on by the command."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.path = folder / "tokens.json"

    def run(self, *arguments: str) -> str:
        """`kvtwisted token ...`, which must succeed; what it prints."""
        command = [*CLI, "token", *arguments, "--file", str(self.path)]
        done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def create(self, token_id: str, *grants: str) -> str:
        """A new token."""
        return self.run("create", token_id, *[f"--grant={grant}" for grant in grants])


@pytest.fixture
def tokens(launch: Launcher) -> Tokens:
    """Of the server that is launched."""
    return Tokens(launch.folder / "server")


@pytest.fixture
def start(launch: Launcher, tokens: Tokens) -> Any:
    """Starts a server that asks for tokens."""
    return lambda *options: launch("--security-tokens", str(tokens.path), *options)


def _code(client: Grpc, method: str, **fields: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        client.call(method, **fields)
    code: grpc.StatusCode = error.value.code()
    return code


def _audit(server: Server, name: str = "audit") -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log(name).splitlines()]


def test_without_a_token_there_is_health_alone(start: Any, tokens: Tokens) -> None:
    """Neither keys nor configuration nor metrics, on either interface; nor with a wrong token."""
    tokens.create("root", ALL)
    server = start()
    for token in (None, "kv1_root_" + "0" * 43, "x"):
        with server.http(token) as http, server.grpc(token) as client:
            assert http.get("/api/v1/health").status == 200
            for path in ("/api/v1/get/a", "/api/v1/scan", "/api/v1/config", "/metrics", "/api/v1/openapi.json"):
                answer = http.get(path)
                assert (answer.status, answer.body["code"]) == (401, Unauthenticated.code), path
                assert answer.headers["www-authenticate"].startswith("Bearer")
            assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 401
            for method in ("Get", "Set", "Delete"):
                assert _code(client, method, key="a") is grpc.StatusCode.UNAUTHENTICATED
            assert _code(client, "GetConfig") is grpc.StatusCode.UNAUTHENTICATED
            assert _code(client, "ScanKeys") is grpc.StatusCode.UNAUTHENTICATED


def test_grants_hold_on_both_interfaces(start: Any, tokens: Tokens) -> None:
    """Inside the prefix all is as without tokens; outside nothing is read, written or told."""
    root, app = tokens.create("root", ALL), tokens.create("app", "get,set,delete,scan:a/", "config_read")
    server = start()
    with server.http(root) as http:
        assert http.post("/api/v1/mset", {"key_values": {"a/1": "1", "ab": "2", "b": "3"}}).status == 200
    with server.http(app) as http, server.grpc(app) as client:
        assert http.get("/api/v1/get/a/1").body["value"] == "1"
        assert client.call("Get", key="a/1").value == "1"
        assert http.post("/api/v1/set", {"key": "a/2", "value": "2"}).status == 200
        assert client.call("Set", key="a/3", value="3").success
        assert list(client.call("ScanKeys", prefix="a/").keys) == ["a/1", "a/2", "a/3"]
        # A key that exists and one that does not are refused alike.
        refusals = [http.get(f"/api/v1/get/{key}") for key in ("ab", "b", "nothing")]
        assert len({(refusal.status, str(refusal.body)) for refusal in refusals}) == 1
        assert (refusals[0].status, refusals[0].body["code"]) == (403, "permission_denied")
        for key in ("ab", "b", "nothing"):
            assert _code(client, "Get", key=key) is grpc.StatusCode.PERMISSION_DENIED
        assert _code(client, "ScanKeys", prefix="a") is grpc.StatusCode.PERMISSION_DENIED
        assert http.get("/api/v1/scan?prefix=a").status == 403
        # One key that is not granted refuses the whole batch.
        assert http.post("/api/v1/mset", {"key_values": {"a/4": "4", "b": "x"}}).status == 403
        assert _code(client, "MSet", key_values={"a/4": "4", "b": "x"}) is grpc.StatusCode.PERMISSION_DENIED
        assert _code(client, "MGet", keys=["a/1", "b"]) is grpc.StatusCode.PERMISSION_DENIED
        assert _code(client, "MDelete", keys=["a/1", "b"]) is grpc.StatusCode.PERMISSION_DENIED
        assert http.get("/api/v1/config").status == 200
        assert http.post("/api/v1/config", {"eviction": {"batch_size": 5}}).status == 403
        assert http.get("/metrics").status == http.get("/api/v1/admin/backups").status == 403
    with server.grpc(root) as client:
        assert dict(client.call("MGet", keys=["a/1", "a/4", "b"]).key_values) == {"a/1": "1", "b": "3"}
    denied = eventually(lambda: [line for line in _audit(server) if line["event"] == "denied"])
    assert {line["who"] for line in denied} == {"app"}


def test_a_revoked_token_ends_on_open_connections(start: Any, tokens: Tokens) -> None:
    """On the next request after the server has heard of it, by SIGHUP or by itself; others go on."""
    app, other = tokens.create("app", "get,set"), tokens.create("other", "get,set")
    server = start()
    with server.http(app) as http, server.grpc(app) as client, server.grpc(other) as bystander:
        assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
        assert client.call("Get", key="a").found
        assert bystander.call("Get", key="a").found
        tokens.run("revoke", "app")
        server.send(signal.SIGHUP)
        eventually(lambda: http.get("/api/v1/get/a").status == 401)
        assert _code(client, "Get", key="a") is grpc.StatusCode.UNAUTHENTICATED
        assert bystander.call("Get", key="a").found
        # A new one is known without being told.
        late = tokens.create("late", "get")
        with server.grpc(late) as newcomer:

            def let_in() -> bool:
                try:
                    return bool(newcomer.call("Get", key="a").found)
                except grpc.RpcError:
                    return False

            assert eventually(let_in)
    changes = [line for line in _audit(server) if line["event"] == "tokens_changed"]
    assert [(line["added"], line["removed"]) for line in changes][:2] == [(["app", "other"], []), ([], ["app"])]


@pytest.mark.long
def test_a_damaged_file_changes_nothing(start: Any, tokens: Tokens) -> None:
    """The tokens that were read before stay valid, and the log says why."""
    app = tokens.create("app", "get")
    server = start()
    good = tokens.path.read_bytes()
    tokens.path.write_bytes(b"{")
    server.send(signal.SIGHUP)
    eventually(lambda: "stay valid" in server.log("error"))
    with server.http(app) as http:
        assert http.get("/api/v1/get/a").status == 404
        tokens.path.write_bytes(good)
        tokens.path.chmod(0o646)
        eventually(lambda: "0644" in server.log("error") or "mode" in server.log("error"))
        assert http.get("/api/v1/get/a").status == 404


def test_configuration_is_changed_by_those_who_may(start: Any, tokens: Tokens) -> None:
    """Guarded keys by administrators alone; each change and each refusal is audited under its actor's name."""
    root, tuner = tokens.create("root", ALL), tokens.create("tuner", "config_read,config_write")
    server = start()
    with server.http(tuner) as http, server.grpc(root) as client:
        assert http.post("/api/v1/config", {"logging": {"level": "warn"}}).status == 200
        answer = http.post("/api/v1/config", {"logging": {"directory": "elsewhere"}})
        assert (answer.status, answer.body["code"]) == (403, "permission_denied")
        assert "logging.directory" in answer.body["error"]
        assert client.call("UpdateConfig", config='{"logging": {"directory": "elsewhere"}}').success
        shown = http.get("/api/v1/config").body
        assert root not in json.dumps(shown)
        assert shown["security"]["tokens"] == str(tokens.path)

    def told() -> list[Any]:
        lines = [line for line in _audit(server) if line["event"].startswith("config_")]
        return [(line["event"], line["who"]) for line in lines] if len(lines) == 3 else []

    assert eventually(told) == [("config_changed", "tuner"), ("config_refused", "tuner"), ("config_changed", "root")]


def test_writes_are_audited_on_request(start: Any, tokens: Tokens) -> None:
    """Who, what, how many keys and the first of them; never a value."""
    app = tokens.create("app", "set,delete")
    server = start("--security-audit-writes", "true")
    with server.http(app) as http, server.grpc(app) as client:
        assert http.post("/api/v1/set", {"key": "a", "value": "secret"}).status == 200
        assert client.call("MSet", key_values={"b": "secret", "c": "secret"}).success
        assert client.call("Delete", key="a").success

    def told() -> list[Any]:
        lines = [line for line in _audit(server, "writes") if line["event"] == "write"]
        return [(line["who"], line["operation"], line["keys"]) for line in lines] if len(lines) == 3 else []

    assert eventually(told) == [("app", "set", 1), ("app", "set", 2), ("app", "delete", 1)]
    assert "secret" not in server.log("audit")


def test_each_kind_of_write_is_audited(start: Any, tokens: Tokens) -> None:
    """By the right that it needs of the keys that it may change, not of those that it only reads; a range by its
    bounds, and not at all if it is only counted."""
    app = tokens.create("app", "get,set,delete,scan")
    server = start("--security-audit-writes", "true")
    present = {"present": True}
    with server.http(app) as http, server.grpc(app) as client:
        assert client.call("Increment", key="n", delta=1).success
        assert client.call("Touch", key="t", ttl=9).success
        assert client.call("Set", key="c", value="secret", condition=present).condition_failed
        mutations = [
            {"set": {"key": "s", "value": "secret"}},
            {"touch": {"key": "n", "ttl": 9}},
            {"delete": {"key": "d"}},
        ]
        assert client.call("Transact", checks=[{"key": "n", "condition": present}], mutations=mutations).success
        assert client.call("Transact", checks=[{"key": "n", "condition": present}]).success
        assert http.call("PUT", "/api/v1/raw/r", b"secret").status == 200
        lines = b'{"key":"i/1","value":"secret"}\n{"key":"i/2","data":""}\n'
        assert http.call("POST", "/api/v1/import", lines, "application/x-ndjson").status == 200
        assert client.call("DeleteRange", prefix="i/", dry_run=True).deleted == 2
        assert client.call("DeleteRange", prefix="i/").deleted == 2
        assert http.post("/api/v1/delete_range", {"all": True}).status == 200

    def told() -> list[Any]:
        written = [line for line in _audit(server, "writes") if line["event"] == "write"]
        written = [{name: line[name] for name in line if name not in ("time", "event", "who")} for line in written]
        return written if written and written[-1].get("end") == "" else []

    assert eventually(told) == [
        {"operation": "set", "keys": 1, "first_key": "n"},
        {"operation": "set", "keys": 1, "first_key": "t"},
        {"operation": "set", "keys": 1, "first_key": "c"},
        {"operation": "set", "keys": 2, "first_key": "s"},
        {"operation": "delete", "keys": 1, "first_key": "d"},
        {"operation": "set", "keys": 1, "first_key": "r"},
        {"operation": "set", "keys": 2, "first_key": "i/1"},
        {"operation": "delete_range", "start": "i/", "end": "i0"},
        {"operation": "delete_range", "start": "", "end": ""},
    ]
    assert "secret" not in server.log("writes")


@pytest.mark.parametrize("listener", ["http", "grpc"])
def test_an_open_server_listens_on_loopback_alone(tmp_path: Path, listener: str) -> None:
    """Elsewhere it does not start, and says which settings would allow it."""
    ended = run_twistd("-n", "--pidfile=", "kvtwisted", *FREE_PORTS, f"--{listener}-host", "0.0.0.0", folder=tmp_path)
    assert ended.returncode == 1
    assert "security.tokens" in ended.stderr
    assert f"{listener}.tls_client_ca" in ended.stderr


def test_the_answer_says_how(start: Any, tokens: Tokens) -> None:
    """Somebody without a token is told what is needed."""
    tokens.create("app", "get")
    with start().http() as http:
        assert http.get("/api/v1/get/a").body["error"] == NO_TOKEN


@pytest.mark.long
def test_rates_of_tokens_and_addresses(start: Any, tokens: Tokens) -> None:
    """Over them requests are refused on both interfaces, with when to come back; a change takes effect at once."""
    slow = tokens.run("create", "slow", "--grant=get,set", "--rate-operations=5")
    root = tokens.create("root", ALL)
    server = start()

    def refused(http: Http) -> Any:
        answers = [http.get("/api/v1/get/a") for _ in range(50)]
        return next((answer for answer in answers if answer.status == 429), None)

    with server.http(slow) as http, server.http(root) as admin, server.grpc(slow) as client:
        answer = refused(http)
        assert (answer.status, answer.body["code"], answer.headers["retry-after"]) == (429, "rate_limited", "1")
        codes = {eventually(lambda: _refusal(client)) for _ in range(3)}
        assert codes == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert refused(admin) is None
        assert admin.post("/api/v1/config", {"security": {"address_operations": 5}}).status == 200
        assert eventually(lambda: refused(admin)).headers["retry-after"] == "1"

        def lift() -> bool:
            return admin.post("/api/v1/config", {"security": {"address_operations": 0}}).status == 200

        eventually(lift)
        eventually(lambda: refused(admin) is None)


def _refusal(client: Grpc) -> grpc.StatusCode | None:
    try:
        client.call("Get", key="a")
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return None


@pytest.mark.long
def test_the_command_sends_a_token(start: Any, tokens: Tokens, tmp_path: Path) -> None:
    """From a file, or from the environment; without one it is told that one is needed."""
    admin = tokens.create("ops", "admin")
    url = f"http://{start().http_address}"
    file = tmp_path / "token"
    file.write_text(f"{admin}\n")

    def run(*options: str, env: dict[str, str] | None = None) -> Any:
        command = [*CLI, "backups", "--url", url, *options]
        return subprocess.run(
            command, env=environment(env), capture_output=True, text=True, timeout=PATIENCE, check=False
        )

    assert "a token is required" in run().stderr
    assert run("--token-file", str(file)).stdout == "no backups\n"
    assert run(env={"KVTWISTED_TOKEN": admin}).stdout == "no backups\n"
    file.write_text("two words")
    bad = run("--token-file", str(file))
    assert (bad.returncode, "has no token in it" in bad.stderr) == (1, True)


@pytest.mark.long
def test_refused_changes_do_not_flood_the_audit_log(start: Any, tokens: Tokens) -> None:
    """Of many only some are written, and how many were left out."""
    tuner = tokens.create("tuner", "config_write")
    server = start()
    with server.http(tuner) as http:
        for _ in range(60):
            assert http.post("/api/v1/config", {"no.such": 1}).status == 400
    lines = eventually(lambda: [line for line in _audit(server) if line["event"] == "config_refused"])
    assert 0 < len(lines) < 40


def test_a_quota(start: Any, tokens: Tokens) -> None:
    """On both interfaces, and what was there before counts; how much is used can be seen."""
    root = tokens.create("root", ALL)
    server = start()
    with server.http(root) as http:
        pairs = {"a/1": "v" * 97, "a/2": "v" * 97, "b": "v"}
        assert http.post("/api/v1/mset", {"key_values": pairs}).status == 200
    app = tokens.run("create", "app", "--grant=get,set,delete:a/", "--quota-keys=3", "--quota-bytes=1000")
    with server.http(app) as http, server.grpc(app) as client, server.http(root) as root_http:

        def shown(name: str) -> float:
            return root_http.metric(name, principal="app")

        eventually(lambda: shown("kv_quota_used_keys") == 2)
        assert http.post("/api/v1/set", {"key": "a/3", "value": "v"}).status == 200
        answer = http.post("/api/v1/mset", {"key_values": {"a/4": "v"}})
        assert (answer.status, answer.body["code"]) == (507, "quota_exceeded")
        assert "quota.keys is 3, 3 keys are in use, this write adds 1" in answer.body["error"]
        assert _code(client, "Set", key="a/4", value="v") is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert _code(client, "Set", key="a/3", value="v" * 900) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert client.call("Set", key="a/3", value="w").success
        assert client.call("Delete", key="a/1").success
        assert client.call("Set", key="a/4", value="v").success
        assert shown("kv_quota_used_bytes") == 108
        assert (shown("kv_quota_bytes"), shown("kv_quota_keys")) == (1000, 3)
        assert shown("kv_quota_refused_total") == 3
