"""The rules of recovery over an engine in memory: what is tried, in which order, and what is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, FILES
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.commands.get import Found
from kvtwisted.core.errors import (
    Corruption,
    KvError,
    StorageError,
    StorageFull,
    Unavailable,
    UnusablePath,
    WriteStalled,
)
from tests.support.doors import Doorway
from tests.support.engines import FaultyEngine
from tests.support.storage import Storage

BROKEN = StorageError("the disk broke")


class Scene(Doorway):
    """A door over a storage in memory in which a write has failed."""

    def __init__(self, storage: Storage | None = None) -> None:
        super().__init__(storage)
        self.engine: FaultyEngine = self.storage.engine
        self.operations = self.blocking()

    def break_writes(self, error: KvError = BROKEN) -> None:
        """From now on writes fail, which is known."""
        self.engine.fail("write", error)
        self.engine.fail("put", error)
        with pytest.raises(type(error)):
            self.operations.set(b"refused", b"v")
        self.engine.calls.clear()

    def heal(self) -> None:
        """The cause is gone."""
        for method in ("write", "put"):
            self.engine.heal(method)

    @property
    def methods(self) -> list[str]:
        """The engine's methods that were called, in order."""
        return [call.method for call in self.engine.calls]


def test_write_that_works_again_is_enough() -> None:
    """The trial is a write, then a sync, then a read; a database that takes them is not closed."""
    scene = Scene()
    scene.break_writes()
    scene.heal()
    scene.recovery.attempt()
    assert scene.methods == ["write", "sync", "get"]
    assert scene.health.reason() is None


def test_database_that_refuses_is_reopened() -> None:
    """When the trial fails the database is opened anew, and tried once more."""
    scene = Scene()
    scene.break_writes()
    scene.engine.before("reopen", scene.heal)
    scene.recovery.attempt()
    assert scene.methods[:4] == ["write", "reopen", "scan", "write"]
    assert scene.health.reason() is None
    scene.operations.set(b"k", b"v")


def test_failed_sync_is_a_reason_to_reopen() -> None:
    """A write that goes in and cannot be synced is no recovery."""
    scene = Scene()
    scene.recovery.write_failed(f"the write-ahead log cannot be synced: {BROKEN}")
    assert scene.health.reason() == "writes fail: the write-ahead log cannot be synced: the disk broke"
    scene.engine.fail("sync", BROKEN, times=1)
    scene.recovery.attempt()
    assert [method for method in scene.methods if method in ("sync", "reopen")] == ["sync", "reopen", "sync"]
    assert scene.health.reason() is None


def test_one_attempt_in_a_turn() -> None:
    """While the cause stands each turn reopens once at most, and health keeps the reason."""
    scene = Scene()
    scene.break_writes()
    for _ in range(2):
        scene.engine.calls.clear()
        with pytest.raises(StorageError, match="the disk broke"):
            scene.recovery.attempt()
        assert scene.methods.count("reopen") == 1
        assert scene.health.reason() == "writes fail: the disk broke"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (StorageFull("9 bytes are needed"), "writes fail: the disk broke"),
        (Corruption("the log lost something"), "writes fail: the log lost something"),
        (Unavailable("being reopened"), "writes fail: being reopened"),
    ],
)
def test_refused_reopening(error: KvError, reason: str) -> None:
    """Want of space is told by the write that failed; everything else that keeps it from reopening is the reason."""
    scene = Scene()
    scene.break_writes()
    scene.engine.fail("reopen", error)
    with pytest.raises(KvError):
        scene.recovery.attempt()
    assert scene.health.reason() == reason
    scene.engine.heal("reopen")
    scene.heal()
    scene.recovery.attempt()
    assert scene.health.reason() is None


def test_database_left_closed_is_opened() -> None:
    """A trial that is Unavailable, as between close and open, leads to the next attempt."""
    scene = Scene()
    scene.break_writes()
    scene.engine.fail("write", Unavailable("the storage is being reopened; try again"), times=1)
    scene.engine.before("reopen", lambda: scene.engine.heal("put"))
    scene.recovery.attempt()
    assert scene.methods.count("reopen") == 1
    assert scene.health.reason() is None


