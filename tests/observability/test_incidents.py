"""Unexpected failures and their ids."""

from __future__ import annotations

import re

from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from kvtwisted.observability import incidents


def _failure() -> Failure:
    try:
        raise RuntimeError("a secret detail")
    except RuntimeError:
        return Failure()


def test_incident_is_logged_whole() -> None:
    """One critical event holds id, operation and the failure with its traceback."""
    failure = _failure()
    with capturedLogs() as events:
        incident = incidents.report(failure, "set")
    (event,) = events
    assert event["log_level"] is LogLevel.critical
    assert event["log_failure"] is failure
    assert (event["incident"], event["doing"]) == (incident, "set")


def test_id_says_nothing_and_is_new_each_time() -> None:
    """16 hex digits, different each time."""
    with capturedLogs():
        ids = {incidents.report(_failure(), "get") for _ in range(100)}
    assert len(ids) == 100
    assert all(re.fullmatch("[0-9a-f]{16}", incident) for incident in ids)
