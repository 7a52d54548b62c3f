"""Redis and etcd beside our servers: real processes with folders of their own, and the loads that they are given."""

from __future__ import annotations

import csv
import re
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from . import client
from .client import Shape
from .load import LoadError, Outcome, cpu_seconds, run_program
from .rounds import Sample
from .server import PATIENCE

#: Keys in one command while a server is filled.
_FILL_KEYS = 100
#: Commands of the first load by redis-benchmark, which finds out how many make the next long enough.
_FIRST = 500
#: redis-benchmark puts a random number of 12 digits in this place.
_RANDOM = "__rand_int__"


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


class Other:
    """A running server of another project; `with` ends it."""

    def __init__(self, folder: Path, port: int, command: Sequence[str]) -> None:
        """Blocks until it listens. Raises RuntimeError with its output when it does not."""
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port
        output = folder / "output.txt"
        with open(output, "wb") as file:
            self._process = subprocess.Popen(  # noqa: S603 - built here
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__(None, None, None)
                    said = output.read_text("utf-8", "replace")
                    raise RuntimeError(f"{command[0]} did not start:\n{said}") from None
                time.sleep(0.02)

    def cpu_seconds(self) -> float:
        """Processor time that the process has used."""
        return cpu_seconds(self._process.pid)

    def __enter__(self) -> Other:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Redis(Other):
    """redis-server (https://redis.io), with what it keeps on the disk as its options say."""

    PROGRAM = "redis-server"

    def __init__(self, folder: Path, *options: str) -> None:
        port = free_port()
        super().__init__(
            folder, port, [self.PROGRAM, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder), *options]
        )

    def ask(self, *commands: Sequence[str]) -> list[str]:
        """Send commands at once; their answers, which must be words or texts. Raises LoadError for an error."""
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as peer, peer.makefile("rb") as answers:
            for words in commands:
                parts = [f"*{len(words)}\r\n", *[f"${len(word)}\r\n{word}\r\n" for word in words]]
                peer.sendall("".join(parts).encode("ascii"))
            return [self._answer(answers) for _ in commands]

    @staticmethod
    def _answer(answers: Any) -> str:
        line: str = answers.readline().decode("utf-8").rstrip("\r\n")
        if not line or line[0] not in "+$":
            raise LoadError(f"Redis answers {line!r}")
        if line[0] == "+":
            return line[1:]
        text: str = answers.read(int(line[1:]) + 2).decode("utf-8")
        return text

    def fill(self, keys: int, value: str, prefix: str) -> None:
        """Store a value at so many keys, whose names `random_key` draws from."""
        for batch in _batches(keys):
            self.ask(("MSET", *[word for key in batch for word in (f"{prefix}{key:012d}", value)]))

    def failures(self) -> dict[str, int]:
        """What it has counted of errors, and of keys that it had not."""
        (text,) = self.ask(("INFO", "stats"))
        return {name: int(number) for name, number in re.findall(r"(total_error_replies|keyspace_misses):(\d+)", text)}


def random_key(prefix: str) -> str:
    """A word that is another one of the keys each time."""
    return prefix + _RANDOM


class RedisLoad:
    """A command again and again by redis-benchmark, on so many connections with so many at once on each."""

    PROGRAM = "redis-benchmark"

    def __init__(self, server: Redis, words: Sequence[str], shape: Shape, keys: int, seconds: float) -> None:
        self._server = server
        self._command = [
            self.PROGRAM, "-h", "127.0.0.1", "-p", str(server.port), "--csv",
            "-c", str(shape.connections), "-P", str(shape.in_flight), "-r", str(keys),
        ]  # fmt: skip
        self._words = words
        self._seconds = seconds
        self._number = max(_FIRST, 10 * shape.connections * shape.in_flight)

    def warm_up(self) -> None:
        """Load the server for less than a turn, and find out how many commands make one."""
        for seconds in (self._seconds / 2, self._seconds):
            self._number = int(self.load().rate * seconds) + 1

    def run(self) -> Sample:
        """One turn."""
        return self.load().sample()

    def load(self) -> Outcome:
        """Raises LoadError when Redis answers an error, or has not got a key."""
        before, used = self._server.failures(), self._server.cpu_seconds()
        printed, share = run_program([*self._command, "-n", str(self._number), *self._words], 2 * PATIENCE)
        used = self._server.cpu_seconds() - used
        if self._server.failures() != before:
            raise LoadError(f"Redis counts {self._server.failures()}, and before {before}")
        rate, p50, p99 = parse(printed)
        return Outcome(self._number, rate, p50, p99, share, used / self._number * 1e6)


