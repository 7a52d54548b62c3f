"""Logs that nobody reads or that others touch, under a running server: it goes on, says so, and ends when told to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from .clients import Http
from .harness import FREE_PORTS, PATIENCE, REPOSITORY, TWISTD, Launcher, engine, environment, eventually, run_twistd
from .test_authentication import Tokens


class Piped:
    """A server whose standard output and error are a pipe that nobody reads until told to."""

    def __init__(self, command: Sequence[str], folder: Path, *, full: bool, env: dict[str, str] | None = None) -> None:
        """With `full` there is no room in the pipe from the start."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._read, self._write = os.pipe()
        if full:
            self.fill()
        self.process = subprocess.Popen(
            command, cwd=folder, env=environment(env), stdin=subprocess.DEVNULL, stdout=self._write, stderr=self._write
        )
        try:
            self.address = eventually(self._listens)
        except BaseException:
            self.end()
            raise

    def _listens(self) -> str | None:
        running = self.folder / "logs" / "running.log"
        found = re.search(r"HTTP on http://(\S+)", running.read_text()) if running.exists() else None
        return found and found[1]

    def fill(self) -> None:
        """Leave no room in the pipe, though whoever writes to it would wait."""
        writer = os.open(f"/proc/self/fd/{self._write}", os.O_WRONLY | os.O_NONBLOCK)
        try:
            while True:
                os.write(writer, b"x" * 512 + b"\n")
        except BlockingIOError:
            pass
        finally:
            os.close(writer)

    def drain(self) -> str:
        """What was written, and room again."""
        os.set_blocking(self._read, False)
        text = b""
        try:
            while True:
                text += os.read(self._read, 65536)
        except BlockingIOError:
            return text.decode()

    def end(self) -> None:
        """However it is."""
        self.process.kill()
        self.process.wait()


@pytest.mark.long
def test_standard_output_that_nobody_reads(tmp_path: Path) -> None:
    """A full pipe from the first line on: the server starts, answers, follows revocations, warns, and stops.

    When somebody reads again, what waited comes.
    """
    folder = tmp_path / "server"
    tokens = Tokens(folder)
    kept, revoked = tokens.create("kept", "get,metrics"), tokens.create("revoked", "get")
    options = ["--storage-engine", engine(), "--security-tokens", str(tokens.path)]
    server = Piped([*TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS, *options], folder, full=True)
    try:
        with Http(server.address, revoked) as http:
            assert http.get("/api/v1/get/a").status == 404
            tokens.run("revoke", "revoked")
            eventually(lambda: http.get("/api/v1/get/a").status == 401)
        with Http(server.address, kept) as http:
            warnings = eventually(lambda: http.get("/api/v1/health").body.get("warnings"))
            assert warnings == ["standard output takes no lines: a write to it does not end"]
            answer = http.get("/api/v1/health")
            assert (answer.status, answer.body["status"]) == (200, "ok")
            assert http.metric("kv_log_stuck", log="twistd") == 1
            assert http.metric("kv_log_lines_waiting", log="twistd") > 0
        eventually(lambda: "standard output takes no lines" in (folder / "logs" / "error.log").read_text())
        told = ""

        def read() -> bool:
            nonlocal told
            told += server.drain()
            return "the tokens have changed: 1 are known" in told

        eventually(read)
        assert f"HTTP on http://{server.address}\n" in told
        with Http(server.address) as http:
            eventually(lambda: http.get("/api/v1/health").body == {"status": "ok"})
        server.fill()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        server.end()


@pytest.mark.long
def test_the_same_of_an_application_file(tmp_path: Path) -> None:
    """`twistd -y` makes its observer before it knows the application's options: it is replaced."""
    env = {"KV_HTTP_PORT": "0", "KV_GRPC_PORT": "0", "KV_STORAGE_ENGINE": engine()}
    command = [*TWISTD, "-n", "--pidfile=", "-y", str(REPOSITORY / "kv.tac")]
    server = Piped(command, tmp_path / "server", full=False, env=env)
    try:
        server.fill()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE) == -signal.SIGTERM
    finally:
        server.end()


def test_files_that_were_moved_and_removed(launch: Launcher) -> None:
    """SIGHUP opens all anew, at once; without it a removed one is back by itself, before anybody logs."""
    server = launch("--logging-access", "true")
    logs = server.folder / "logs"
    names = {path.name for path in logs.iterdir()}
    assert names == {"running.log", "error.log", "performance.log", "audit.log", "access.log"}
    (logs / "audit.log").unlink()
    eventually((logs / "audit.log").exists)
    for name in names:
        (logs / name).rename(logs / f"{name}.old")
    server.send(signal.SIGHUP)
    eventually(lambda: names <= {path.name for path in logs.iterdir()})
    with server.http() as http:
        assert http.get("/api/v1/get/a").status == 404
        assert http.post("/api/v1/config", {"logging": {"performance_interval": 61}}).status == 200
    for name, text in (("access", "/api/v1/get/a"), ("audit", "config_changed")):
        eventually(lambda name=name, text=text: text in server.log(name))  # type: ignore[misc]
        assert text not in (logs / f"{name}.log.old").read_text()


@pytest.mark.long
def test_one_log_that_hangs(launch: Launcher) -> None:
    """A FIFO without a reader in the place of a log: the start waits a little, the others go on, the stop ends."""
    logs = launch.folder / "server" / "logs"
    logs.mkdir(parents=True)
    os.mkfifo(logs / "audit.log")
    server = launch("--logging-access", "true")
    with server.http() as http:
        assert http.post("/api/v1/config", {"logging": {"performance_interval": 61}}).status == 200
        eventually(lambda: "/api/v1/config" in server.log("access"))
        eventually(lambda: http.metric("kv_log_stuck", log="audit") == 1)
    server.stop()


def test_a_daemon_s_log(tmp_path: Path) -> None:
    """--logfile: opened anew on SIGHUP, rotated on SIGUSR1 as twistd does it, and complete at the end."""
    options = ["kvtwisted", *FREE_PORTS, "--storage-engine", engine()]
    done = run_twistd("--pidfile", "kv.pid", "--logfile", "kv.log", *options, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    pid, log = int((tmp_path / "kv.pid").read_text()), tmp_path / "kv.log"
    try:
        log.rename(tmp_path / "kv.old")
        os.kill(pid, signal.SIGHUP)
        eventually(log.exists)
        log.write_text("one line\n")
        os.kill(pid, signal.SIGUSR1)
        eventually((tmp_path / "kv.log.1").exists)
        assert (tmp_path / "kv.log.1").read_text() == "one line\n"
    finally:
        os.kill(pid, signal.SIGTERM)
        eventually(lambda: not Path(f"/proc/{pid}/fd").exists() or not os.listdir(f"/proc/{pid}/fd"))
    assert "HTTP on" in (tmp_path / "kv.old").read_text()
    eventually(lambda: log.read_text().endswith("Server Shut Down.\n"))
