"""The operator's routes: backups, the dry run of eviction, and the collection of orphans.

They are not commands and have no time limit: a backup may take longer than any request, and is finished even if its
client has gone. Reactor thread; each fails with what `errors.answer` can answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ..backends.local.large_values import Collected
from ..backends.local.maintenance.backup import Backup
from ..backends.local.maintenance.eviction import Plan
from ..core.errors import StorageFull
from ..sessions.session import Session
from . import bodies
from .answers import Answer, problem, to_json
from .received import Received

if TYPE_CHECKING:
    from .routes import Services


def backup(services: Services, session: Session, received: Received) -> Deferred[Answer]:
    """POST /api/v1/admin/backup."""
    bodies.check_content_type(received.content_type)
    bodies.check_codings(received.codings)
    name = bodies.backup_argument(received.body)
    return services.administration.backup(name, session.name).addCallbacks(_made, _no_room)


def backups(services: Services, session: Session, received: Received) -> Deferred[Answer]:
    """GET /api/v1/admin/backups."""
    return services.administration.backups().addCallback(_listed)


def eviction(services: Services, session: Session, received: Received) -> Deferred[Answer]:
    """GET /api/v1/admin/eviction."""
    return services.administration.eviction(session.name).addCallback(_planned)


def orphans(services: Services, session: Session, received: Received) -> Deferred[Answer]:
    """POST /api/v1/admin/orphans."""
    bodies.check_content_type(received.content_type)
    bodies.check_codings(received.codings)
    bodies.no_arguments(received.body, "orphans")
    return services.administration.orphans(session.name).addCallback(_collected)


def _made(backup: Backup) -> Answer:
    return Answer(200, to_json({"success": True, **backup._asdict()}))


def _no_room(failure: Failure) -> Answer:
    """There is no room for the backup. The general sentence, about refused writes, would mislead."""
    failure.trap(StorageFull)
    return problem(507, StorageFull.code, str(failure.value))


def _listed(backups: list[Backup]) -> Answer:
    return Answer(200, to_json({"backups": [backup._asdict() for backup in backups]}))


def _planned(plan: Plan) -> Answer:
    victims = {reason: {"keys": keys, "bytes": size} for reason, (keys, size) in plan.victims.items()}
    return Answer(200, to_json({**plan._asdict(), "victims": victims}))


def _collected(collected: Collected) -> Answer:
    return Answer(200, to_json({"success": True, "files": collected.files, "bytes": collected.freed}))
