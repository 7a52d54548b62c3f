"""Starting: the other ways to do it, and what keeps a server from it is one clear line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import tempfile
from pathlib import Path

import pytest

from kvtwisted.config.schema import KEYS

from .clients import Grpc, Http
from .harness import FREE_PORTS, REPOSITORY, TWISTD, UNMEASURED, Launcher, Server, engine, eventually, run_twistd


def _refusal(server: Server) -> str:
    """The one line in which `server` said why it gave up."""
    assert server.wait() == 1
    assert "Traceback" not in server.output
    (line,) = re.findall(r"kvtwisted: (.*)\n", server.output)
    return str(line)


def test_what_is_taken(launch: Launcher) -> None:
    """A data folder or a port that is in use keeps a second server from starting, and the first one unharmed."""
    first = launch()
    http_port, grpc_port = (address.rpartition(":")[2] for address in (first.http_address, first.grpc_address))
    second = launch(ready=False)
    third = launch("--http-port", http_port, name="third", ready=False)
    fourth = launch("--grpc-port", grpc_port, name="fourth", ready=False)
    assert "./data" in _refusal(second)
    for server, port, to_blame, innocent in (
        (third, http_port, "http.port is", "grpc."),
        (fourth, grpc_port, "grpc.port is", "http."),
    ):
        said = _refusal(server)
        assert f"127.0.0.1:{port}" in said
        assert to_blame in said
        assert innocent not in said
    with first.http() as http, first.grpc() as client:
        assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
        assert client.call("Get", key="a").value == "1"
    first.stop()


@pytest.mark.parametrize(
    ("options", "env", "file", "named"),
    [
        ((), {}, "[http]\nprot = 1\n", "http.prot"),
        (("--limits-max-batch-keys", "many"), {}, "", "limits.max_batch_keys"),
        ((), {"KV_EVICTION_POLICY": "random"}, "", "eviction.policy"),
        (("--config", "missing.toml"), {}, "", "missing.toml"),
    ],
)
def test_a_configuration_that_is_refused(
    launch: Launcher, options: tuple[str, ...], env: dict[str, str], file: str, named: str
) -> None:
    """One line names the key, the variable or the file, and where it came from; nothing was made."""
    folder = launch.folder / "server"
    folder.mkdir()
    (folder / "config.toml").write_text(file)
    server = launch("--config", "config.toml", *options, env=env, ready=False)
    assert named in _refusal(server)
    assert not (folder / "data").exists()


def test_an_option_that_does_not_exist(tmp_path: Path) -> None:
    """A typing mistake on the command line is named, and nothing is started. (The status is 0 before Twisted 26.10.)"""
    done = run_twistd("-n", "--pidfile=", "kvtwisted", "--http-prot", "1", folder=tmp_path)
    assert "option --http-prot not recognized" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made(launch: Launcher) -> None:
    """A data folder or log folder that stands in the way of a file is named in one line."""
    folder = launch.folder / "server"
    folder.mkdir()
    (folder / "file").touch()
    data = launch("--rocksdb-path", "file/data", ready=False)
    logs = launch("--logging-directory", "file/logs", ready=False)
    assert "file/data" in _refusal(data)
    assert "file/logs" in _refusal(logs)


def test_what_is_to_blame_is_named(launch: Launcher) -> None:
    """The value that the server cannot start with, and the file to mend."""
    folder = launch.folder / "server"
    folder.mkdir()
    (folder / "file").touch()
    (folder / "kvtwisted.runtime.json").write_text('{"rocksdb.path": "file/data"}')
    said = f'rocksdb.path is "file/data", set in {folder}/kvtwisted.runtime.json, which keeps changes made at run time'
    assert _refusal(launch(ready=False)).endswith(said)


def test_closed_standard_streams(launch: Launcher) -> None:
    """The server works, nothing is put where they were, and nothing complains."""
    command = 'exec "$@" <&- >&- 2>&-'
    options = (*TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS, "--storage-engine", engine())
    server = launch.run(["sh", "-c", command, "sh", *options], ready=False)
    log = server.folder / "logs" / "running.log"
    eventually(lambda: log.exists() and "gRPC on" in log.read_text())
    address = _found(r"HTTP on http://(\S+)", log.read_text())
    with Http(address) as http:
        assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
    assert {os.readlink(f"/proc/{server.pid}/fd/{descriptor}") for descriptor in range(3)} == {os.devnull}
    server.stop()
    assert (server.folder / "logs" / "error.log").read_text() == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can have such a port and give up its rights")
def test_ports_below_1024() -> None:
    """They are bound before twistd gives root's rights up; all that is made belongs to the new user."""
    launcher, nobody = Launcher(_for_everybody()), 65534
    http, grpc = (str(port) for port in _free_low_ports(2))
    try:
        (launcher.folder / "server").mkdir()
        (launcher.folder / "server" / "kv.toml").write_text(f"http.port = {http}\ngrpc.port = {grpc}\n")
        options = ("kvtwisted", "--config", "kv.toml", "--storage-engine", engine())
        command = [*UNMEASURED, *TWISTD, "-n", "--pidfile=", "--uid", str(nobody), *options]
        os.chown(launcher.folder / "server", nobody, nobody)
        server = launcher.run(command)
        assert (server.http_address, server.grpc_address) == (f"127.0.0.1:{http}", f"127.0.0.1:{grpc}")
        with server.http() as client, server.grpc() as stub:
            assert client.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
            assert stub.call("Get", key="a").value == "1"
            assert client.post("/api/v1/config", {"http.port": int(grpc), "grpc.port": int(http)}).status == 200
        made = [server.folder / name for name in ("data", "logs", "value_data", "kv.toml.runtime.json")]
        assert {path.stat().st_uid for path in made} == {nobody}
        server.stop()
        refused = launcher.run([*command, "--grpc-transport", "threaded"], ready=False)
        assert "take grpc.transport = native" in _refusal(refused)
    finally:
        launcher.end()
        shutil.rmtree(launcher.folder)


