"""gRPC load with h2load (https://nghttp2.org): so many connections, each with so many calls at once.

h2load takes every answer with HTTP status 200 for a success, also a gRPC error, and it sends one message over and over.
So a run makes an exact number of calls, and the bytes of their answers must be exactly those of as many good answers:
an error has no message, or another one.
"""

from __future__ import annotations

import re
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from .load import LoadError, Outcome
from .server import PATIENCE

PROGRAM = "h2load"
#: What stands before a message in gRPC: not compressed, and its length.
PREFIX = struct.Struct(">BI")


class Call(NamedTuple):
    """A method with its one message and the answer to it, both encoded, and how many are made at once."""

    path: str
    message: bytes
    answer: bytes
    connections: int
    streams: int


def run(address: str, call: Call, folder: Path, calls: int, headers: Mapping[str, str]) -> Outcome:
    """Make so many calls (not fewer than connections). Raises LoadError unless each had the answer that it should have.

    `folder` is where the message and h2load's log are kept; `headers` are those besides gRPC's own.
    """
    calls = max(calls, call.connections)
    body, log = folder / "message.bin", folder / "calls.log"
    body.write_bytes(PREFIX.pack(0, len(call.message)) + call.message)
    log.unlink(missing_ok=True)
    command = [PROGRAM, "-t1", f"-n{calls}", f"-c{call.connections}", f"-m{call.streams}", "-d", str(body)]
    command += ["-H", "content-type: application/grpc", "-H", "te: trailers", "--log-file", str(log)]
    for name, text in headers.items():
        command += ["-H", f"{name}: {text}"]
    done = subprocess.run(  # noqa: S603 - built here
        [*command, f"http://{address}{call.path}"], capture_output=True, text=True, check=False, timeout=2 * PATIENCE
    )
    if done.returncode:
        raise LoadError(f"h2load: {done.stderr.strip() or done.stdout.strip()}")
    rate = parse(done.stdout, calls, PREFIX.size + len(call.answer))
    return Outcome(calls, rate, *percentiles(log.read_text("ascii")))


def parse(output: str, calls: int, answer_bytes: int) -> float:
    """Calls a second, from what h2load has printed. Raises LoadError unless all calls had answers of so many bytes."""
    try:
        (rate,) = re.findall(r"finished in [^,]+, ([0-9.]+) req/s", output)
        ((done, succeeded),) = re.findall(r"(\d+) done, (\d+) succeeded", output)
        (failures,) = re.findall(r"(\d+) failed, (\d+) errored, (\d+) timeout", output)
        (good,) = re.findall(r"status codes: (\d+) 2xx", output)
        (data,) = re.findall(r"\((\d+)\) data", output)
    except ValueError as error:
        raise LoadError(f"h2load did not print what was expected:\n{output}") from error
    if any(int(number) for number in failures) or not int(done) == int(succeeded) == int(good) == calls:
        raise LoadError(f"h2load counted errors:\n{output}")
    if int(data) != calls * answer_bytes:
        raise LoadError(
            f"{calls} answers of {answer_bytes} bytes are {calls * answer_bytes} bytes, but {data} came, "
            f"so that some were gRPC errors:\n{output}"
        )
    return float(rate)


def percentiles(log: str) -> tuple[float, float]:
    """The median and the 99th percentile of the latencies in h2load's log: a line is start, status, microseconds."""
    latencies = sorted([int(line.rsplit("\t", 1)[1]) for line in log.splitlines()])
    if not latencies:
        raise LoadError("h2load's log is empty")
    return latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
