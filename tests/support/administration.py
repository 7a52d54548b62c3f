"""What stands behind the operator's routes, without a disk."""

from __future__ import annotations

from typing import Any, NamedTuple

from kvtwisted.backends.local.large_values import Collected
from kvtwisted.backends.local.maintenance.backup import Backup, check_name
from kvtwisted.core.errors import InvalidRequest, KvError, StorageFull, Unavailable

ENGINE = "rocksdict 0.3.29 (RocksDB 9.8.4)"


class FakePlan(NamedTuple):
    """What an eviction would do, as `core.eviction.Plan` says it."""

    disk_percent: float
    threshold: int
    policy: str
    needed: int
    own_bytes: int
    futile: bool
    victims: dict[str, tuple[int, int]]


class FakeTasks:
    """Backups that are only remembered, one plan, and two orphans at every collection."""

    def __init__(self) -> None:
        self.made: list[Backup] = []
        self.stopped = False
        #: When set, every task fails with it; with StorageFull only those that need room.
        self.error: KvError | None = None

    def create(self, name: str | None = None) -> Backup:
        """See `Backups.create`."""
        self._fail(writing=True)
        if self.stopped:
            raise Unavailable("the server is stopping; no backup was made")
        name = "20261122T230621Z" if name is None else name
        check_name(name)
        if any(backup.name == name for backup in self.made):
            raise InvalidRequest(f"name: there is a backup {name} already")
        self.made.append(Backup(name, f"/srv/kv/backups/{name}", "2026-11-22T23:06:21Z", ENGINE, 7, 12345, 0.25))
        return self.made[-1]

    def finished(self) -> list[Backup]:
        """See `Backups.finished`."""
        self._fail()
        return list(self.made)

    def stop(self) -> None:
        """See `Backups.stop`."""
        self.stopped = True

    def plan(self) -> Any:
        """See `EvictionTask.plan`."""
        self._fail()
        return FakePlan(83.5, 80, "lru", 4096, 70_000, False, {"expired": (1, 96), "lru": (40, 4000)})

    def collect(self) -> Collected:
        """See `Writer.collect_orphans`."""
        self._fail()
        return Collected(2, 3_000_000)

    def _fail(self, *, writing: bool = False) -> None:
        if self.error is not None and (writing or not isinstance(self.error, StorageFull)):
            raise self.error
