"""What stands behind the operator's routes, without a disk."""

from __future__ import annotations

from kvtwisted.backends.local.maintenance.backup import check_name
from kvtwisted.commands.administration import Backup, Collected, Foreseen, Plan, Tasks
from kvtwisted.core.errors import InvalidRequest, KvError, StorageFull, Unavailable

ENGINE = "rocksdict 0.3.29 (RocksDB 9.8.4)"


class FakeTasks:
    """Backups that are only remembered, one plan, and two orphans at every collection."""

    def __init__(self) -> None:
        self.made: list[Backup] = []
        self.stopped = False
        #: When set, every task fails with it; with StorageFull only those that need room.
        self.error: KvError | None = None

    @property
    def tasks(self) -> Tasks:
        """What a server is given."""
        return Tasks(self.create, self.finished, self.plan, self.collect, self.stop)

    def create(self, name: str | None = None) -> Backup:
        """See `Backups.create`."""
        self._fail(writing=True)
        if self.stopped:
            raise Unavailable("the server is stopping; no backup was made")
        if name is None:
            unnamed = sum(backup.name.startswith("20261122T230621Z") for backup in self.made)
            name = f"20261122T230621Z-{unnamed + 1}" if unnamed else "20261122T230621Z"
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

    def plan(self) -> Plan:
        """See `EvictionTask.plan`."""
        self._fail()
        victims = {"expired": Foreseen(1, 96), "lru": Foreseen(40, 4000)}
        return Plan(83.5, 80, "lru", 4096, 70_000, False, victims)

    def collect(self) -> Collected:
        """See `Writer.collect_orphans`."""
        self._fail()
        return Collected(2, 3_000_000)

    def _fail(self, *, writing: bool = False) -> None:
        if self.error is not None and (writing or not isinstance(self.error, StorageFull)):
            raise self.error
