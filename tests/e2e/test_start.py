"""Starting: the other ways to do it, and what keeps a server from it is one clear line."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from kvtwisted.config.schema import KEYS

from .clients import Grpc, Http
from .harness import FREE_PORTS, REPOSITORY, TWISTD, Launcher, Server, engine, eventually, run_twistd


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
    assert f"127.0.0.1:{http_port}" in _refusal(third)
    assert f"127.0.0.1:{grpc_port}" in _refusal(fourth)
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
