"""The operator's calls as Deferreds, over threads of their own: a backup may take long and must not delay anybody else.

Reactor thread. Of each kind of call only so many may run; one more is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ..core.errors import InvalidRequest, KvError, Overloaded, Unavailable
from ..reactor.pool import defer_to_pool
from .local.large_values import Collected
from .local.maintenance.backup import Backup, Backups
from .local.maintenance.eviction import Plan

T = TypeVar("T")

#: Threads of the pool: one for each kind of work that takes long.
THREADS = 3
#: Lists of backups that may be asked for at once.
_LISTS = 8

#: Called with an event, who caused it, and its details.
Auditor = Callable[[str, str, Mapping[str, object]], None]

_log = Logger(namespace="kvtwisted")


class Administration:
    """Backups, the dry run of eviction, and the collection of orphans. Each Deferred fails with a KvError.

    Cancelling one, because its client went away, stops nothing: the work is finished, logged, and audited under the
    name `who`.
    """

    def __init__(
        self,
        reactor: IReactorFromThreads,
        pool: ThreadPool,
        *,
        backups: Backups,
        plan_eviction: Callable[[], Plan],
        collect_orphans: Callable[[], Collected],
        audit: Auditor,
        on_disk: bool = True,
    ) -> None:
        """All that is given blocks and runs in `pool`, but for `audit`, which must be quick. `on_disk` says that the
        engine keeps what it is given."""
        self._reactor = reactor
        self._pool = pool
        self._backups = backups
        self._plan_eviction = plan_eviction
        self._collect_orphans = collect_orphans
        self._audit = audit
        self._on_disk = on_disk
        self._running: Counter[str] = Counter()
        self._stopping: Deferred[None] | None = None

    def backup(self, name: str | None, who: str) -> Deferred[Backup]:
        """See `Backups.create`; Overloaded while one is being made."""
        made = self._bounded("backup", 1, lambda: _logged_backup(self._backups.create(name)))
        return self._audited(made, "backup", who, lambda backup: {"name": backup.name, "bytes": backup.bytes})

    def backups(self) -> Deferred[list[Backup]]:
        """See `Backups.finished`."""
        return _uncancelled(self._bounded("list of backups", _LISTS, self._backups.finished))

    def eviction(self, who: str) -> Deferred[Plan]:
        """What an eviction would do now; Overloaded while that is being found out."""
        planned = self._bounded("eviction dry run", 1, self._plan_eviction)
        return self._audited(planned, "eviction", who, lambda plan: {"needed": plan.needed})

    def orphans(self, who: str) -> Deferred[Collected]:
        """Remove the value files that no record names; Overloaded while that is being done."""
        collected = self._bounded("collection of orphans", 1, lambda: _logged_collection(self._collect_orphans()))
        return self._audited(collected, "orphans", who, lambda all_: {"files": all_.files, "bytes": all_.freed})

    def stop(self) -> Deferred[None]:
        """Refuse every later call with Unavailable and let a backup give up. Fires when nothing runs any more."""
        self._backups.stop()
        self._stopping = Deferred()
        self._check_stopped()
        return self._stopping

    def _bounded(self, kind: str, most: int, call: Callable[[], T]) -> Deferred[T]:
        error = self._refusal(kind, most)
        if error is not None:
            return fail(error)
        self._running[kind] += 1
        return defer_to_pool(self._reactor, self._pool, call).addBoth(self._ended, kind)

    def _audited(
        self, work: Deferred[T], operation: str, who: str, facts: Callable[[T], dict[str, object]]
    ) -> Deferred[T]:
        def record(result: Any) -> Any:
            said = {"error": str(result.value)} if isinstance(result, Failure) else facts(result)
            self._audit("administration", who, {"operation": operation, **said})
            return result

        return _uncancelled(work.addBoth(record))

    def _refusal(self, kind: str, most: int) -> KvError | None:
        if self._stopping is not None:
            return Unavailable("the server is stopping")
        if not self._on_disk:
            return InvalidRequest(f"{kind}: storage.engine is memory, which keeps nothing on disk")
        if self._running[kind] >= most:
            return Overloaded(f"{kind}: one is under way; try again when it is done")
        return None

    def _ended(self, result: Any, kind: str) -> Any:
        self._running[kind] -= 1
        if isinstance(result, Failure) and not result.check(InvalidRequest, Overloaded, Unavailable):
            # Here, because the client may have gone.
            _log.error("{kind} failed: {error}", kind=kind, error=result.value)
        self._check_stopped()
        return result

    def _check_stopped(self) -> None:
        if self._stopping is not None and not self._stopping.called and not any(self._running.values()):
            self._stopping.callback(None)


def _uncancelled(work: Deferred[T]) -> Deferred[T]:
    """A Deferred of its own, so that cancelling it does not look like the end of the work."""
    outer: Deferred[T] = Deferred()
    work.addCallbacks(outer.callback, outer.errback)
    return outer


def _logged_backup(backup: Backup) -> Backup:
    _log.info(
        "backup {name} made in {seconds} s: {files} files, {bytes} bytes, in {path}",
        name=backup.name, seconds=backup.seconds, files=backup.files, bytes=backup.bytes, path=backup.path,
    )  # fmt: skip
    return backup


def _logged_collection(collected: Collected) -> Collected:
    _log.info("removed {files} orphaned value files, {freed} bytes", files=collected.files, freed=collected.freed)
    return collected
