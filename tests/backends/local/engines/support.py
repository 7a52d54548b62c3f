"""What the engine tests share: which engines this Python has, and how to open them."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, Engine
from kvtwisted.core.errors import WriteStalled
from kvtwisted.core.options import EngineOptions

#: Engines that keep what they are given, as far as their binding is installed here.
PERSISTENT = [name for name, binding in (("rocksdict", "rocksdict"), ("lbry", "rocksdb")) if find_spec(binding)]
#: All engines that can be opened here.
INSTALLED = [*PERSISTENT, "memory"]

#: Seconds for what is certain to happen, on a machine however busy.
PATIENCE = 30.0
#: Larger than what any test reads.
PLENTY = 1 << 30


def opened(name: str, path: Path, **options: object) -> Engine:
    """The engine `name` on the folder `path`, with some options other than their defaults."""
    return open_engine(name, str(path), EngineOptions(**options))  # type: ignore[arg-type]


def put(engine: Engine, *keys: bytes, value: bytes = b"v") -> None:
    """Write one value at all keys, in one batch; as `Writer` does, again while RocksDB has stalled writes."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            engine.write([(DATA, key, value) for key in keys])
            return
        except WriteStalled:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A child Python that runs `code` with this package importable; its input and output are piped."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=Path(__file__).parents[4],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def redirect_next_log(engine: Engine, path: Path, target: Path) -> Path:
    """Make the engine go on with a write-ahead log that is, by the link returned, the device `target`.

    A compaction empties the memtable, upon which RocksDB begins a new log under the next free number.
    """
    put(engine, b"before")
    numbers = [int(name.group()) for file in path.iterdir() if (name := re.search(r"\d+", file.name))]
    links = [path / f"{number:06d}.log" for number in range(max(numbers) + 1, max(numbers) + 40)]
    for link in links:
        link.symlink_to(target)
    engine.compact(b"", b"\xff")
    for link in links[1:]:
        link.unlink(missing_ok=True)
    return links[0]