def _for_everybody() -> Path:
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    return folder


def _free_low_ports(count: int) -> list[int]:
    found: list[int] = []
    for port in range(1023, 600, -1):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                found.append(port)
        if len(found) == count:
            break
    return found


def test_help(tmp_path: Path) -> None:
    """`twistd --help` lists the command, and `twistd kvtwisted --help` explains every key and says its default."""
    assert "Persistent key-value server" in run_twistd("--help", folder=tmp_path).stdout
    done = run_twistd("kvtwisted", "--help", folder=tmp_path)
    assert done.returncode == 0
    text = _unwrapped(done.stdout)
    for key in KEYS.values():
        default = str(key.default).lower() if key.type == "boolean" else key.default
        assert _unwrapped(f"{key.flag}={key.help}[{default}]") in text
    assert "--config=" in text


def _unwrapped(text: str) -> str:
    return re.sub(r"\s", "", text)


def test_version(tmp_path: Path) -> None:
    """`twistd kvtwisted --version` says kvtwisted's own version."""
    assert re.fullmatch(r"kvtwisted \d+\.\d+\S*\n", run_twistd("kvtwisted", "--version", folder=tmp_path).stdout)


def test_application_file(launch: Launcher) -> None:
    """`twistd -ny kv.tac` serves, and takes its configuration from the environment."""
    env = {"KV_HTTP_PORT": "0", "KV_GRPC_PORT": "0", "KV_LIMITS_MAX_BATCH_KEYS": "3", "KV_STORAGE_ENGINE": engine()}
    server = launch.run([*TWISTD, "-n", "--pidfile=", "-y", str(REPOSITORY / "kv.tac")], env=env)
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
        assert client.call("Get", key="a").value == "1"
        assert "limits.max_batch_keys is 3" in client.call("MGet", keys=["a"] * 4).error
    server.stop()


def test_daemon(tmp_path: Path) -> None:
    """As a daemon twistd forks; storage and servers are opened after that, so both interfaces work. SIGTERM ends it.

    The command returns when the daemon serves, or says why it does not.
    """
    options = ["kvtwisted", *FREE_PORTS, "--storage-engine", engine()]
    done = run_twistd("--pidfile", "kv.pid", "--logfile", "kv.log", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pid = int((tmp_path / "kv.pid").read_text())
    try:
        log = (tmp_path / "kv.log").read_text()
        http, grpc = (_found(rf"{name} on (?:http://)?(\S+)", log) for name in ("HTTP", "gRPC"))
        with Http(http) as http_client, Grpc(grpc) as grpc_client:
            assert http_client.post("/api/v1/set", {"key": "a", "value": "1"}).status == 200
            assert grpc_client.call("Get", key="a").value == "1"
        second = run_twistd("--pidfile", "second.pid", "--logfile", "second.log", *options, folder=tmp_path)
        assert second.returncode == 1
        assert "kvtwisted: the data folder './data' is in use" in second.stderr
        assert not (tmp_path / "second.pid").exists()
        said = (tmp_path / "second.log").read_text()
        assert "Traceback" not in said
        # All of it stands in the log: a daemon's standard error leads nowhere.
        assert 'rocksdb.path is "./data", its default' in said
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not _runs(pid))
    assert not (tmp_path / "kv.pid").exists()
    assert "Traceback" not in (tmp_path / "kv.log").read_text()


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    assert match, text
    return match[1]


def _runs(pid: int) -> bool:
    try:
        state = re.search(r"\) (\w)", Path(f"/proc/{pid}/stat").read_text())
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state is not None and state[1] != "Z"
