"""Servers to measure: real processes, started by the same code as `make run`, each with a folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Callable

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .load import LoadError, cpu_seconds
from .trees import NotInTree, Tree

#: Seconds for a server to start, for a call, and for a server to stop.
PATIENCE = 60.0
SERVICE = "/kv.v1.KeyValueService/"
#: What keys begin with.
KEY = "key"
#: What the console script `twistd` does, without the help of PATH.
_TWISTD = (sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()")
#: Keys, and bytes of values, in one MSet while a server is filled.
_FILL_KEYS, _FILL_BYTES = 1000, 1 << 20


@dataclass
class Served:
    """How many keys a server has counted, and the processor time that it used meanwhile."""

    keys: int = 0
    seconds: float = 0


class Server:
    """A running server; `with` ends it. Ports are free ones of 127.0.0.1."""

    def __init__(self, tree: Tree, folder: Path, *options: str, token: str = "") -> None:
        """`options` are those of `twistd kvtwisted`; `token` goes with all that it is asked. Blocks until it listens.

        Raises NotInTree when the server of the tree does not know one of them, RuntimeError with the server's
        output when it does not start for any other reason.
        """
        folder.mkdir(parents=True)
        self.folder = folder
        #: What requests carry besides, over HTTP as headers, over gRPC as metadata.
        self.headers = {"authorization": f"Bearer {token}"} if token else {}
        self._output = folder / "output.txt"
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - built here
                [*_TWISTD, "-n", "--pidfile=", "kvtwisted", "--http-port", "0", "--grpc-port", "0", *options],
                cwd=folder,
                env=tree.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self.http = self._address(r"HTTP on http://(\S+)")
            self.grpc = self._address(r"gRPC on (\S+)")
        except BaseException:
            self.process.kill()
            self.process.wait()
            raise

    def _address(self, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            match = re.search(pattern, self._output.read_text("utf-8", "replace"))
            if match:
                return match[1]
            time.sleep(0.02)
        printed = self._output.read_text("utf-8", "replace")
        if unknown := re.search(r"option (--\S+) not recognized", printed):
            raise NotInTree(f"its server has no option {unknown[1]}")
        raise RuntimeError(f"the server did not start:\n{printed}")

    def fill(self, keys: int, value: Callable[[int], str], prefix: str = KEY) -> None:
        """Store `value(number)` at so many keys, by gRPC. Raises RuntimeError when the server refuses."""
        batch_keys = max(1, min(_FILL_KEYS, _FILL_BYTES // max(1, len(value(0)))))
        with grpc.insecure_channel(self.grpc) as channel:
            mset = channel.unary_unary(SERVICE + "MSet", kv.MSetRequest.SerializeToString, kv.MSetResponse.FromString)
            for first in range(0, keys, batch_keys):
                batch = range(first, min(first + batch_keys, keys))
                message = kv.MSetRequest(key_values={name(key, prefix): value(key) for key in batch})
                answer = mset(message, timeout=PATIENCE, metadata=tuple(self.headers.items()))
                if not answer.success:
                    raise RuntimeError(f"the server could not be filled: {answer.error}")

    def memory(self) -> int:
        """Bytes of memory that the process has resident."""
        return self._proc("status", r"VmRSS:\s+(\d+) kB") * 1024

    def bytes_read(self) -> tuple[int, int]:
        """Bytes that the process has read from files since its start, and how many of them came from the disk.

        The rest came from the kernel's page cache. Source: proc(5), `rchar` and `read_bytes`; what arrives on sockets
        is received, not read, and in neither.
        """
        return self._proc("io", r"rchar: (\d+)"), self._proc("io", r"\nread_bytes: (\d+)")

    def cpu_seconds(self) -> float:
        """Processor time that the process has used."""
        return cpu_seconds(self.process.pid)

    def _proc(self, file: str, pattern: str) -> int:
        text = Path(f"/proc/{self.process.pid}/{file}").read_text("ascii")
        return int(re.findall(pattern, text)[0])

    def counters(self) -> dict[str, float]:
        """The values of all metrics without labels, such as `kv_gets_total`."""
        request = urllib.request.Request(f"http://{self.http}/metrics", headers=self.headers)
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310 - http
            lines = answer.read().decode("utf-8").splitlines()
        return {line.split(" ")[0]: float(line.split(" ")[1]) for line in lines if line.count(" ") == 1}

    @contextmanager
    def served(self, operation: str) -> Iterator[Served]:
        """Count what the server does meanwhile of `operation` (get, set). Raises LoadError when any of it failed."""
        name, failures = f"kv_{operation}s_total", f"kv_{operation}_errors_total"
        before, served = self.counters(), Served()
        used = self.cpu_seconds()
        yield served
        served.seconds = self.cpu_seconds() - used
        after = self.counters()
        served.keys = int(after[name] - before[name])
        if after[failures] != before[failures]:
            raise LoadError(f"{failures} went up by {after[failures] - before[failures]:.0f}")

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def name(key: int, prefix: str = KEY) -> str:
    """The name of a key that `fill` has stored."""
    return f"{prefix}{key:08d}"
