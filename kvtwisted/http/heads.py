"""Decisions by a request's head, before its body comes: whether it is refused, and whether another may follow."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from twisted.web.http_headers import Headers
from twisted.web.server import Request

from ..sessions.gate import Visitor
from . import bodies, errors, fields
from .answers import Answer
from .deadlines import UNAUTHENTICATED_BODY, Deadlines
from .hosts import Hosts
from .refusing import BODY_TOO_LARGE, NOT_ALLOWED, UNAUTHENTICATED
from .routes import KEYED, KEYLESS

if TYPE_CHECKING:
    from .authorization import Authorization

#: Host: a name, an IPv4 address or an IPv6 address in brackets, and a port (RFC 9110, section 7.2). It may be empty,
#: for targets without an authority. Of the characters of RFC 3986 those that no name has are left out.
_HOST = re.compile(rb"(?:[0-9A-Za-z.\-_~%]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")


class Refusal(NamedTuple):
    """What is answered, and the reason that it is counted by (of `refusing.REASONS`; None: that of the status)."""

    answer: Answer
    reason: str | None = None


@dataclass(frozen=True)
class Rules:
    """What heads are judged by."""

    #: The names that the server goes by; None: any.
    hosts: Hosts | None
    max_body_bytes: int
    deadlines: Deadlines
    authorization: Authorization


class Head(NamedTuple):
    """The head of a request. `length` is the body's; None: it is chunked."""

    target: bytes
    version: bytes
    headers: Headers
    length: int | None


def refusal(rules: Rules, head: Head, visitor: Visitor) -> Refusal | None:
    """What is wrong with a request: its host, or a body that is announced and that `visitor` may not send."""
    names = head.headers.getRawHeaders(b"host", ())
    if not _is_good_host(names, head.version):
        return Refusal(errors.bad_host())
    if rules.hosts is not None and not all(map(rules.hosts.allow, names)):
        return Refusal(errors.unknown_host())
    if head.length is not None and head.length > rules.max_body_bytes:
        return Refusal(errors.body_too_large(rules.max_body_bytes, head.length))
    return _refusal_of_large_body(rules, head, visitor)


def put_expectation_plainly(headers: Headers) -> None:
    """Twisted looks at the first line of Expect only, and takes it for one word."""
    expected = headers.getRawHeaders(b"expect")
    if expected is not None:
        asked = b"100-continue" in fields.members(expected)
        headers.setRawHeaders(b"expect", [b"100-continue"] if asked else [])


def check_persistence(request: Request, version: bytes) -> bool:
    """Whether another request may follow this one on its connection, which the answer says where it must."""
    headers = request.requestHeaders
    keeps = fields.keeps_connection(version, headers.getRawHeaders(b"connection", ()))
    if version == b"HTTP/1.0" and headers.hasHeader(b"transfer-encoding"):
        # Who has put that there did not know where the request ends (RFC 9112, section 6.1).
        keeps = False
    if not keeps:
        request.setHeader(b"Connection", b"close")
    elif version == b"HTTP/1.0":
        request.setHeader(b"Connection", b"keep-alive")
    return keeps


def _is_good_host(names: Sequence[bytes], version: bytes) -> bool:
    """One valid Host, or none in HTTP/1.0 (RFC 9112, section 3.2)."""
    if len(names) == 1:
        return _HOST.fullmatch(names[0]) is not None
    return not names and version == b"HTTP/1.0"


def _refusal_of_large_body(rules: Rules, head: Head, visitor: Visitor) -> Refusal | None:
    """See Note [The order of admission] in `sessions.session`."""
    length = math.inf if head.length is None else head.length
    unasked = rules.deadlines.limits.unauthenticated_body
    if length <= unasked and length <= bodies.LARGE:
        return None
    authorization, path = rules.authorization, head.target.partition(b"?")[0]
    if length > unasked and (answer := authorization.refusal(visitor)) is not None:
        rules.deadlines.cut_off[UNAUTHENTICATED_BODY] += 1
        return Refusal(answer, UNAUTHENTICATED)
    if length > bodies.LARGE and path in KEYED:
        answer = authorization.refusal_of_known(KEYED[path], visitor)
        return None if answer is None else Refusal(answer, NOT_ALLOWED)
    if bodies.LARGE < length < math.inf and path in KEYLESS:
        return Refusal(errors.too_large(bodies.size_sentence(int(length))), BODY_TOO_LARGE)
    return None
