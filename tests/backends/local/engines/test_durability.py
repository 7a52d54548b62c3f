"""What is written stays: over close and open, over SIGKILL, and over a change of the binding."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, FAMILIES, META
from kvtwisted.core.errors import StorageError

from .support import PERSISTENT, opened, put, python, redirect_next_log

#: Writes batches of 100 keys without sync, and says so after each, until it is killed.
WRITER = """
import sys
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY
from kvtwisted.core.options import EngineOptions
from kvtwisted.backends.local.engines import open_engine

engine = open_engine(sys.argv[1], sys.argv[2], EngineOptions())
number = 0
while True:
    number += 1
    value = b"%d" % number
    engine.write([(DATA, b"%03d" % at, value) for at in range(100)] + [(EXPIRY, b"%06d" % number, b"")])
    print(number, flush=True)
"""


@pytest.mark.parametrize("name", PERSISTENT)
def test_reopened_folder_has_everything(name: str, tmp_path: Path) -> None:
    """Close and open keep all families, whether their entries were in memory or in files."""
    engine = opened(name, tmp_path)
    engine.write([(family, b"%04d" % number, bytes(100)) for number in range(1000) for family in FAMILIES])
    engine.compact(b"", b"\xff")
    engine.write([(DATA, b"0000", None), (EXPIRY, b"0001", b"new"), (META, b"\xff", b"\0\xff")])
    expected = {family: list(engine.scan(b"", None, family)) for family in FAMILIES}
    engine.close()
    again = opened(name, tmp_path)
    assert {family: list(again.scan(b"", None, family)) for family in FAMILIES} == expected
    assert [len(pairs) for pairs in expected.values()] == [999, 1000, 1001, 1000]
    again.close()


@pytest.mark.parametrize(("writer", "reader"), list(itertools.product(PERSISTENT, PERSISTENT)))
def test_either_binding_reads_the_others_folder(writer: str, reader: str, tmp_path: Path) -> None:
    """A folder goes from one binding to the other and back, with files, log, and all compressions."""
    for turn, name in enumerate((writer, reader, writer)):
        engine = opened(name, tmp_path, compression=("snappy", "lz4", "zstd")[turn])
        for earlier in range(turn):
            assert engine.multi_get([b"%d-%04d" % (earlier, at) for at in range(500)], 1 << 20) == [b"x" * 200] * 500
            assert engine.get(b"log", EXPIRY) == b"%d" % (turn - 1)
        put(engine, *(b"%d-%04d" % (turn, at) for at in range(500)), value=b"x" * 200)
        engine.compact(b"", b"\xff")
        engine.write([(EXPIRY, b"log", b"%d" % turn)])
        engine.close()


@pytest.mark.parametrize("name", PERSISTENT)
def test_acknowledged_writes_survive_sigkill(name: str, tmp_path: Path) -> None:
    """After kill -9 every batch that was acknowledged is there, and the last one is there whole or not at all."""
    with python(WRITER, name, str(tmp_path)) as child:
        assert child.stdout is not None
        acknowledged = [int(next(child.stdout)) for _ in range(300)]
        child.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in child.stdout if line.endswith("\n")]
    assert child.returncode == -signal.SIGKILL
    engine = opened(name, tmp_path)
    values = {value for _, value in engine.scan(b"", None)}
    written = [int(key) for key, _ in engine.scan(b"", None, EXPIRY)]
    engine.close()
    assert written == list(range(1, len(written) + 1))
    assert values == {b"%d" % len(written)}
    assert len(written) >= acknowledged[-1] >= 300


@pytest.mark.parametrize("name", PERSISTENT)
def test_sync_is_an_fsync_and_write_is_not(name: str, tmp_path: Path) -> None:
    """On a log that takes bytes but cannot be synced, write succeeds and sync says that it failed."""
    engine = opened(name, tmp_path)
    redirect_next_log(engine, tmp_path, Path("/dev/null"))
    put(engine, b"k")
    assert engine.get(b"k") == b"v"
    with pytest.raises(StorageError, match="While fdatasync"):
        engine.sync()
    with pytest.raises(StorageError):
        engine.close()
    opened(name, tmp_path / "elsewhere").close()
