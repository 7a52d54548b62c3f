"""Client certificates on both listeners: who is in the token file, who is not, and a server without one."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from tests.support.certificates import Pair, authority

from .harness import PATIENCE, Launcher, Server, eventually
from .test_authentication import Tokens

SERVICE = "/kv.v1.KeyValueService"


class Site:
    """Certificates of a server, of its clients Ann and Bob, and of the authority of all."""

    def __init__(self, folder: Path) -> None:
        self.signer = authority(folder)
        self.server = Pair(folder, authority=False, issuer=self.signer)
        self.ann, self.bob = (
            Pair(folder, name, common_names=(name,), names=(), authority=False, issuer=self.signer)
            for name in ("ann", "bob")
        )
        self.options = [
            option
            for listener in ("http", "grpc")
            for option in (
                f"--{listener}-tls-certificate", self.server.certificate,
                f"--{listener}-tls-private-key", self.server.private_key,
                f"--{listener}-tls-client-ca", self.signer.certificate,
            )
        ]  # fmt: skip


class Client:
    """One client on one connection to each listener."""

    def __init__(self, site: Site, server: Server, pair: Pair) -> None:
        trust = ssl.create_default_context(cafile=site.signer.certificate)
        trust.load_cert_chain(pair.certificate, pair.private_key)
        http_port, grpc_port = (
            address.rpartition(":")[2] for address in (server.http_address, server.grpc_address)
        )  # fmt: skip
        self.http = http.client.HTTPSConnection("localhost", int(http_port), timeout=PATIENCE, context=trust)
        credentials = grpc.ssl_channel_credentials(site.signer.chain, pair.key_pem, pair.chain)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        self.channel = grpc.secure_channel(f"localhost:{grpc_port}", credentials, options=options)

    def ask(self, method: str, path: str, document: Any = None, token: str | None = None) -> int:
        """The status of an HTTP request."""
        body = None if document is None else json.dumps(document)
        headers = {"Content-Type": "application/json"} if body else {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self.http.request(method, f"/api/v1/{path}", body, headers)
        answer = self.http.getresponse()
        answer.read()
        return answer.status

    def call(self, key: str, token: str | None = None) -> grpc.StatusCode:
        """The status of a Get."""
        method = self.channel.unary_unary(f"{SERVICE}/Get", kv.GetRequest.SerializeToString, kv.GetResponse.FromString)
        metadata = [("authorization", f"Bearer {token}")] if token else []
        call = method.future(kv.GetRequest(key=key), timeout=PATIENCE, metadata=metadata, wait_for_ready=True)
        call.exception()
        code: grpc.StatusCode = call.code()
        return code


@contextmanager
def connected(site: Site, server: Server, *pairs: Pair) -> Iterator[list[Client]]:
    """Clients with these certificates."""
    clients = [Client(site, server, pair) for pair in pairs]
    yield clients
    for client in clients:
        client.http.close()
        client.channel.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """All certificates."""
    return Site(tmp_path)


OK, UNAUTHENTICATED, DENIED = grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize("transport", ["native", pytest.param("threaded", marks=pytest.mark.long)])
def test_with_a_token_file(launch: Launcher, site: Site, transport: str) -> None:
    """One that is listed has its grants; one that is not is nobody; a token counts for more; a revoked one ends."""
    tokens = Tokens(launch.folder / "server")
    assert tokens.run("create", "a", "--certificate", "ann", "--grant", "get,set:a/") == "created a"
    root = tokens.create("root", "get,set,metrics")
    server = launch("--security-tokens", str(tokens.path), "--grpc-transport", transport, *site.options)
    with connected(site, server, site.ann, site.bob) as (ann, bob):
        assert ann.ask("POST", "set", {"key": "a/1", "value": "1"}) == 200
        assert ann.ask("GET", "get/a/1") == 200
        assert ann.ask("GET", "get/b") == 403
        assert (ann.call("a/1"), ann.call("b")) == (OK, DENIED)

        assert bob.ask("GET", "health") == 200
        assert bob.ask("GET", "get/a/1") == 401
        assert bob.call("a/1") is UNAUTHENTICATED
        # With a token he may do what that may, and with a wrong one nothing, although Ann's certificate is listed.
        assert bob.ask("GET", "get/a/1", token=root) == 200
        assert bob.call("b", root) is OK
        assert ann.ask("GET", "get/b", token=root) == 404
        assert ann.ask("GET", "get/a/1", token="kv1_root_" + "0" * 43) == 401
        assert ann.call("a/1", "x") is UNAUTHENTICATED
        assert ann.ask("GET", "get/a/1") == 200
        assert (ann.call("a/1"), ann.call("b")) == (OK, DENIED)

        # Bob is listed now, and Ann no longer; their connections stay.
        tokens.run("create", "b", "--certificate", "bob", "--grant", "get")
        eventually(lambda: bob.ask("GET", "get/a/1") == 200)
        eventually(lambda: bob.call("b") is OK)
        tokens.run("revoke", "a")
        eventually(lambda: ann.ask("GET", "get/a/1") == 401)
        eventually(lambda: ann.call("a/1") is UNAUTHENTICATED)
        assert bob.ask("GET", "get/a/1") == 200

    def denied() -> set[str]:
        lines = map(json.loads, server.log("audit").splitlines())
        return {line["who"] for line in lines if line["event"] == "denied"}

    eventually(lambda: len(denied()) > 1)
    assert denied() == {"a", "anonymous"}


@pytest.mark.parametrize("transport", ["native", pytest.param("threaded", marks=pytest.mark.long)])
def test_without_a_token_file(launch: Launcher, site: Site, transport: str) -> None:
    """Whoever has a certificate may do everything, and changes the configuration under its name."""
    server = launch("--grpc-transport", transport, *site.options)
    with connected(site, server, site.ann, site.bob) as (ann, bob):
        assert ann.ask("POST", "set", {"key": "k", "value": "1"}) == 200
        assert bob.ask("GET", "get/k") == 200
        assert (ann.call("k"), bob.call("k")) == (OK, OK)
        assert bob.ask("GET", "admin/backups") == 200
        assert bob.ask("POST", "config", {"eviction": {"batch_size": 7}}) == 200
        # There are no tokens: one that is sent is no good.
        assert bob.ask("GET", "get/k", token="x") == 401
        assert bob.call("k", "x") is UNAUTHENTICATED
        assert bob.call("k") is OK

    def changed() -> list[str]:
        lines = [json.loads(line) for line in server.log("audit").splitlines()]
        return [line["who"] for line in lines if line["event"] == "config_changed"]

    assert eventually(changed) == ["cert:bob"]


@pytest.mark.long
def test_a_connection_ends_with_its_certificate(launch: Launcher, site: Site) -> None:
    """TLS looks at the dates once; the server ends a connection when they are over, over HTTP and over gRPC."""
    server = launch("--grpc-transport", "native", *site.options)
    folder = Path(site.signer.certificate).parent
    brief = Pair(
        folder, "brief", common_names=("brief",), names=(), authority=False, issuer=site.signer, days=(-1, 8 / 86400)
    )
    with connected(site, server, brief, site.ann) as (client, ann):
        assert (client.ask("GET", "get/a"), client.call("a")) == (404, OK)
        assert (ann.ask("GET", "get/a"), ann.call("a")) == (404, OK)
        there = int(ann_metric(ann))
        assert there == 4
        eventually(lambda: int(ann_metric(ann)) == 2)
        assert ann.call("a") is OK


def ann_metric(ann: Client) -> float:
    """Open connections, on both listeners, as she reads it."""
    ann.http.request("GET", "/metrics")
    text = ann.http.getresponse().read().decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith("kv_connections{"))
