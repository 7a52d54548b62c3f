"""Servers to measure: real processes, started by the same code as `make run`, each with a folder of its own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

#: Seconds for a server to start, and for it to stop.
PATIENCE = 60.0
#: What the console script `twistd` does, without the help of PATH.
_TWISTD = (sys.executable, "-c", "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()")
#: Keys in one MSet while a server is filled.
_FILL_BATCH = 1000


class Server:
    """A running server; `with` ends it. Ports are free ones of 127.0.0.1."""

    def __init__(self, folder: Path, *options: str) -> None:
        """`options` are those of `twistd kvtwisted`. Blocks until it listens."""
        folder.mkdir(parents=True)
        self._output = folder / "output.txt"
        environment = {name: text for name, text in os.environ.items() if not name.startswith(("KV_", "GRPC_"))}
        root = str(Path(__file__).resolve().parents[1])
        with open(self._output, "wb") as output:
            self.process = subprocess.Popen(  # noqa: S603 - built here
                [*_TWISTD, "-n", "--pidfile=", "kvtwisted", "--http-port", "0", "--grpc-port", "0", *options],
                cwd=folder,
                env={**environment, "PYTHONPATH": root},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            self.http = self._address(r"HTTP on http://(\S+)")
            self.grpc = self._address(r"gRPC on (\S+)")
        except BaseException:
            self.process.kill()
            raise

    def _address(self, pattern: str) -> str:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            match = re.search(pattern, self._output.read_text("utf-8", "replace"))
            if match:
                return match[1]
            time.sleep(0.02)
        raise RuntimeError(f"the server did not start:\n{self._output.read_text('utf-8', 'replace')}")

    def fill(self, keys: int, value: str) -> None:
        """Store `value` at so many keys, by gRPC."""
        with grpc.insecure_channel(self.grpc) as channel:
            mset = channel.unary_unary(
                "/kv.v1.KeyValueService/MSet", kv.MSetRequest.SerializeToString, kv.MSetResponse.FromString
            )
            for first in range(0, keys, _FILL_BATCH):
                batch = range(first, min(first + _FILL_BATCH, keys))
                answer = mset(kv.MSetRequest(key_values={name(key): value for key in batch}), timeout=PATIENCE)
                if not answer.success:
                    raise RuntimeError(answer.error)

    def memory(self) -> int:
        """Bytes of memory that the process has resident."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024

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


def name(key: int) -> str:
    """The name of a key that `fill` has stored."""
    return f"key{key:08d}"
