"""Metrics collection as a task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from twisted.logger import LogEvent, capturedLogs

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.background.sampling import LONGEST_PAUSE, SamplingTask, take_sample
from kvtwisted.core.disk import DiskUsage, disk_usage, folder_bytes
from kvtwisted.core.errors import KvError, StorageError, StorageFull, Unavailable
from kvtwisted.core.options import EngineOptions
from kvtwisted.core.resources import Use
from kvtwisted.observability.metrics import StorageSample

from ..support.doors import Doorway
from ..support.storage import Storage
from .tasks import Counted, lines

SAMPLE = StorageSample(1, 2, DiskUsage(3, 4), keys=5)


class Scene(Doorway):
    """The task over a store in memory and a sample that is given."""

    def __init__(self) -> None:
        super().__init__()
        self.counted = Counted()
        self.operations = self.blocking()
        self.broken: KvError | None = None
        self.sampled = SAMPLE
        self.interval, self.now = 1.0, 0.0
        self.task = SamplingTask(
            self.recovery, self.counted.metrics, self.sample, self.health,
            lambda: self.interval, lambda: self.now,
        )  # fmt: skip

    def sample(self) -> StorageSample:
        """The one that is given, or the error that is."""
        if self.broken is not None:
            raise self.broken
        return self.sampled

    def look(self) -> list[LogEvent]:
        """One turn, and what it logged."""
        with capturedLogs() as events:
            self.task.run()
        return list(events)


@pytest.fixture
def scene() -> Scene:
    """A healthy one."""
    return Scene()


def test_sample_reaches_the_metrics(scene: Scene) -> None:
    """One turn, one sample, nothing logged."""
    assert scene.look() == []
    assert scene.counted.metrics.sample == SAMPLE
    assert scene.counted.value("kv_keys") == 5


def test_recovery_is_tried(scene: Scene) -> None:
    """While writes fail each turn tries one; sampling goes on; then health returns. One line says so each way."""
    scene.storage.engine.fail("write", StorageFull("no space left"))
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"v")
    assert lines(scene.look()) == ["warn: writes fail, and are tried again now and then: no space left"]
    assert scene.look() == []
    scene.storage.engine.fail("write", StorageError("another cause"))
    assert lines(scene.look()) == ["warn: writes fail, and are tried again now and then: another cause"]
    scene.storage.engine.fail("write", StorageFull("no space left"))
    assert len(scene.look()) == 1
    assert scene.health.reason() == "writes fail: no space left"
    assert scene.counted.metrics.sample == SAMPLE
    scene.storage.engine.heal("write")
    assert lines(scene.look()) == ["info: writes work again"]
    assert scene.look() == []
    assert scene.health.reason() is None


def test_seldom_sampled_is_recovered_all_the_same(scene: Scene) -> None:
    """Turns come more often than samples then, and each tries a write while they fail."""
    scene.interval = 3600.0
    scene.look()
    scene.storage.engine.fail("write", StorageError("broken"), times=1)
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"v")
    scene.sampled = replace(SAMPLE, data_bytes=7)
    scene.now += LONGEST_PAUSE
    assert lines(scene.look()) == ["info: writes work again"]
    assert scene.counted.metrics.sample == SAMPLE
    scene.now += 3600 - LONGEST_PAUSE - 0.1
    scene.look()
    assert scene.counted.metrics.sample == scene.sampled


def test_storage_that_is_being_reopened(scene: Scene) -> None:
    """Unavailable, which it is then, fails no turn; what was measured before stays."""
    scene.look()
    scene.storage.engine.fail("write", StorageError("broken"), times=1)
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"v")
    for method in ("write", "reopen"):
        scene.storage.engine.fail(method, Unavailable("the storage is being reopened; try again"))
    scene.broken = Unavailable("the storage is being reopened; try again")
    assert lines(scene.look()) == [
        "warn: writes fail, and are tried again now and then: the storage is being reopened; try again"
    ]
    assert scene.counted.metrics.sample == SAMPLE
    assert scene.health.reason() == "writes fail: the storage is being reopened; try again"


def test_take_sample_measures(tmp_path: Path) -> None:
    """The data folder, the large values, the disk, the engine's own figures, and what is in use."""
    data = tmp_path / "data"
    data.mkdir()
    values = ValueFiles(str(tmp_path / "values"))
    values.prepare()
    values.store(b"x" * 5000)
    (data / "file").write_bytes(b"x" * 50_000)
    engine = open_engine("auto", str(tmp_path / "database"), EngineOptions())
    engine.write([("default", b"k", b"v")])
    sample = take_sample(engine, str(data), values)
    engine.close()
    assert sample.data_bytes == folder_bytes(str(data)) > 0
    assert sample.value_bytes == 8192
    usage = disk_usage(str(data))
    assert sample.disk.used + sample.disk.free == pytest.approx(usage.used + usage.free, rel=0.1)
    assert sample.keys == 1
    assert [use.name for use in sample.uses] == ["file descriptors", "threads"]


def test_take_sample_without_a_folder(tmp_path: Path) -> None:
    """A data folder that is gone is an error."""
    with pytest.raises(FileNotFoundError):
        take_sample(Storage().engine, str(tmp_path / "gone"), ValueFiles(str(tmp_path)))


def test_what_the_process_may_have_no_more_of(scene: Scene) -> None:
    """Nearly all in use is said once, none left makes the server ill, and both pass; each is a metric."""

    def turn(used: int) -> list[str]:
        scene.sampled = replace(SAMPLE, uses=(Use("file descriptors", used, 100, "ulimit -n"),))
        return lines(scene.look())

    assert turn(50) == []
    assert turn(91) == ["warn: 91 of 100 file descriptors are in use (ulimit -n is their limit)"]
    assert turn(91) == []
    assert scene.health.reason() is None
    assert turn(99) == []
    assert scene.health.reason() == (
        "there are no more file descriptors: 99 of 100 file descriptors are in use (ulimit -n is their limit)"
    )
    assert scene.counted.value("kv_file_descriptors") == 99
    assert scene.counted.value("kv_file_descriptors_limit") == 100
    assert turn(50) == []
    assert scene.health.reason() is None
    assert len(turn(95)) == 1