def test_stall_is_no_reason_to_reopen() -> None:
    """A database that is merely slow is not closed."""
    scene = Scene()
    scene.break_writes()
    scene.engine.fail("write", WriteStalled("stalled"))
    with pytest.raises(WriteStalled):
        scene.recovery.attempt()
    assert "reopen" not in scene.methods


def test_value_folder_is_tried_too(tmp_path: Path) -> None:
    """A folder of large values that takes none keeps health bad, and does not close the database."""
    files = ValueFiles(str(tmp_path))
    scene = Scene(Storage(files=files, spill_threshold=10))
    (tmp_path / "tmp").rmdir()
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"large value")
    with pytest.raises(UnusablePath, match=r"value\.disk_path: cannot write a large value in .*: No such file"):
        scene.recovery.attempt()
    assert "reopen" not in scene.methods
    assert str(scene.health.reason()).startswith("writes fail: value.disk_path: cannot write a large value")
    files.prepare()
    scene.recovery.attempt()
    assert scene.health.reason() is None
    assert list(tmp_path.glob("??/*")) == []


def test_failed_write_that_the_log_has_after_all() -> None:
    """What was cached of its key goes, also what was read since the failure: readers see what the database holds."""
    scene = Scene(Storage(cache_bytes=1 << 20))
    scene.operations.set(b"refused", b"old")
    scene.break_writes()
    for _ in range(3):
        assert scene.operations.get(b"refused") == Found(b"old", 0)
    assert b"refused" in scene.storage.cache.entries
    before = scene.storage.writer.commits.version

    def replay() -> None:
        scene.heal()
        scene.engine._engine.write([(DATA, b"refused", b"v")])

    scene.engine.before("reopen", replay)
    scene.recovery.attempt()
    assert scene.operations.get(b"refused") == Found(b"v", 0)
    # An answer that was on its way from before is not let in any more.
    scene.storage.writer.commits.offer(before, b"refused", b"old", 0)
    assert scene.operations.get(b"refused") == Found(b"v", 0)
    assert scene.storage.cache.max_bytes == 1 << 20


def test_large_values_are_those_of_the_reopened_database(tmp_path: Path) -> None:
    """A failed large write that the log has keeps its file; the one it replaced goes, after the next sync."""
    files = ValueFiles(str(tmp_path))
    scene = Scene(Storage(files=files, spill_threshold=10))
    scene.operations.set(b"k", b"the first large value")
    (first,) = tmp_path.glob("??/*")
    scene.engine.fail("write", BROKEN)
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"the second large value")
    (second,) = set(tmp_path.glob("??/*")) - {first}
    (mutations,) = scene.engine.called("write")[-1]
    scene.engine.before("reopen", lambda: (scene.engine.heal("write"), scene.engine._engine.write(mutations)))
    scene.recovery.attempt()
    assert any(family == FILES for family, _, _ in mutations)
    assert scene.operations.get(b"k") == Found(b"the second large value", 0)
    scene.storage.writer.commits.sync()
    assert list(tmp_path.glob("??/*")) == [second]
    assert scene.storage.writer.commits.file_index.collect_orphans().files == 0
    # The next write knows which file it puts out of use.
    scene.operations.set(b"k", b"small")
    scene.storage.writer.commits.sync()
    assert list(tmp_path.glob("??/*")) == []
    assert list(scene.engine.scan(b"", None, FILES)) == []


def test_failed_reopening_forgets_no_replaced_file(tmp_path: Path) -> None:
    """Files that were out of use before are so after a reopening that failed between close and open."""
    files = ValueFiles(str(tmp_path))
    scene = Scene(Storage(files=files, spill_threshold=10))
    scene.operations.set(b"k", b"a large value")
    scene.engine.fail("sync", BROKEN)
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"small")
    assert len(list(tmp_path.glob("??/*"))) == 1
    scene.engine.after("reopen", _fail)
    with pytest.raises(StorageError, match="after the close"):
        scene.recovery.attempt()
    assert len(list(tmp_path.glob("??/*"))) == 1
    scene.engine.heal("sync")
    scene.recovery.attempt()
    scene.storage.writer.commits.sync()
    assert list(tmp_path.glob("??/*")) == []


def _fail() -> None:
    raise StorageError("after the close")
