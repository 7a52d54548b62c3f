"""A real twistd process: started in a folder of its own, followed through its output, and ended by its pid."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, TypeVar

from .clients import Grpc, Http

T = TypeVar("T")

REPOSITORY = Path(__file__).resolve().parents[2]
#: Seconds after which a wait has failed. Long, for a busy machine; nothing that works waits so long.
PATIENCE = 30.0
#: What the console script `twistd` does, without the help of PATH.
TWISTD = (sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()")
#: What the console script `kvtwisted` does.
CLI = (sys.executable, "-c", "from kvtwisted.cli import main; main()")
#: The options of `twistd kvtwisted` that let tests run beside anything else.
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0")


def eventually(check: Callable[[], T], patience: float = PATIENCE) -> T:
    """The first true answer of `check`, which is asked again and again."""
    deadline = time.monotonic() + patience
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {patience} s"
        time.sleep(0.02)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Ours without any KV_ or GRPC_ variable, with this repository's modules and plugin, and with `extra`."""
    ours = {name: text for name, text in os.environ.items() if not name.startswith(("KV_", "GRPC_"))}
    paths = [str(REPOSITORY), *filter(None, [ours.get("PYTHONPATH")])]
    return {**ours, "PYTHONPATH": os.pathsep.join(paths), **(extra or {})}


#: In front of the command of a server that could not save what coverage measures, or must not write that.
UNMEASURED = ("env", "-u", "COVERAGE_PROCESS_CONFIG", "-u", "COVERAGE_PROCESS_START")


def engine() -> str:
    """The engine that these tests are run for (KVTWISTED_TEST_ENGINE)."""
    return os.environ.get("KVTWISTED_TEST_ENGINE", "auto")


def transport() -> str:
    """The gRPC transport that these tests are run for (KVTWISTED_TEST_TRANSPORT)."""
    return os.environ.get("KVTWISTED_TEST_TRANSPORT", "native")


def occupy(folder: Path) -> None:
    """See to it that more than 1 % of the disk is in use, and not by the server: the least that is ever too full."""
    figures = os.statvfs(folder)
    missing = figures.f_blocks * figures.f_frsize // 50 - (figures.f_blocks - figures.f_bfree) * figures.f_frsize
    if missing > 0:
        with open(folder / "ballast", "wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, missing)


def run_twistd(*arguments: str, folder: Path, env: Mapping[str, str] | None = None) -> Any:
    """Run twistd to its end; the result has `returncode`, `stdout` and `stderr`."""
    return subprocess.run(
        [*TWISTD, *arguments],
        cwd=folder,
        env=environment(env),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def connect(address: str, receive_buffer: int | None = None) -> socket.socket:
    """A connection to host:port on which nothing is said, which may take only a little before it is read."""
    host, _, port = address.rpartition(":")
    connection = socket.socket()
    if receive_buffer is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    connection.settimeout(PATIENCE)
    connection.connect((host, int(port)))
    return connection


class Server:
    """One process that serves, or was meant to."""

    def __init__(self, command: Sequence[str], folder: Path, env: Mapping[str, str] | None = None) -> None:
        """Start `command` with `folder` as its current folder, where the output is kept too."""
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self._output = folder / f"output-{len(list(folder.glob('output-*.txt')))}.txt"
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(
                command,
                cwd=folder,
                env=environment(env),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def descriptors(self) -> int:
        """Files that the process has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    @property
    def resident(self) -> int:
        """Bytes of memory that the process has."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    @property
    def output(self) -> str:
        """What the process has written so far, to standard output and standard error."""
        return self._output.read_text(encoding="utf-8", errors="replace")

    @property
    def http_address(self) -> str:
        """host:port of the HTTP interface; waits until it listens."""
        return self.wait_for(r"HTTP on https?://(\S+)")[1]

    @property
    def grpc_address(self) -> str:
        """host:port of the gRPC interface; waits until it listens."""
        return self.wait_for(r"gRPC on (\S+)")[1]

    def http(self, token: str | None = None) -> Http:
        """A new HTTP client."""
        return Http(self.http_address, token)

    def grpc(self, token: str | None = None) -> Grpc:
        """A new gRPC client."""
        return Grpc(self.grpc_address, token)

    def log(self, name: str) -> str:
        """The content of one of the server's own log files."""
        return (self.folder / "logs" / f"{name}.log").read_text(encoding="utf-8")

    def wait_for_log(self, name: str, text: str) -> None:
        """Wait until one of the server's own logs has `text`: lines are written a little later."""
        eventually(lambda: text in self.log(name))

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The first match of `pattern` in the output; waits for it, but not longer than the process lives."""

        def look() -> re.Match[str] | None:
            ended = self.process.poll()
            found = re.search(pattern, self.output)
            assert found or ended is None, f"ended with {ended} before it wrote {pattern!r}:\n{self.output}"
            return found

        return eventually(look)

    def send(self, number: int) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def wait(self, patience: float = PATIENCE) -> int:
        """The exit status (-N: ended by signal N), once the process has ended."""
        return self.process.wait(patience)

    def stop(self) -> None:
        """Stop in the orderly way."""
        self.send(signal.SIGTERM)
        # twistd stops in order, then lets the signal end it.
        assert self.wait() == -signal.SIGTERM, self.output

    def kill(self) -> None:
        """End at once, as a crash would."""
        self.process.kill()
        self.process.wait()


class Launcher:
    """Starts servers in subfolders of one folder and ends those that still run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []

    def __call__(
        self, *options: str, name: str = "server", env: Mapping[str, str] | None = None, ready: bool = True
    ) -> Server:
        """`twistd -n kvtwisted` on free ports in the subfolder `name`; with `ready` it serves when this returns.

        A server of the same name uses the same data: that is a restart.
        """
        chosen = ("--storage-engine", engine(), "--grpc-transport", transport())
        command = [*TWISTD, "-n", "--pidfile=", "kvtwisted", *FREE_PORTS, *chosen, *options]
        return self.run(command, name=name, env=env, ready=ready)

    def run(
        self, command: Sequence[str], *, name: str = "server", env: Mapping[str, str] | None = None, ready: bool = True
    ) -> Server:
        """The same for any command that writes the server's addresses."""
        server = Server(command, self.folder / name, env)
        self.servers.append(server)
        if ready:
            server.grpc_address  # noqa: B018 - waits; it is written last
        return server

    def end(self) -> None:
        """End every server that still runs: orderly if it can, so that coverage is saved."""
        running = [server for server in self.servers if server.process.poll() is None]
        for server in running:
            server.send(signal.SIGTERM)
        for server in running:
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
