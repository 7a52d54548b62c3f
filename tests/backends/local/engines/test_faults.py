"""Faults that are really caused, and the errors that users see for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY
from kvtwisted.core.errors import Corruption, StorageError, StorageFull, StorageLocked, WriteStalled

from .support import PERSISTENT, PLENTY, opened, put, python, redirect_next_log

#: Opens the folder and keeps it until its input ends.
HOLDER = """
import sys
from kvtwisted.core.options import EngineOptions
from kvtwisted.backends.local.engines import open_engine

engine = open_engine(sys.argv[1], sys.argv[2], EngineOptions())
print("open", flush=True)
sys.stdin.read()
engine.close()
"""

KEYS = [b"%05d" % number for number in range(4000)]

pytestmark = pytest.mark.parametrize("name", PERSISTENT)


def test_second_engine_of_this_process_is_refused(name: str, tmp_path: Path) -> None:
    """A folder that is open here cannot be opened again; the first engine is unharmed."""
    engine = opened(name, tmp_path)
    with pytest.raises(StorageLocked, match="already open in this process") as refused:
        opened(name, tmp_path)
    assert repr(str(tmp_path)) in str(refused.value)
    put(engine, b"k")
    engine.close()
    opened(name, tmp_path).close()


def test_engine_of_another_process_is_respected(name: str, tmp_path: Path) -> None:
    """A folder that another process has open is refused in one line that names it, and free once that has ended."""
    with python(HOLDER, name, str(tmp_path)) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert next(holder.stdout) == "open\n"
        with pytest.raises(StorageLocked) as refused:
            opened(name, tmp_path)
        holder.stdin.close()
    assert str(refused.value) == f"the data folder {str(tmp_path)!r} is in use by another process"
    assert holder.returncode == 0
    opened(name, tmp_path).close()


def test_folder_that_cannot_be_made(name: str, tmp_path: Path) -> None:
    """A file where the folder, or one above it, should be is an error that names it."""
    (tmp_path / "file").write_text("here first")
    for path in (tmp_path / "file", tmp_path / "file" / "data"):
        with pytest.raises(StorageError) as refused:
            opened(name, path)
        assert str(path) in str(refused.value)
        assert type(refused.value) is StorageError


def test_missing_folders_are_made(name: str, tmp_path: Path) -> None:
    """The folder may be missing, and those above it too."""
    opened(name, tmp_path / "a" / "b" / "c").close()
    assert (tmp_path / "a" / "b" / "c" / "CURRENT").exists()


def test_foreign_column_families_are_named(name: str, tmp_path: Path) -> None:
    """A database with families that are not ours is refused, and the message names them."""
    opened(name, tmp_path).close()
    with python(FOREIGN_FAMILY[name], str(tmp_path)) as child:
        assert child.wait() == 0
    with pytest.raises(StorageError, match="holds column families that are not kvtwisted's: theirs"):
        opened(name, tmp_path)


FOREIGN_FAMILY = {
    "rocksdict": """
import sys
from rocksdict import Options, Rdict

db = Rdict(sys.argv[1], Options(raw_mode=True))
db.create_column_family("theirs", Options(raw_mode=True))
db.close()
""",
    "lbry": """
import sys
from rocksdb import DB, ColumnFamilyOptions, Options

