"""Unexpected failures and their ids."""

from __future__ import annotations

import re

from twisted.logger import LogLevel, capturedLogs
from twisted.python.failure import Failure

from kvtwisted.observability import incidents
from kvtwisted.reactor.pool import caught


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


def test_an_error_of_a_thread_is_logged_with_where_it_was_raised() -> None:
    """The error was handed over without its frames: what was noted of them in the thread is in the log's traceback."""

    def breaks_in_the_thread() -> None:
        raise RuntimeError("a secret detail")

    try:
        breaks_in_the_thread()
    except RuntimeError:
        error = caught().value
    assert error is not None
    assert error.__traceback__ is None
    with capturedLogs() as events:
        incidents.report(Failure(error), "set")
    assert "breaks_in_the_thread" in events[0]["log_failure"].getTraceback()


def test_an_error_that_was_kept_elsewhere_says_where_it_is_known() -> None:
    """One without frames, and without a note of them, is logged all the same."""
    with capturedLogs() as events:
        incidents.report(Failure(RuntimeError("a detail")), "set")
    assert "a detail" in events[0]["log_failure"].getTraceback()
