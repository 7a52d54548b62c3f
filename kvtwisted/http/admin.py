"""The operator's routes: backups, the dry run of eviction, and the collection of orphans.

Like `handlers`, but without a request's time limit: a backup may take longer than any request, and is finished even
when its client has gone.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..core.backup import Backup
from ..core.errors import StorageFull
from ..core.eviction import Plan
from ..core.large_values import Collected
from ..threaded.administration import Administration
from . import bodies
from .answers import Answer, problem, to_json
from .handlers import Received


class AdminHandlers:
    """One method for each route. Reactor thread. Each fails with what `errors.answer` can answer."""

    def __init__(self, administration: Administration, who: str) -> None:
        """`who` is what the audit log calls those whose requests come here."""
        self._administration = administration
        self._who = who

    def backup(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/admin/backup."""
        bodies.check_content_type(received.content_type)
        bodies.check_codings(received.codings)
        name = bodies.backup_argument(received.body)
        return self._administration.backup(name, self._who).addCallbacks(_made, _no_room)

    def backups(self, received: Received) -> Deferred[Answer]:
        """GET /api/v1/admin/backups."""
        return self._administration.backups().addCallback(_listed)

    def eviction(self, received: Received) -> Deferred[Answer]:
        """GET /api/v1/admin/eviction."""
        return self._administration.eviction(self._who).addCallback(_planned)

    def orphans(self, received: Received) -> Deferred[Answer]:
        """POST /api/v1/admin/orphans."""
        bodies.check_content_type(received.content_type)
        bodies.check_codings(received.codings)
        bodies.no_arguments(received.body, "orphans")
        return self._administration.orphans(self._who).addCallback(_collected)


def _made(backup: Backup) -> Answer:
    return Answer(200, to_json({"success": True, **backup._asdict()}))


def _no_room(failure: Failure) -> Answer:
    """What lacks is room for the backup: the general sentence, of writes that are refused, would mislead."""
    failure.trap(StorageFull)
    return problem(507, StorageFull.code, str(failure.value))


def _listed(backups: list[Backup]) -> Answer:
    return Answer(200, to_json({"backups": [backup._asdict() for backup in backups]}))


def _planned(plan: Plan) -> Answer:
    victims = {reason: {"keys": keys, "bytes": size} for reason, (keys, size) in plan.victims.items()}
    return Answer(200, to_json({**plan._asdict(), "victims": victims}))


def _collected(collected: Collected) -> Answer:
    return Answer(200, to_json({"success": True, "files": collected.files, "bytes": collected.freed}))
