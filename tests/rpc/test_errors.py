"""The table from errors to statuses."""

from __future__ import annotations

import inspect

import grpc
import pytest
from twisted.logger import LogEvent

from kvtwisted.core import errors
from kvtwisted.rpc.errors import IN_MESSAGE, TABLE, CallError, Code, call_error

from .support import logged

#: Says that these are about no backend.
WITHOUT_BACKEND = True

CLASSES = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, errors.KvError)]


def test_codes_are_grpcs_own() -> None:
    """Every code has the name and the number that gRPC gives it."""
    assert {code.name: code.value for code in Code} == {code.name: grpc.StatusCode[code.name].value[0] for code in Code}


@pytest.mark.parametrize("cls", CLASSES)
def test_every_error_is_in_the_table(cls: type[errors.KvError]) -> None:
    """Each class of the family has a row, its own or that of a class above, other than the one for defects."""
    rows = [TABLE[parent] for parent in cls.__mro__ if parent in TABLE]
    assert rows[0] is not TABLE[BaseException] or cls is errors.KvError


@pytest.mark.parametrize("cls", CLASSES)
def test_only_internal_hides_and_logs(cls: type[errors.KvError]) -> None:
    """INTERNAL keeps the error's own text from the client and logs it; every other code tells, and logs nothing.

    What is wrong with a path that the configuration names is told, and logged.
    """
    with logged() as events:
        error = call_error(cls("what happened"), "Get")
    if error.code is Code.INTERNAL:
        assert ("what happened" in str(error)) is (cls is errors.UnusablePath)
        assert incident(events) in str(error)
    else:
        assert events == []
        assert str(error) == "what happened" or cls in (errors.StorageFull, errors.NoInodes)


def test_the_family_that_is_answered_in_the_message() -> None:
    """What is wrong with the request, or with its number, and an answer that would be too large; nothing else."""
    in_message = {cls.__name__ for cls in CLASSES if issubclass(cls, IN_MESSAGE)}
    assert in_message == {
        "InvalidRequest", "InvalidKey", "InvalidValue", "InvalidTtl", "InvalidConfig", "TooLarge", "ResponseTooLarge",
        "NotANumber", "NumberOverflow",
    }  # fmt: skip


def test_a_subclass_is_answered_like_its_parent() -> None:
    """An error that is added later and has no row yet."""

    class DiskGone(errors.StorageFull):
        """The disk was pulled out."""

    assert call_error(DiskGone("gone"), "Set").code is Code.RESOURCE_EXHAUSTED


def test_a_call_error_is_kept() -> None:
    """What is decided already stays as it is."""
    error = CallError(Code.NOT_FOUND, "no such service")
    assert call_error(error, "Check") is error
    assert str(error) == "no such service"


def incident(events: list[LogEvent]) -> str:
    """The id of the one incident among the events."""
    (event,) = events
    value: str = event["incident"]
    return value
