"""CreateBackup, ListBackups, PlanEviction and CollectOrphans: the operator's tasks, and what comes of them.

A task may take longer than any request, so the limits of requests do not hold for it: it has its own. It is finished,
logged and audited also when nobody waits for it any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, ClassVar, NamedTuple

from .command import ServerCommand


class Backup(NamedTuple):
    """One whole backup."""

    name: str
    #: Its folder, absolute.
    path: str
    #: When it was begun, in UTC, as 2026-11-22T23:06:21Z. All that had been acknowledged by then is in it.
    time: str
    #: Engine and version that made it.
    engine: str
    #: Files of database and large values, and their bytes, whether linked or copied.
    files: int
    bytes: int
    #: How long it took.
    seconds: float


class Foreseen(NamedTuple):
    """What would be evicted for one reason."""

    keys: int
    bytes: int


class Plan(NamedTuple):
    """What an eviction would do now on the disk that needs it most: how full it is and may be, the policy, the bytes
    that would have to go, those that would come back if all keys went, whether those are too few, and what would go, by
    reason.

    Garbage that goes before any key is not foreseen.
    """

    disk_percent: float
    threshold: int
    policy: str
    needed: int
    own_bytes: int
    futile: bool
    victims: dict[str, Foreseen]


class Collected(NamedTuple):
    """Files that no record named, and their bytes."""

    files: int
    bytes: int


@dataclass(frozen=True)
class Tasks:
    """What carries the tasks out. All but `stop` block, and raise KvErrors; any thread."""

    create_backup: Callable[[str | None], Backup]
    #: The oldest first.
    list_backups: Callable[[], list[Backup]]
    plan_eviction: Callable[[], Plan]
    collect_orphans: Callable[[], Collected]
    #: Has a backup that is being made given up soon.
    stop: Callable[[], object]


class AdminCommand(ServerCommand):
    """One task of the operator's."""

    __slots__ = ()

    right = "admin"
    is_limited = False
    #: How many may be under way; one more is Overloaded.
    at_once: ClassVar[int] = 1
    #: The operation in the audit log, and the fields of the result that are told there; "" for what is not audited,
    #: since it changes nothing and costs little.
    audited: ClassVar[str] = ""
    facts: ClassVar[tuple[str, ...]] = ()
    #: What the log says of the result, with its fields; "": nothing.
    logged: ClassVar[str] = ""

    def carry_out(self, tasks: Tasks) -> Any:
        """Do it; the result. Blocks. Raises KvErrors."""
        raise NotImplementedError


class CreateBackup(AdminCommand):
    """Make a backup; the result is a `Backup`, once it is whole and on the disk."""

    __slots__ = ("backup_name",)

    name = audited = "backup"
    facts = ("name", "bytes")
    logged = "backup {name} made in {seconds} s: {files} files, {bytes} bytes, in {path}"

    def __init__(self, backup_name: str | None) -> None:
        """Without a name it gets one from the time."""
        ServerCommand.__init__(self)
        self.backup_name = backup_name

    def carry_out(self, tasks: Tasks) -> Backup:
        """See `AdminCommand.carry_out`."""
        return tasks.create_backup(self.backup_name)


class ListBackups(AdminCommand):
    """All whole backups, the oldest first."""

    __slots__ = ()

    name = "list of backups"
    at_once = 8

    def carry_out(self, tasks: Tasks) -> list[Backup]:
        """See `AdminCommand.carry_out`."""
        return tasks.list_backups()


class PlanEviction(AdminCommand):
    """Find out what an eviction would do now: a `Plan`."""

    __slots__ = ()

    name = "eviction dry run"
    audited = "eviction"
    facts = ("needed",)

    def carry_out(self, tasks: Tasks) -> Plan:
        """See `AdminCommand.carry_out`."""
        return tasks.plan_eviction()


class CollectOrphans(AdminCommand):
    """Remove the value files that no record names; the result is `Collected`."""

    __slots__ = ()

    name = "collection of orphans"
    audited = "orphans"
    facts = ("files", "bytes")
    logged = "removed {files} orphaned value files, {bytes} bytes"

    def carry_out(self, tasks: Tasks) -> Collected:
        """See `AdminCommand.carry_out`."""
        return tasks.collect_orphans()
