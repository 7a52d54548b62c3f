"""Unexpected failures: logged in full under an id, which the client gets instead of a stack trace."""

from __future__ import annotations

import secrets

from twisted.logger import Logger
from twisted.python.failure import Failure

_log = Logger(namespace="kvtwisted.incident")


def report(failure: Failure, doing: str) -> str:
    """Log `failure`, which happened while `doing` (an operation's name), and return the incident id. Any thread."""
    raised_at = getattr(failure.value, "raised_at", None)
    if raised_at:
        # In another thread: see `pool.caught`.
        failure.frames = [*failure.frames, *raised_at]
    incident = secrets.token_hex(8)
    _log.failure("incident {incident} in {doing}", failure=failure, incident=incident, doing=doing)
    return incident
