"""gRPC under load, both transports in one run: `python -m bench.grpc`. Needs h2load (Debian: nghttp2-client).

Server and load share the machine. Each round runs every case once on each transport in turn; the table has medians, the
spread between the slowest and the fastest round, and how many times the threaded transport's rate the native one has.
h2load sends one message over and over, so that all calls of a case are on the same key, among `--keys` others.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import NamedTuple

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .servers import PATIENCE, Server, name

TRANSPORTS = ("native", "threaded")
_SERVICE = "/kv.v1.KeyValueService/"


class Case(NamedTuple):
    """One line of the table: a method under load by so many connections with so many calls at once on each."""

    title: str
    method: str
    connections: int
    streams: int
    durable: bool
    #: Calls a second that issue 4 asks of the native transport, or 0.
    wanted: int


CASES = (
    Case("Get, 4 x 16", "Get", 4, 16, False, 120_000),
    Case("Set, 4 x 16", "Set", 4, 16, False, 90_000),
    Case("Get, one at a time", "Get", 1, 1, False, 0),
    Case("Set, one at a time", "Set", 1, 1, False, 0),
    Case("Set with sync, 4 x 16", "Set", 4, 16, True, 25_000),
)


class Load(NamedTuple):
    """What h2load saw: calls a second, and the median of what one took, in microseconds."""

    rate: float
    latency: float


class Line(NamedTuple):
    """A measured case."""

    title: str
    transport: str
    rate: float
    latency: float
    spread: float
    wanted: int


def message(method: str, value: str) -> bytes:
    """What h2load sends: one message on a key in the middle of all."""
    key = name(500)
    request = kv.SetRequest(key=key, value=value) if method == "Set" else kv.GetRequest(key=key)
    encoded = request.SerializeToString()
    return struct.pack(">BI", 0, len(encoded)) + encoded


def check(address: str, value: str) -> None:
    """Raise unless the server answers what is measured."""
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(_SERVICE + "Get", kv.GetRequest.SerializeToString, kv.GetResponse.FromString)
        if call(kv.GetRequest(key=name(500)), timeout=PATIENCE).value != value:
            raise RuntimeError(f"the server at {address} does not have the value that was stored")


def load(address: str, case: Case, folder: Path, value: str, seconds: float) -> Load:
    """Run h2load on a server, first to warm up. Raises when any call failed."""
    body, log = folder / f"{case.method}.bin", folder / "requests.log"
    body.write_bytes(message(case.method, value))
    log.unlink(missing_ok=True)
    command = ["h2load", "-t", "1", "-c", str(case.connections), "-m", str(case.streams), "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", str(log)]
    command += ["-D", _duration(seconds), "--warm-up-time", _duration(seconds / 4)]
    command.append(f"http://{address}{_SERVICE}{case.method}")
    done = subprocess.run(  # noqa: S603 - built here
        command, capture_output=True, text=True, check=True, timeout=PATIENCE + 2 * seconds
    )
    (rate,) = re.findall(r"finished in [^,]+, ([0-9.]+) req/s", done.stdout)
    (failed, errored, timeout) = re.findall(r"(\d+) failed, (\d+) errored, (\d+) timeout", done.stdout)[0]
    if (failed, errored, timeout) != ("0", "0", "0"):
        raise RuntimeError(f"calls failed:\n{done.stdout}")
    with open(log, encoding="ascii") as lines:
        latencies = [int(line.split("\t")[2]) for line in lines]
    return Load(float(rate), median(latencies))


def _duration(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms"


def measure(cases: Sequence[Case], keys: int, value: str, rounds: int, seconds: float) -> list[Line]:
    """Run all cases on both transports `rounds` times, interleaved."""
    measured: dict[tuple[Case, str], list[Load]] = {}
    folder = Path(tempfile.mkdtemp(prefix="kvtwisted-bench-"))
    try:
        with ExitStack() as stack:
            servers = {
                (transport, durable): stack.enter_context(
                    Server(
                        folder / f"{transport}-{durable}",
                        "--grpc-transport", transport, "--rocksdb-options-sync", str(durable).lower(),
                    )
                )
                for transport in TRANSPORTS
                for durable in sorted({case.durable for case in cases})
            }  # fmt: skip
            for server in servers.values():
                server.fill(keys, value)
                check(server.grpc, value)
            for _ in range(rounds):
                for case in cases:
                    for transport in TRANSPORTS:
                        address = servers[transport, case.durable].grpc
                        loads = measured.setdefault((case, transport), [])
                        loads.append(load(address, case, folder, value, seconds))
    finally:
        shutil.rmtree(folder)
    return [_line(case, transport, loads) for (case, transport), loads in measured.items()]


def _line(case: Case, transport: str, loads: Sequence[Load]) -> Line:
    rates = [one.rate for one in loads]
    return Line(
        case.title,
        transport,
        median(rates),
        median([one.latency for one in loads]),
        max(rates) / min(rates),
        case.wanted if transport == "native" else 0,
    )


def idle_connections(connections: int) -> float:
    """KiB of memory that one idle connection costs the native transport."""
    # What a client says first: the preface of HTTP/2, and SETTINGS without any setting.
    greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
    folder = Path(tempfile.mkdtemp(prefix="kvtwisted-bench-"))
    try:
        with Server(folder / "idle", "--grpc-transport", "native") as server, ExitStack() as stack:
            host, port = server.grpc.rsplit(":", 1)
            before = server.memory()
            for _ in range(connections):
                peer = stack.enter_context(socket.create_connection((host, int(port)), PATIENCE))
                peer.sendall(greeting)
                # SETTINGS, WINDOW_UPDATE, and that ours were seen.
                while not peer.recv(4096).endswith(bytes((0, 0, 0, 4, 1, 0, 0, 0, 0))):
                    pass
            return (server.memory() - before) / connections / 1024
    finally:
        shutil.rmtree(folder)


def table(lines: Sequence[Line]) -> str:
    """The lines for people."""
    head = ("calls/s", 10), ("median us", 11), ("spread", 8), ("x threaded", 12), ("wanted", 10)
    rows = [f"{'gRPC':24}{'transport':>10}" + "".join([f"{title:>{width}}" for title, width in head])]
    threaded = {line.title: line.rate for line in lines if line.transport == "threaded"}
    for line in lines:
        times = f"{line.rate / threaded[line.title]:.1f}" if line.transport == "native" else ""
        rows.append(
            f"{line.title:24}{line.transport:>10}{line.rate:10,.0f}{line.latency:11,.0f}{line.spread:7.2f}x{times:>12}"
            + (f"{line.wanted:10,}" if line.wanted else "")
        )
    return "\n".join(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.grpc", description=__doc__)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--value-bytes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one case runs in one round")
    parser.add_argument("--idle", type=int, default=5000, help="idle connections; each takes a file descriptor here")
    parser.add_argument("--only", default="", help="measure the cases whose title contains this")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    chosen = parser.parse_args()
    if shutil.which("h2load") is None:
        sys.exit("bench.grpc needs h2load, which Debian has in nghttp2-client")
    cases = [case for case in CASES if chosen.only in case.title]
    lines = measure(cases, chosen.keys, "x" * chosen.value_bytes, chosen.rounds, chosen.seconds)
    idle = idle_connections(chosen.idle) if chosen.idle else None
    if chosen.json:
        json.dump({"cases": [line._asdict() for line in lines], "idle_kib": idle}, sys.stdout, indent=1)
        return
    print(f"{chosen.keys:,} keys, {chosen.value_bytes}-byte values, median of {chosen.rounds} rounds")
    print(table(lines))
    if idle is not None:
        print(f"An idle connection of the native transport costs {idle:.1f} KiB ({chosen.idle:,} of them).")


if __name__ == "__main__":
    main()
