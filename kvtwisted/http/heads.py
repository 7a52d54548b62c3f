"""Decisions by a request's head, before its body comes: whether it is refused, and whether another may follow."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from twisted.web.http_headers import Headers
from twisted.web.server import Request

from ..core.limits import MAX_VALUE_BYTES
from ..sessions.gate import Visitor
from . import bodies, errors, fields
from .answers import Answer
from .deadlines import UNAUTHENTICATED_BODY, Deadlines
from .fields import Hosts
from .refusing import BODY_TOO_LARGE, NOT_ALLOWED, UNAUTHENTICATED
from .routes import KEYLESS, STREAMED, keyed
from .urls import origin_form

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

    method: bytes
    target: bytes
    version: bytes
    headers: Headers
    length: int | None


def refusal(rules: Rules, head: Head, visitor: Visitor) -> Refusal | None:
    """What is wrong with a request: its host, or a body that is announced and that `visitor` may not send."""
    names = head.headers.getRawHeaders(b"host", ())
    # One valid Host, or none in HTTP/1.0 (RFC 9112, section 3.2).
    if (len(names) != 1 or not _HOST.fullmatch(names[0])) and (names or head.version != b"HTTP/1.0"):
        return Refusal(errors.bad_host())
    if rules.hosts is not None and not all(map(rules.hosts.allow, names)):
        return Refusal(errors.unknown_host())
    if head.method == b"POST" and origin_form(head.target).partition(b"?")[0] in STREAMED:
        return None
    if head.length is not None and head.length > body_limit(rules, head):
        return Refusal(too_large(rules, head))
    length = math.inf if head.length is None else head.length
    if length <= bodies.LARGE and length <= rules.deadlines.limits.unauthenticated_body:
        return None
    return _refusal_of_large_body(rules, head, length, visitor)


def body_limit(rules: Rules, head: Head) -> int:
    """Bytes that the body may have."""
    return min(MAX_VALUE_BYTES, rules.max_body_bytes) if _is_value(head) else rules.max_body_bytes


def too_large(rules: Rules, head: Head) -> Answer:
    """The answer to a body of more than `body_limit`: that was announced, or of a chunked one has come."""
    refuse = errors.value_too_large if _is_value(head) else errors.body_too_large
    return refuse(body_limit(rules, head), head.length)


def _is_value(head: Head) -> bool:
    route = keyed(head.method, _path_of(head.target))
    return route is not None and route.is_value


def put_expectation_plainly(headers: Headers) -> None:
    """Twisted looks at the first line of Expect only, and takes it for one word."""
    asked = b"100-continue" in fields.members(headers.getRawHeaders(b"expect", ()))
    headers.setRawHeaders(b"expect", [b"100-continue"] if asked else [])


def check_persistence(request: Request, version: bytes) -> bool:
    """Whether another request may follow this one on its connection, which the answer says where it must."""
    headers = request.requestHeaders
    # RFC 9112, section 9.3: `close` always ends it; HTTP/1.1 goes on without being asked, HTTP/1.0 only when asked.
    keeps = version == b"HTTP/1.1"
    if lines := headers.getRawHeaders(b"connection"):
        options = fields.members(lines)
        keeps = b"close" not in options and (keeps or b"keep-alive" in options)
    if version == b"HTTP/1.0" and headers.hasHeader(b"transfer-encoding"):
        # Who has put that there did not know where the request ends (RFC 9112, section 6.1).
        keeps = False
    if not keeps:
        request.setHeader(b"Connection", b"close")
    elif version == b"HTTP/1.0":
        request.setHeader(b"Connection", b"keep-alive")
    return keeps


def _refusal_of_large_body(rules: Rules, head: Head, length: float, visitor: Visitor) -> Refusal | None:
    """See Note [The order of admission] in `sessions.session`."""
    authorization, path = rules.authorization, _path_of(head.target)
    if length > rules.deadlines.limits.unauthenticated_body and (answer := authorization.refusal(visitor)) is not None:
        rules.deadlines.cut_off[UNAUTHENTICATED_BODY] += 1
        return Refusal(answer, UNAUTHENTICATED)
    route = keyed(head.method, path)
    if length > bodies.LARGE and route is not None:
        answer = authorization.refusal_of_known(route, visitor)
        return None if answer is None else Refusal(answer, NOT_ALLOWED)
    if bodies.LARGE < length < math.inf and path in KEYLESS:
        return Refusal(errors.too_large(bodies.size_sentence(int(length))), BODY_TOO_LARGE)
    return None


def _path_of(target: bytes) -> bytes:
    return target.partition(b"?")[0]