families = {name: ColumnFamilyOptions() for name in (b"expiry", b"meta", b"files")}
db = DB(sys.argv[1], Options(), column_families=families)
db.create_column_family(b"theirs", ColumnFamilyOptions())
db.close()
""",
}


def filled(name: str, path: Path) -> Path:
    """A closed folder with KEYS in one table file, uncompressed, which is returned."""
    engine = opened(name, path, compression="none", bottommost_compression="none")
    engine.write([(DATA, key, key * 20) for key in KEYS])
    engine.compact(b"", b"\xff")
    engine.close()
    return max(path.glob("*.sst"), key=os.path.getsize)


def overwrite(file: Path, position: int) -> None:
    """Damage 64 bytes."""
    with file.open("r+b") as stream:
        stream.seek(position)
        stream.write(b"\xde\xad\xbe\xef" * 16)


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "CURRENT": lambda folder, table: (folder / "CURRENT").write_text("nonsense"),
    "MANIFEST": lambda folder, table: overwrite(max(folder.glob("MANIFEST-*")), 16),
    "lost table": lambda folder, table: table.unlink(),
    "short table": lambda folder, table: os.truncate(table, 100),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=list(DAMAGES))
def test_damage_that_open_meets(name: str, damage: Callable[[Path, Path], object], tmp_path: Path) -> None:
    """A folder whose files contradict each other is refused as damaged, not opened with less in it."""
    damage(tmp_path, filled(name, tmp_path))
    with pytest.raises(Corruption, match="is damaged: Corruption"):
        opened(name, tmp_path)


def test_damage_that_reads_meet(name: str, tmp_path: Path) -> None:
    """A damaged block fails every read that needs it; a scan does not end at it as if that were all."""
    table = filled(name, tmp_path)
    overwrite(table, table.stat().st_size // 2)
    engine = opened(name, tmp_path)
    kept = []
    lost = []
    for key in KEYS:
        try:
            assert engine.get(key) == key * 20
        except Corruption as error:
            lost.append(key)
            kept.append(error)
    assert 0 < len(lost) < 200
    for wanted in ([lost[0]], [KEYS[0]] * 100 + lost):
        with pytest.raises(Corruption) as failure:
            engine.multi_get(wanted, PLENTY)
        kept.append(failure.value)
    for start in (b"", lost[0]):
        scan = engine.scan(start, None)
        seen = []
        with pytest.raises(Corruption) as failure:
            seen.extend(pair for pair in scan)
        kept.append(failure.value)
        assert all(value == key * 20 for key, value in seen)
    assert engine.multi_get([KEYS[0], KEYS[-1]], PLENTY) == [KEYS[0] * 20, KEYS[-1] * 20]
    behind = KEYS[KEYS.index(lost[-1]) + 1 :]
    assert [key for key, _ in engine.scan(behind[0], None)] == behind
    # The errors are still held, with their tracebacks; they must not hold the folder.
    engine.close()
    opened(name, tmp_path).close()
    assert len(kept) == len(lost) + 4


def test_full_disk(name: str, tmp_path: Path) -> None:
    """Without space a write is StorageFull; reads go on, and with space everything acknowledged is there again."""
    engine = opened(name, tmp_path)
    put(engine, b"a", b"b")
    link = redirect_next_log(engine, tmp_path, Path("/dev/full"))
    with pytest.raises(StorageFull, match="no space is left for the data folder"):
        engine.write([(DATA, b"a", b"new"), (EXPIRY, b"a", b"")])
    # RocksDB tries to recover, so that later writes may fail by the device's refusal to be synced as well.
    for mutations in ([(DATA, b"b", None)], [(DATA, b"c", b"new"), (EXPIRY, b"c", b"")]):
        with pytest.raises(StorageError):
            engine.write(mutations)
    assert engine.multi_get([b"a", b"b", b"c"], PLENTY) == [b"v", b"v", None]
    assert [key for key, _ in engine.scan(b"", None)] == [b"a", b"b", b"before"]
    with pytest.raises(StorageError):
        engine.close()
    link.unlink(missing_ok=True)
    again = opened(name, tmp_path)
    assert [key for key, _ in again.scan(b"", None)] == [b"a", b"b", b"before"]
    put(again, b"c")
    again.close()


def test_write_stall(name: str, tmp_path: Path) -> None:
    """While memtables fill faster than they are flushed, writes are refused whole; lbry-rocksdb makes them wait."""
    engine = opened(name, tmp_path, write_buffer_size=65536, max_write_buffer_number=2, max_background_jobs=1)
    accepted, refused = [], []
    for number in range(400):
        key = b"%06d" % number
        try:
            engine.write([(DATA, key, bytes(20_000)), (EXPIRY, key, b"")])
            accepted.append(key)
        except WriteStalled:
            refused.append(key)
    assert bool(refused) == (name == "rocksdict")
    for family in (DATA, EXPIRY):
        assert [key for key, _ in engine.scan(b"", None, family)] == accepted
    engine.compact(b"", b"\xff")
    put(engine, b"later")
    assert engine.get(b"later") == b"v"
    engine.close()
