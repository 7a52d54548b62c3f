"""What the headers of a request ask for: which method, how it is encoded, how long it may take.

Source: https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ..errors import CallError, Code
from .frames import ErrorCode, StreamFault
from .header_blocks import MAX_LIST_BYTES, Headers, list_bytes

_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LENGTH = re.compile(rb"[0-9]{1,15}")
_CONTENT_TYPE = b"application/grpc"
_ENCODINGS = (b"identity", b"gzip", b"deflate")

#: gRPC's own code for a method that does not exist.
UNIMPLEMENTED = 12


Unary = Callable[[Any, int, bytes, "float | None"], None]


class Route(NamedTuple):
    """A method of a service: its path, and what runs it.

    `unary` is called with the connection's `Responder`, the stream's number, the message, and the seconds that the
    client gives the call (None: no limit); it answers at once or later. `compressed` is the same for a message that is
    to be decompressed first. `streaming` makes the handler of one stream of messages instead.
    """

    path: str
    unary: Unary | None = None
    compressed: Unary | None = None
    streaming: Callable[[Any], Any] | None = None


class Refusal(NamedTuple):
    """Why a request is not served: an HTTP status other than 200 if it is no gRPC, else a gRPC code; a sentence."""

    status: int
    code: int
    sentence: str
    more: Headers


class Head:
    """What a request's headers say. Immutable: one serves all requests whose header blocks are the same."""

    __slots__ = ("lasts", "length", "refusal", "route", "timeout", "unary")

    def __init__(
        self, route: Route | None, refusal: Refusal | None, timeout: float | None, length: int, *, lasts: bool = True
    ) -> None:
        self.route = route
        self.refusal = refusal
        #: Seconds that the client gives the call, or None.
        self.timeout = timeout
        #: The body's length if it was told, else -1.
        self.length = length
        #: Whether the next block with the same bytes means the same.
        self.lasts = lasts
        #: What answers the call, if it is a unary one that is to be served.
        self.unary = route.unary if route is not None and refusal is None else None

    @property
    def path(self) -> str:
        """The method's, if there is one."""
        return "" if self.route is None else self.route.path


#: The routes that a request finds, by their paths.
Routes = Mapping[bytes, Route]

#: What a request finds that has this path, and these values of the header `authorization`. Raises CallError.
Enter = Callable[[bytes, "tuple[bytes, ...]"], Routes]


def read_head(enter: Enter, headers: Headers) -> Head:
    """Read a well-formed request's headers. Raises StreamFault when they contradict themselves."""
    if list_bytes(headers) > MAX_LIST_BYTES:
        return Head(None, _status(Code.RESOURCE_EXHAUSTED, f"the headers are over {MAX_LIST_BYTES} bytes"), None, -1)
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        # A header that comes twice is a list; none of those looked at here may be one.
        fields[name] = fields[name] + b"," + value if name in fields else value
    length = _length(fields.get(b"content-length"))
    refusal = _not_grpc(fields)
    if refusal is not None:
        return Head(None, refusal, None, length)
    path = fields[b":path"]
    try:
        routes = enter(path, tuple([value for name, value in headers if name == b"authorization"]))
    except CallError as error:
        # Each attempt counts, so that the next one with the same headers must come here too.
        return Head(None, _status(error.code, str(error)), None, length, lasts=False)
    route = routes.get(path)
    if route is None:
        sentence = f"there is no method {path.decode('ascii', 'replace')[:200]}"
        return Head(None, _status(UNIMPLEMENTED, sentence), None, length)
    timeout, refusal = _timeout(fields.get(b"grpc-timeout"))
    return Head(route, refusal or _unknown_encoding(fields.get(b"grpc-encoding")), timeout, length)


def _length(value: bytes | None) -> int:
    if value is None:
        return -1
    if not _LENGTH.fullmatch(value):
        raise StreamFault(ErrorCode.PROTOCOL_ERROR, "content-length is not a number")
    return int(value)


def _not_grpc(fields: dict[bytes, bytes]) -> Refusal | None:
    if fields[b":method"] != b"POST":
        # The answer to HEAD has no body (RFC 9110, section 9.3.2).
        sentence = "" if fields[b":method"] == b"HEAD" else "this is a gRPC server: calls are POST requests"
        return Refusal(405, 0, sentence, [(b"allow", b"POST")])
    content_type = fields.get(b"content-type", b"").partition(b";")[0].rstrip().lower()
    if not content_type.startswith(_CONTENT_TYPE):
        return Refusal(415, 0, "this is a gRPC server: the content-type must be application/grpc", [])
    if content_type[len(_CONTENT_TYPE) :] not in (b"", b"+proto"):
        # A status, since who sends this speaks gRPC: 415 is for what does not begin so. Taking it for protobuf, as some
        # servers do, might store what nobody has sent.
        return _status(UNIMPLEMENTED, "the content-type must be application/grpc or application/grpc+proto")
    return None


def _timeout(value: bytes | None) -> tuple[float | None, Refusal | None]:
    if value is None:
        return None, None
    match = _TIMEOUT.fullmatch(value)
    if match is None:
        sentence = "grpc-timeout must be a number of at most 8 digits and a unit, one of H M S m u n"
        return None, _status(Code.INVALID_ARGUMENT, sentence)
    return int(match[1]) * _UNITS[match[2]], None


def _unknown_encoding(value: bytes | None) -> Refusal | None:
    if value is None or value in _ENCODINGS:
        return None
    sentence = "grpc-encoding must be one of identity, gzip, deflate"
    return Refusal(200, UNIMPLEMENTED, sentence, [(b"grpc-accept-encoding", b",".join(_ENCODINGS))])


def _status(code: int, sentence: str) -> Refusal:
    return Refusal(200, code, sentence, [])
