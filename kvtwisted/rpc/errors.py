"""The one table from errors to what a gRPC client sees, for every transport.

A class is looked up along its method resolution order, so that a subclass without a row of its own is answered like the
nearest class above it that has one.
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from twisted.python.failure import Failure

from ..core import errors
from ..core.errors import without_frames
from ..observability import incidents

#: What is wrong with the request itself, or with the number that it adds to: answered with status OK and a sentence in
#: the response's `error` field.
IN_MESSAGE = (errors.InvalidRequest, errors.ResponseTooLarge, errors.NotANumber, errors.NumberOverflow)


class Code(IntEnum):
    """The gRPC status codes that this server answers with."""

    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


class CallError(Exception):
    """A call that ends with a status other than OK: its code, and a sentence for the user (`str(error)`)."""

    def __init__(self, code: Code, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code


def stopping() -> CallError:
    """How what comes too late is answered."""
    return CallError(Code.UNAVAILABLE, "the server is stopping")


class Row(NamedTuple):
    """How one class of errors is answered.

    `sentence` replaces the error's own where that may tell of the server's inside. INTERNAL is always logged as an
    incident, whose id the client is given.
    """

    code: Code
    sentence: str | None = None


_FAILED = Row(Code.INTERNAL, "the server failed")
_STORAGE_FAILED = Row(Code.INTERNAL, "the storage failed")
_BUSY = Row(Code.RESOURCE_EXHAUSTED)

TABLE: dict[type[BaseException], Row] = {
    # These four are answered IN_MESSAGE where the response has an `error` field.
    errors.InvalidRequest: Row(Code.INVALID_ARGUMENT),
    errors.ResponseTooLarge: _BUSY,
    errors.NotANumber: Row(Code.FAILED_PRECONDITION),
    errors.NumberOverflow: Row(Code.FAILED_PRECONDITION),
    errors.ValueNotText: Row(Code.FAILED_PRECONDITION),
    errors.Unsupported: Row(Code.UNIMPLEMENTED),
    errors.Unauthenticated: Row(Code.UNAUTHENTICATED),
    errors.PermissionDenied: Row(Code.PERMISSION_DENIED),
    errors.RateLimited: _BUSY,
    errors.QuotaExceeded: _BUSY,
    errors.Overloaded: _BUSY,
    errors.WriteStalled: _BUSY,
    errors.Unsupported: Row(Code.UNIMPLEMENTED),
    errors.DeadlineExceeded: Row(Code.DEADLINE_EXCEEDED),
    errors.Unavailable: Row(Code.UNAVAILABLE),
    errors.NearlyFull: _BUSY,
    errors.NoRoomForBackup: _BUSY,
    errors.StorageFull: Row(
        Code.RESOURCE_EXHAUSTED, "the disk is full; nothing can be written until there is space, reads go on"
    ),
    errors.NoInodes: Row(
        Code.RESOURCE_EXHAUSTED, "the disk has no free inodes; nothing can be written until there are some, reads go on"
    ),
    # Not UNAVAILABLE, upon which clients retry by themselves: whether a write happened is not known.
    errors.StorageError: _STORAGE_FAILED,
    errors.UnusablePath: Row(Code.INTERNAL),
    errors.Corruption: Row(Code.INTERNAL, "stored data is damaged"),
    errors.KvError: _FAILED,
    BaseException: _FAILED,
}


def call_error(error: BaseException, doing: str) -> CallError:
    """The CallError to answer with when `error` escaped while `doing` (a method's name). Any thread.

    INTERNAL ones are logged with their traceback here, and nowhere else. `error` loses its frames, which have the
    request: Note [Errors that are kept hold no frames].
    """
    try:
        return error if isinstance(error, CallError) else _call_error(error, doing)
    finally:
        without_frames(error)


def _call_error(error: BaseException, doing: str) -> CallError:
    row = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    sentence = row.sentence or str(error)
    if row.code is Code.INTERNAL:
        incident = incidents.report(Failure(error, type(error), error.__traceback__), doing)
        sentence += f"; the server's log tells more under incident {incident}"
    return CallError(row.code, sentence)
