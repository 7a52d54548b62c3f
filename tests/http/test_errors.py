"""The table from errors to HTTP answers."""

from __future__ import annotations

import inspect
import json
import re

import pytest
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.failure import Failure

from kvtwisted.core import errors as core_errors
from kvtwisted.core.errors import KvError
from kvtwisted.core.strict_json import InvalidJson
from kvtwisted.http import errors
from kvtwisted.http.answers import Answer

#: Says that these are about no backend.
WITHOUT_BACKEND = True

CLASSES = {cls.__name__: cls for _, cls in inspect.getmembers(core_errors, inspect.isclass)}

#: Class, status, and whether the error's own sentence is shown.
EXPECTED = [
    ("InvalidRequest", 400, True),
    ("InvalidKey", 400, True),
    ("InvalidValue", 400, True),
    ("InvalidTtl", 400, True),
    ("InvalidConfig", 400, True),
    ("ResponseTooLarge", 400, True),
    ("ValueNotText", 409, True),
    ("NotANumber", 409, True),
    ("NumberOverflow", 409, True),
    ("Unsupported", 501, True),
    ("TooLarge", 413, True),
    ("Unauthenticated", 401, True),
    ("PermissionDenied", 403, True),
    ("RateLimited", 429, True),
    ("QuotaExceeded", 507, True),
    ("Overloaded", 429, True),
    ("WriteStalled", 429, False),
    ("DeadlineExceeded", 503, True),
    ("Unavailable", 503, True),
    ("StorageFull", 507, False),
    ("NoInodes", 507, False),
    ("NearlyFull", 507, True),
    ("NoRoomForBackup", 507, True),
    ("StorageError", 500, False),
    ("Corruption", 500, False),
    ("StorageLocked", 500, False),
    ("UnusablePath", 500, True),
    ("LostFolder", 503, True),
    ("KvError", 500, False),
]


@pytest.fixture
def log() -> list[LogEvent]:
    """What is logged during the test."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def answer(error: BaseException) -> Answer:
    """How `error` is answered while doing a test."""
    return errors.answer(Failure(error), "a test")


def test_every_error_of_the_domain_has_a_row_of_its_own() -> None:
    """A new class must be given its status; inheriting one silently is how a 500 becomes a 400."""
    classes = {cls for cls in CLASSES.values() if issubclass(cls, KvError)}
    assert classes <= errors.TABLE.keys()
    assert {cls.__name__ for cls in classes} == {name for name, _, _ in EXPECTED}


@pytest.mark.parametrize(("name", "status", "shown"), EXPECTED)
def test_each_class_has_its_status_and_code(name: str, status: int, shown: bool) -> None:
    """The code is the class's; what may tell of the server's inside is replaced by a fixed sentence."""
    cls = CLASSES[name]
    result = answer(cls("/var/data: the very words"))
    document = json.loads(result.body)
    assert (result.status, document["success"], document["code"]) == (status, False, cls.code)
    assert ("/var/data: the very words" in document["error"]) is shown
    assert ("incident" in document) is (status == 500)
    assert dict(result.headers).get("Retry-After") == ("1" if status in (429, 503) else None)
    # RFC 9110 section 11.6.1: a 401 names how to authenticate, and nothing else does.
    assert dict(result.headers).get("WWW-Authenticate") == ('Bearer realm="kvtwisted"' if status == 401 else None)


@pytest.mark.parametrize(("seconds", "sent"), [(0.0, "1"), (0.2, "1"), (1.0, "1"), (1.01, "2"), (59.3, "60")])
def test_retry_after_is_the_limits_own(seconds: float, sent: str) -> None:
    """In whole seconds, rounded up, and never 0: who comes back then is not refused again."""
    assert dict(answer(core_errors.RateLimited("x", seconds)).headers)["Retry-After"] == sent


def test_a_class_without_a_row_is_answered_like_the_nearest_above() -> None:
    """The method resolution order decides, not the order of the table."""

    class Deeper(core_errors.StorageFull):
        code = "deeper"

    assert answer(Deeper("x")).status == 507
    result = answer(InvalidJson("x"))
    assert (result.status, json.loads(result.body)["code"]) == (400, "invalid_json")


def test_unsupported_media_type_is_415() -> None:
    """The room's own error class is in the table as well."""
    result = answer(errors.UnsupportedMediaType("Content-Type: must be ..."))
    assert (result.status, json.loads(result.body)["code"]) == (415, "unsupported_media_type")


def test_the_unknown_is_an_incident(log: list[LogEvent]) -> None:
    """A defect is answered without its words or a trace, under an id that the log has with both."""
    result = answer(ZeroDivisionError("secret words"))
    document = json.loads(result.body)
    assert (result.status, document["code"]) == (500, "internal_error")
    assert "secret" not in result.body.decode()
    assert "Traceback" not in result.body.decode()
    (event,) = log
    assert event["incident"] == document["incident"]
    assert re.fullmatch("[0-9a-f]{16}", document["incident"])
    assert event["doing"] == "a test"
    assert event["log_failure"].check(ZeroDivisionError)


def test_only_incidents_are_logged(log: list[LogEvent]) -> None:
    """What a client does wrong, or a full disk, does not fill the log with traces."""
    for name, status, _ in EXPECTED:
        if status != 500:
            answer(CLASSES[name]("x"))
    assert log == []


def test_method_not_allowed_names_the_methods() -> None:
    """Allow is sorted, and the sentence repeats it."""
    result = errors.method_not_allowed("PUT", ["POST", "GET", "HEAD"])
    assert result.headers == (("Allow", "GET, HEAD, POST"),)
    assert json.loads(result.body)["error"] == "method PUT is not allowed here; use GET, HEAD, POST"


def test_body_too_large_says_what_was_sent() -> None:
    """By the announced length, or by the limit when nothing was announced."""
    announced = json.loads(errors.body_too_large(10, 11).body)["error"]
    counted = json.loads(errors.body_too_large(10, None).body)["error"]
    assert announced == "body: too large: 11 bytes were sent, limits.max_request_bytes is 10 bytes"
    assert counted == "body: too large: more than 10 bytes were sent, limits.max_request_bytes is 10 bytes"
