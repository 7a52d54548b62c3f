"""All errors that a caller of kvtwisted can meet.

Each is a `KvError`. Each class carries a stable `code`, the word that HTTP clients see in `"code"`; the transports map
classes to statuses in one table each and never look at messages. Anything else that escapes is a defect and is answered
as an internal error with an incident id.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar


class KvError(Exception):
    """A failure with a sentence for the user (`str(error)`) and a stable word for programs (`code`)."""

    code: ClassVar[str] = "internal_error"


class InvalidRequest(KvError):
    """The request itself is wrong; the message names the field, the limit and what was sent. Nothing was written."""

    code = "invalid_request"


class InvalidKey(InvalidRequest):
    """A key that is empty, too long, or not UTF-8 text."""

    code = "invalid_key"


class InvalidValue(InvalidRequest):
    """A value that is not UTF-8 text."""

    code = "invalid_value"


class InvalidTtl(InvalidRequest):
    """A ttl that is negative, too large, or not a whole number of seconds."""

    code = "invalid_ttl"


class InvalidConfig(InvalidRequest):
    """A configuration document that was refused as a whole; the message names the key."""

    code = "invalid_config"


class TooLarge(InvalidRequest):
    """A value, batch or request over its limit, which the message names."""

    code = "too_large"


class Unauthenticated(KvError):
    """No valid token was sent. The message does not say why it is not valid. Nothing was started."""

    code = "unauthenticated"


class PermissionDenied(KvError):
    """The principal may not do this. Nothing was read: the answer does not show what exists."""

    code = "permission_denied"


class RateLimited(KvError):
    """The principal is over its rate. Nothing was started.

    `retry_after` is the number of seconds after which the same request would not be refused for this reason.
    """

    code = "rate_limited"

    def __init__(self, sentence: str, retry_after: float = 1.0) -> None:
        super().__init__(sentence)
        self.retry_after = retry_after


class ValueNotText(KvError):
    """A value that is not UTF-8 text was asked for as text. It can be had as data."""

    code = "value_not_text"


class NotANumber(KvError):
    """What is to be incremented is not the decimal text of a 64-bit number. Nothing was written."""

    code = "not_a_number"


class NumberOverflow(KvError):
    """The sum would not fit in 64 bits. Nothing was written."""

    code = "number_overflow"


class Unsupported(KvError):
    """The backend lacks a capability, which the message names. Nothing was started."""

    code = "unsupported"


class QuotaExceeded(KvError):
    """The principal's quota is used up. Nothing was written; deletes, and writes that add nothing, go on."""

    code = "quota_exceeded"


class ResponseTooLarge(KvError):
    """The answer would exceed the transport's response limit; the message says how to ask for less."""

    code = "response_too_large"


class Overloaded(KvError):
    """Too much work is waiting, or RocksDB has stalled writes; nothing was started. Try again later."""

    code = "overloaded"


class DeadlineExceeded(KvError):
    """The request's time ran out before the work was done. A write may or may not have been applied."""

    code = "deadline_exceeded"


class Unavailable(KvError):
    """The server is starting or stopping, or its storage is closed."""

    code = "unavailable"


class LostFolder(Unavailable):
    """A folder went away, was replaced or became read-only while the server runs; the message names it and its
    configuration key. Nothing was written."""

    code = "folder_lost"


class StorageError(KvError):
    """The engine or its file system failed; what was asked for may not have happened."""

    code = "storage_error"


class WriteStalled(StorageError):
    """RocksDB does not accept writes just now (write stall); nothing was written and a retry may succeed."""

    code = "write_stalled"


class StorageFull(StorageError):
    """The file system that holds the data has no space left."""

    code = "storage_full"


class NoInodes(StorageFull):
    """The file system has no inodes left, so that no file can be made on it, though bytes may be free."""


class NoRoomForBackup(StorageFull):
    """A backup was not made for want of space. It says nothing of the data: whoever writes has room."""


class NearlyFull(StorageFull):
    """A write was refused because the disk is over its high-water mark. Nothing was tried; the storage is healthy."""


class UnusablePath(StorageError):
    """A file or folder that the configuration names is missing or may not be used; the message names key and path."""

    code = "unusable_path"


class Corruption(StorageError):
    """Stored bytes are damaged. Wrong data is never returned in their place."""

    code = "corruption"


class StorageLocked(StorageError):
    """Another process, or another engine in this one, has the data folder open."""

    code = "storage_locked"


AnyError = TypeVar("AnyError", bound=BaseException)


def without_frames(error: AnyError) -> AnyError:
    """`error` without its traceback, and without those of its causes.

    Note [Errors that are kept hold no frames]: a traceback holds frames; each frame holds its variables and its
    caller's frame. An error that is stored in a variable of one of these frames closes a cycle. All that the frames
    hold (a request's message, a part of the database) then stays in memory until Python's cyclic collector runs, which
    may take minutes. So errors that are stored, or handed from thread to thread, have no traceback.
    """
    seen = {id(None)}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            left += (one.__cause__, one.__context__)
    return error
