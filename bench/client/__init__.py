"""gRPC load with a client of our own, in C over libnghttp2: it plays messages from a file, as calls or on one stream.

h2load sends one message over and over, takes gRPC errors for successes, and costs twice as much. What this client does,
and what it checks, stands at the head of `client.c`; it is compiled when a run needs it.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..load import LoadError, Outcome
from ..server import PATIENCE

#: What stands before a message in gRPC: not compressed, and its length.
PREFIX = struct.Struct(">BI")
PROGRAM = "load client"
#: What it is compiled with and from, and the packages that have them.
COMPILER, HEADER = "cc", "nghttp2/nghttp2.h"
PACKAGES = {COMPILER: "gcc libc6-dev", HEADER: "libnghttp2-dev"}
_SOURCE = Path(__file__).with_name("client.c")


class Shape(NamedTuple):
    """So many connections, and so many messages under way at once on each; `every`: one message each so many us."""

    connections: int
    in_flight: int
    every: int = 0


class Call(NamedTuple):
    """A method, a file of messages, and how many bytes their answers have."""

    path: str
    file: Path
    least: int
    most: int
    #: One stream a connection carries all messages; else each is a call.
    pipeline: bool = False
    #: A call has any number of answers.
    streaming: bool = False


@cache
def missing() -> str:
    """What is needed and not installed; empty when all is there."""
    if shutil.which(COMPILER) is None:
        return COMPILER
    include = f"#include <{HEADER}>\n"
    command = [COMPILER, "-E", "-x", "c", "-o", "/dev/null", "-"]
    done = subprocess.run(command, input=include, capture_output=True, text=True, check=False)  # noqa: S603
    return HEADER if done.returncode else ""


@cache
def build(folder: Path) -> Path:
    """The program, compiled into the folder once. Raises LoadError when it does not compile."""
    program = folder / "load-client"
    command = [COMPILER, "-O2", "-o", str(program), str(_SOURCE), "-lnghttp2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - built here
    if done.returncode:
        raise LoadError(f"the load client does not compile:\n{done.stderr}")
    return program


def write(file: Path, messages: Iterable[bytes]) -> Path:
    """The file with these messages, each with its prefix."""
    file.write_bytes(b"".join(PREFIX.pack(0, len(message)) + message for message in messages))
    return file


def run(
    program: Path, address: str, call: Call, shape: Shape, seconds: float, headers: Mapping[str, str] | None = None
) -> Outcome:
    """Load a server for so long. Raises LoadError unless each message had an answer as it should be.

    `headers` are those besides gRPC's own.
    """
    command = [str(program), f"-c{shape.connections}", f"-m{shape.in_flight}", f"-e{shape.every}", f"-s{seconds}"]
    command += ["-p"] * call.pipeline + ["-r"] * call.streaming
    for name, text in (headers or {}).items():
        command += ["-H", f"{name}: {text}"]
    command += [address, call.path, str(call.file), str(call.least), str(call.most)]
    done = subprocess.run(  # noqa: S603 - built here
        command, capture_output=True, text=True, check=False, timeout=2 * PATIENCE + 2 * seconds
    )
    if done.returncode:
        raise LoadError(f"{call.path}: {done.stderr.strip() or f'the client ended with {done.returncode}'}")
    return parse(done.stdout)


def parse(output: str) -> Outcome:
    """What the client has printed. Raises LoadError when it had no answer at all."""
    word, *numbers = output.split()
    answers, rate, p50, p99, share, longest, parts, size = map(float, numbers)
    if word != "counted" or not parts:
        raise LoadError(f"the client had no answer at all: {output}")
    return Outcome(int(answers), rate, p50, p99, share, None, longest, parts, size)
