"""The one table from errors to HTTP statuses.

A class is looked up along its method resolution order, so that a subclass without a row of its own is answered like the
nearest class above it that has one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from twisted.python.failure import Failure

from ..core import errors
from ..core.errors import without_frames
from ..observability import incidents
from .answers import Answer, problem

#: Seconds that a client should wait after 429 and 503.
RETRY_AFTER = 1


class UnsupportedMediaType(errors.InvalidRequest):
    """A body that does not say that it is JSON."""

    code = "unsupported_media_type"


class UnsupportedCoding(UnsupportedMediaType):
    """A body in a content coding."""


class Row(NamedTuple):
    """How one class of errors is answered.

    `sentence` replaces the error's own where that may tell of the server's inside. Status 500 is always logged as an
    incident, whose id the client is given. `retry_after` is in seconds; an error's own goes before it.
    """

    status: int
    sentence: str | None = None
    retry_after: int | None = None
    headers: tuple[tuple[str, str], ...] = ()


_FAILED = Row(500, "the server failed; its log tells more under this incident's id")
_STORAGE_FAILED = Row(500, "the storage failed; the server's log tells more under this incident's id")

TABLE: dict[type[BaseException], Row] = {
    errors.InvalidRequest: Row(400),
    errors.InvalidKey: Row(400),
    errors.InvalidValue: Row(400),
    errors.InvalidTtl: Row(400),
    errors.InvalidConfig: Row(400),
    errors.ValueNotText: Row(409),
    errors.NotANumber: Row(409),
    errors.NumberOverflow: Row(409),
    errors.Unsupported: Row(501),
    # 413 is for what the client sends; an answer that would be too large is a request for too much.
    errors.ResponseTooLarge: Row(400),
    errors.TooLarge: Row(413),
    UnsupportedMediaType: Row(415),
    # RFC 9110, section 15.5.16: the answer says what would have been understood.
    UnsupportedCoding: Row(415, headers=(("Accept-Encoding", "identity"),)),
    # RFC 6750 section 3: the scheme comes with a parameter at least.
    errors.Unauthenticated: Row(401, headers=(("WWW-Authenticate", 'Bearer realm="kvtwisted"'),)),
    errors.PermissionDenied: Row(403),
    errors.RateLimited: Row(429, retry_after=RETRY_AFTER),
    # As WebDAV's quotas (RFC 4331), and a full disk; not 429, upon which clients try again.
    errors.QuotaExceeded: Row(507),
    errors.Overloaded: Row(429, retry_after=RETRY_AFTER),
    errors.WriteStalled: Row(429, "RocksDB accepts no writes just now; nothing was written, try again", RETRY_AFTER),
    # 504 is for gateways; here the server itself was too slow.
    errors.Unsupported: Row(501),
    errors.DeadlineExceeded: Row(503, retry_after=RETRY_AFTER),
    errors.Unavailable: Row(503, retry_after=RETRY_AFTER),
    errors.NearlyFull: Row(507),
    errors.NoRoomForBackup: Row(507),
    errors.StorageFull: Row(507, "the disk is full; nothing can be written until there is space, reads go on"),
    errors.NoInodes: Row(507, "the disk has no free inodes; nothing can be written until there are some, reads go on"),
    errors.LostFolder: Row(503, retry_after=RETRY_AFTER),
    errors.StorageError: _STORAGE_FAILED,
    # Shown as it is: the reader can repair it, or knows whom to ask.
    errors.UnusablePath: Row(500),
    errors.Corruption: Row(500, "stored data is damaged; the server's log tells more under this incident's id"),
    errors.StorageLocked: _STORAGE_FAILED,
    errors.KvError: _FAILED,
    BaseException: _FAILED,
}


def answer(failure: Failure, doing: str) -> Answer:
    """What to answer to `failure`, which happened while `doing` (an operation's name); it ends here.

    It loses its frames, which have the request: Note [Errors that are kept hold no frames].
    """
    try:
        return _answer(failure, doing)
    finally:
        failure.tb = None
        if failure.value is not None:
            without_frames(failure.value)


def _answer(failure: Failure, doing: str) -> Answer:
    error = failure.value
    row = next(TABLE[cls] for cls in type(error).__mro__ if cls in TABLE)
    code = error.code if isinstance(error, errors.KvError) else errors.KvError.code
    sentence = row.sentence or str(error)
    if row.status == 500:
        return problem(500, code, sentence, incident=incidents.report(failure, doing))
    headers = row.headers
    if row.retry_after is not None:
        seconds = math.ceil(error.retry_after) if isinstance(error, errors.RateLimited) else row.retry_after
        headers += (("Retry-After", str(max(seconds, 1))),)
    return problem(row.status, code, sentence)._replace(headers=headers)


def not_found() -> Answer:
    """There is no such path."""
    return problem(404, "not_found", "no such path; /api/v1/openapi.json lists them all")


def method_not_allowed(method: str, allowed: list[str]) -> Answer:
    """The path exists, but not with this method."""
    allow = ", ".join(sorted(allowed))
    result = problem(405, "method_not_allowed", f"method {method} is not allowed here; use {allow}")
    return result._replace(headers=(("Allow", allow),))


def malformed() -> Answer:
    """What came in is not HTTP/1.1, or its head is too large."""
    return problem(400, "malformed_request", "the request is not well-formed HTTP/1.1, or its headers are too large")


def unknown_host() -> Answer:
    """The request is for a server of another name."""
    sentence = "Host: this server does not go by that name; http.allowed_hosts lists those that it does"
    return problem(421, "unknown_host", sentence)


def body_too_large(limit: int, announced: int | None) -> Answer:
    """The body is over `limit` bytes, by its `announced` length or (None) by what came in so far."""
    sent = f"more than {limit}" if announced is None else str(announced)
    sentence = f"body: too large: {sent} bytes were sent, limits.max_request_bytes is {limit} bytes"
    return problem(413, errors.TooLarge.code, sentence)


def value_too_large(limit: int, announced: int | None) -> Answer:
    """The body is a value of over `limit` bytes; see `body_too_large`."""
    sent = f"more than {limit}" if announced is None else str(announced)
    return too_large(f"value: too large: {sent} bytes were sent, the limit is {limit} bytes")


def too_large(sentence: str) -> Answer:
    """Something is too large, as the sentence says."""
    return problem(413, errors.TooLarge.code, sentence)


def bad_host() -> Answer:
    """No Host, several, or an invalid one."""
    return problem(400, "malformed_request", "Host: one is needed, a name or address with or without a port")


def too_slow(part: str, seconds: float) -> Answer:
    """The head or body of a request (`part`) is not complete after `seconds`."""
    key = "http.header_timeout" if part == "head" else "http.body_timeout"
    return problem(408, "request_timeout", f"the request's {part} came too slowly: {key} is {seconds:g} s")


def too_much_unfinished(limit: int, rate: float, *, known: bool) -> Answer:
    """A body that is refused because all incomplete bodies had more than `limit` bytes. It came at `rate` bytes a
    second (inf: not known yet), from a `known` client or not.
    """
    why = "this one is refused"
    if not known:
        why += " before those of known clients"
    elif rate < math.inf:
        why += f" since it came at {rate:.0f} bytes a second, more slowly than others"
    sentence = (
        f"too many bytes of requests that are not complete: limits.max_unfinished_bytes is {limit} bytes; "
        f"{why}; try again"
    )
    return _retry(problem(429, errors.Overloaded.code, sentence))


def too_many_connections(limit: int, *, in_all: bool) -> Answer:
    """There are `limit` connections, as many as there may be: in all, or from the client's address."""
    which = ": limits.max_connections" if in_all else " from this address: limits.max_connections_per_address"
    return _retry(problem(503, "too_many_connections", f"too many connections{which} allows {limit}; try again"))


def _retry(answer: Answer) -> Answer:
    return answer._replace(headers=(("Retry-After", str(RETRY_AFTER)),))
