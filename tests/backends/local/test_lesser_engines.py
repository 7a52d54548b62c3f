"""What the core does over an engine that has nothing but what every engine has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

import pytest

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, CanPeek, Crossed, Engine, Mutation, Pairs, everything, ignored
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.backends.local.maintenance.backup import Backups
from kvtwisted.backends.local.maintenance.eviction import Disk, EvictionRules, Evictor
from kvtwisted.backends.local.maintenance.holdings import Holdings
from kvtwisted.backends.local.maintenance.scrub import Scrub
from kvtwisted.backends.local.recovery import Recovery
from kvtwisted.backends.local.write_sequence import WriteSequence
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.get import Found
from kvtwisted.core.clock import Clock
from kvtwisted.core.disk import DiskUsage
from kvtwisted.core.errors import StorageError
from kvtwisted.core.health import Health
from kvtwisted.core.options import EngineOptions

from ...support.storage import BlockingStore


class LeastEngine:
    """A byte map in memory that cannot even peek."""

    name = version = "least"
    is_persistent = writes_wait = scans_wait = False

    def __init__(self) -> None:
        self._engine = open_engine("memory", "", EngineOptions())
        #: What every write raises.
        self.broken: StorageError | None = None

    def get(self, key: bytes, family: str = DATA) -> bytes | None:
        """See `Engine.get`."""
        return self._engine.get(key, family)

    def multi_get(
        self, keys: Sequence[bytes], budget: int, keep: Callable[[bytes], bool] = everything
    ) -> list[bytes | None]:
        """See `Engine.multi_get`."""
        return self._engine.multi_get(keys, budget, keep)

    def scan(
        self, start: bytes, end: bytes | None, family: str = DATA, until: float = math.inf, crossed: Crossed = ignored,
        *, reverse: bool = False,
    ) -> Pairs:  # fmt: skip
        """See `Engine.scan`."""
        return self._engine.scan(start, end, family, until, crossed, reverse=reverse)

    def put(self, key: bytes, value: bytes) -> None:
        """See `Engine.put`."""
        self.write([(DATA, key, value)])

    def write(self, mutations: Sequence[Mutation]) -> None:
        """See `Engine.write`."""
        if self.broken is not None:
            raise self.broken
        self._engine.write(mutations)

    def sync(self) -> None:
        """See `Engine.sync`."""
        self._engine.sync()

    def close(self) -> None:
        """See `Engine.close`."""
        self._engine.close()


class Scene:
    """A store over such an engine."""

    def __init__(self) -> None:
        self.engine = LeastEngine()
        self.clock = Clock()
        self.writer = Writer(self.engine)
        self.store = BlockingStore(self.engine, self.writer, self.clock)


def test_the_engine_is_one() -> None:
    """It has what the Protocol asks for, by mypy's word too."""
    engine: Engine = LeastEngine()
    assert not isinstance(engine, CanPeek)


def test_nothing_is_told_from_memory() -> None:
    """Every read but of the hot cache has to be allowed to block."""
    scene = Scene()
    scene.store.set(b"k", b"v")
    assert scene.store.get_now(b"k") == (False, None)
    assert scene.store.get(b"k") == Found(b"v", 0)


def test_it_is_not_reopened() -> None:
    """Writes that fail are tried again, and the cause is told; they go on when it is gone."""
    scene = Scene()
    assert scene.writer.commits.reopen() is False
    health = Health()
    recovery = Recovery(scene.store.metadata, health)
    scene.engine.broken = StorageError("broken")
    recovery.write_failed(scene.engine.broken)
    with pytest.raises(StorageError, match="broken"):
        recovery.attempt()
    assert health.reason() == "writes fail: broken"
    scene.engine.broken = None
    recovery.attempt()
    assert health.reason() is None


def test_no_backup_is_made(tmp_path: Path) -> None:
    """The refusal says why, and nothing is left in the folder."""
    scene = Scene()
    backups = Backups(
        scene.engine,
        ValueFiles(""),
        scene.store.metadata.identity,
        folder=str(tmp_path / "backups"),
        data=str(tmp_path),
        values=str(tmp_path),
    )
    with pytest.raises(StorageError, match=r"storage\.engine least keeps nothing on disk, so no copy"):
        backups.create()
    assert list(tmp_path.iterdir()) == []


def test_what_is_dead_is_gone_at_once() -> None:
    """Nothing is compacted, neither for the expiry index nor for an eviction, and both work."""
    scene = Scene()
    keys = [b"%02d" % number for number in range(20)]
    scene.store.mset(dict.fromkeys(keys, b"v" * 98))
    scrub = Scrub(scene.engine, scene.writer.commits, scene.clock)
    evictor = Evictor(
        scene.engine,
        scene.writer.commits,
        scene.clock,
        lambda key: False,
        WriteSequence(1),
        lambda batch: None,
        scrub=scrub,
    )
    disk = Disk("rocksdb.path", measure=lambda: DiskUsage(8000, 1500), holdings=lambda: Holdings(100_000))
    assert evictor.run(disk, EvictionRules(80, 5, "lru")).freed >= 400
    assert 0 < len(list(scene.engine.scan(b"", None))) < 20
    evictor.reclaim()