def parse(printed: str) -> tuple[float, float, float]:
    """Commands a second, p50 and p99 in microseconds, of what `redis-benchmark --csv` prints. Raises LoadError."""
    try:
        head, line = csv.reader(printed.splitlines())
        found = dict(zip(head[1:], map(float, line[1:])))
        return found["rps"], found["p50_latency_ms"] * 1000, found["p99_latency_ms"] * 1000
    except (KeyError, ValueError) as error:
        raise LoadError(f"redis-benchmark did not print what was expected:\n{printed}") from error


class Etcd(Other):
    """A cluster of one etcd (https://etcd.io)."""

    PROGRAM = "etcd"

    def __init__(self, folder: Path, *options: str) -> None:
        port, peers = free_port(), free_port()
        client_url, peer_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peers}"
        super().__init__(folder, port, [
            self.PROGRAM, "--data-dir", str(folder / "data"), "--log-level", "error",
            "--listen-client-urls", client_url, "--advertise-client-urls", client_url,
            "--listen-peer-urls", peer_url, "--initial-advertise-peer-urls", peer_url,
            "--initial-cluster", f"default={peer_url}", *options,
        ])  # fmt: skip

    @property
    def address(self) -> str:
        """For gRPC."""
        return f"127.0.0.1:{self.port}"

    def fill(self, puts: Sequence[bytes]) -> None:
        """Make these Puts, encoded, in transactions of a hundred."""
        with grpc.insecure_channel(self.address) as channel:
            transact = channel.unary_unary("/etcdserverpb.KV/Txn", bytes, bytes)
            pending = [
                # TxnRequest.success is field 2, and RequestOp.request_put is field 2.
                transact.future(
                    b"".join(field(2, field(2, puts[key])) for key in batch), timeout=PATIENCE, wait_for_ready=True
                )
                for batch in _batches(len(puts))
            ]
            for one in pending:
                one.result()


class EtcdLoad:
    """Messages that are sent to an etcd again and again by our load client."""

    def __init__(self, server: Etcd, program: Path, call: client.Call, shape: Shape, seconds: float) -> None:
        self._server = server
        self._program = program
        self._call = call
        self._shape = shape
        self._seconds = seconds

    def warm_up(self) -> None:
        """Load the server for half a turn."""
        self.load(self._seconds / 2)

    def run(self) -> Sample:
        """One turn."""
        return self.load(self._seconds).sample()

    def load(self, seconds: float) -> Outcome:
        """Raises LoadError unless all answers are as they should be."""
        used = self._server.cpu_seconds()
        outcome = client.run(self._program, self._server.address, self._call, self._shape, seconds)
        return outcome._replace(server=(self._server.cpu_seconds() - used) / outcome.requests * 1e6)


def field(number: int, content: bytes) -> bytes:
    """A field of bytes, or a message in one, as protobuf encodes it."""
    size, length = len(content), b""
    while size > 0x7F:
        length += bytes((size & 0x7F | 0x80,))
        size >>= 7
    return bytes((number << 3 | 2,)) + length + bytes((size,)) + content


def _batches(keys: int) -> Iterator[range]:
    for first in range(0, keys, _FILL_KEYS):
        yield range(first, min(first + _FILL_KEYS, keys))
