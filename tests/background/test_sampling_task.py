"""Metrics collection as a task."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.logger import LogEvent, capturedLogs

from kvtwisted.background.sampling import SamplingTask, take_sample
from kvtwisted.core.disk import DiskUsage, disk_usage, folder_bytes
from kvtwisted.core.errors import StorageError, StorageFull
from kvtwisted.core.health import Health
from kvtwisted.core.operations import Operations
from kvtwisted.metrics import StorageSample

from ..support.configuration import FakeConfiguration
from ..support.storage import Storage
from .tasks import Counted, at_once, lines

SAMPLE = StorageSample(1, 2, DiskUsage(3, 4), {"estimate-num-keys": 5.0})


class Scene:
    """The task over a store in memory and a sample that is given."""

    def __init__(self) -> None:
        self.storage = Storage()
        self.counted = Counted()
        self.health = Health()
        self.operations = Operations(self.storage.store, FakeConfiguration({}), self.counted.metrics, self.health)
        self.task = SamplingTask(self.operations, self.counted.metrics, lambda: SAMPLE, at_once)

    def run(self) -> list[LogEvent]:
        """One turn, and what it logged."""
        with capturedLogs() as events:
            assert self.task.run().called
        return list(events)


@pytest.fixture
def scene() -> Scene:
    """A healthy one."""
    return Scene()


def test_sample_reaches_the_metrics(scene: Scene) -> None:
    """One turn, one sample, nothing logged."""
    assert scene.run() == []
    assert scene.counted.metrics.sample() == SAMPLE
    assert scene.counted.value("kv_keys") == 5


def test_recovery_is_tried(scene: Scene) -> None:
    """While writes fail each turn tries one and says that it failed; sampling goes on; then health returns."""
    scene.storage.engine.fail("write", StorageFull("no space left"))
    with pytest.raises(StorageError):
        scene.operations.set(b"k", b"v")
    assert lines(scene.run()) == ["warn: writes still fail: no space left"]
    assert scene.health.reason() == "writes fail: no space left"
    assert scene.counted.metrics.sample() == SAMPLE
    scene.storage.engine.heal("write")
    assert scene.run() == []
    assert scene.health.reason() is None


def test_take_sample_measures(tmp_path: Path) -> None:
    """Both folders, the disk of the first, and the engine's own figures."""
    data, values = tmp_path / "data", tmp_path / "values"
    data.mkdir()
    (data / "file").write_bytes(b"x" * 50_000)
    storage = Storage()
    storage.store.set(b"k", b"v")
    sample = take_sample(storage.engine, str(data), str(values))
    assert sample.data_bytes == folder_bytes(str(data)) > 0
    assert sample.value_bytes == 0
    usage = disk_usage(str(data))
    assert sample.disk.used + sample.disk.free == pytest.approx(usage.used + usage.free, rel=0.1)
    assert sample.engine["estimate-num-keys"] == 1


def test_take_sample_without_a_folder(tmp_path: Path) -> None:
    """A data folder that is gone is an error."""
    with pytest.raises(FileNotFoundError):
        take_sample(Storage().engine, str(tmp_path / "gone"), str(tmp_path))
