"""Reads plain requests: with a complete head, strictly well formed, and for one of the hot routes.

Note [Plain requests only]: request smuggling needs two readers of one stream that disagree on where a request ends. So
this reader takes only what it cannot misread. The request line is one of few, spelled exactly; each header is one line
of printable ASCII that ends in CR LF; what frames a body is one plain Content-Length or nothing. Anything else gives
None, and twisted.web reads the same bytes from the request's first one on.

Header blocks repeat byte for byte, on a connection and between them. So what a block meant is remembered.

Source: RFC 9112. Not httptools: its parser accepts more (two spaces in the request line, empty lines before it, bytes
over 127), and takes longer than one match and one lookup (docs/performance.md).

Note [Plain set bodies]: without a backslash every quote opens or closes a string. So a body that falls into the nine
(with ttl eleven) pieces of `{"key":"...","value":"..."}`, each name once, is fully understood: nothing is nested, no
name is there twice, no escape hides a surrogate. Control characters and invalid UTF-8 are looked for. All others go to
`bodies`, which also words what is wrong with them. This takes a quarter of the time, and copies key and value once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from . import routes
from .fields import Hosts
from .preconditions import UNCONDITIONAL, Preconditions
from .routes import Route

#: Bytes of a head at most.
MAX_HEAD = 8192

#: Headers at most; twisted.web takes more, but not any number.
MAX_FIELDS = 100

#: Remembered header blocks, for all connections, and bytes of one.
_REMEMBERED, _REMEMBERED_BYTES = 1024, 1024

#: What `Request` calls its method and route.
GET, POST, DELETE, SCAN, RAW_GET, RAW_PUT, RAW_DELETE = 1, 2, 3, 4, 5, 6, 7
#: The method of each, and what its paths begin with.
BEGINNINGS = {
    GET: (b"GET", routes.GET.prefix.encode()),
    POST: (b"POST", routes.SET.path.rpartition("set")[0].encode()),
    DELETE: (b"DELETE", routes.DELETE.prefix.encode()),
    SCAN: (b"GET", routes.SCAN.path.encode() + b"?"),
    RAW_GET: (b"GET", routes.RAW_GET.prefix.encode()),
    RAW_PUT: (b"PUT", routes.RAW_PUT.prefix.encode()),
    RAW_DELETE: (b"DELETE", routes.RAW_DELETE.prefix.encode()),
}

# The characters of a key's URL, and of a query: what RFC 3986 allows in a path, so without `?`, `#` and any that JSON
# would escape.
_TARGET = rb"[!$&'()*+,\-./0-9:;=@A-Z_a-z~%]+"
#: The routes of POST, by the last word of their paths.
POSTED: Mapping[bytes, Route] = {
    route.path.rpartition("/")[2].encode(): route for route in routes.ROUTES if route.is_fast and route.method == "POST"
}
#: What stands behind the beginning, where that is not a key or a query.
_REST = {POST: b"|".join(POSTED), RAW_PUT: _TARGET + rb"(?:\?ttl=[0-9]+)?"}
# One group for each kind, in their order.
_LINE = re.compile(
    rb"(?:%b) HTTP/1\.1\r\n"
    % b"|".join(
        rb"%b %b(%b)" % (method, re.escape(path), _REST.get(kind, _TARGET))
        for kind, (method, path) in BEGINNINGS.items()
    )
)
# Spaces around the value are cut off afterwards: as a part of this they could be matched in a number of ways that grows
# with the square of their own, for one header as long as a second.
_FIELD = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):([ -~\t]*)")
_HOST = re.compile(rb"(?:[0-9A-Za-z.\-_]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_LENGTH = re.compile(rb"0|[1-9][0-9]{0,8}")
#: Headers that may be there once.
_ONCE = frozenset((
    b"host", b"content-length", b"content-type", b"connection", b"authorization", b"if-match", b"if-none-match",
))  # fmt: skip
#: Headers that change how a request, its body or its connection is read.
_NOT_PLAIN = frozenset((
    b"transfer-encoding", b"content-encoding", b"expect", b"upgrade", b"te", b"trailer", b"http2-settings",
    b"content-range",
))  # fmt: skip
#: Those that change whether it is carried out; and the kinds that heed them. Others are not plain with them.
_PRECONDITIONS = frozenset((b"if-match", b"if-none-match"))
_CONDITIONAL = frozenset((DELETE, RAW_GET, RAW_PUT, RAW_DELETE))

# Of bodies.
_SPACE = b" \t\r\n"
_CONTROL = bytes(range(0x20))
_TTL = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*(0|[1-9][0-9]{0,15})[ \t\r\n]*\}[ \t\r\n]*")


class _Block(NamedTuple):
    """What the headers say. `length` is None without Content-Length."""

    length: int | None
    content_type: str | None
    authorization: bytes | None


class Request(NamedTuple):
    """A plain request, as it stands in the data that was read."""

    #: Method and route: GET, POST, DELETE, SCAN, RAW_GET, RAW_PUT or RAW_DELETE.
    kind: int
    #: The key's URL (of RAW_PUT with its query), the route's last word, or the query.
    target: bytes
    content_type: str | None
    #: Where the body begins, and where the request ends, which may be behind the end of the data.
    body: int
    end: int
    #: The same object as long as the header block is the same.
    authorization: bytes | None

    @property
    def preconditions(self) -> Preconditions:
        """None, but for a `ConditionalRequest`."""
        return UNCONDITIONAL


class ConditionalRequest(Request):
    """A plain request with preconditions."""

    preconditions: Preconditions = UNCONDITIONAL


#: Makes one in half the time that the class itself takes.
_request = tuple.__new__


class RequestReader:
    """Reads plain requests. One for all connections of a site; what it remembers depends on nothing but the bytes."""

    def __init__(self, max_body_bytes: int, hosts: Hosts | None = None, *, takes_origins: bool = True) -> None:
        """Requests with longer bodies, for hosts other than `hosts`, or with an Origin if it matters, are not plain."""
        self._max_body_bytes = max_body_bytes
        self._hosts = hosts
        self._not_plain = _NOT_PLAIN if takes_origins else _NOT_PLAIN | {b"origin"}
        self._remembered: dict[bytes, _Block] = {}

    def read(self, data: bytes, start: int) -> Request | None:
        """The request that begins at `start`, or None if it is not plain or its head is not complete."""
        line = _LINE.match(data, start)
        if line is None:
            return None
        fields = line.end()
        body = data.find(b"\r\n\r\n", fields - 2, start + MAX_HEAD) + 4
        if body < 4:
            return None
        block = self._remembered.get(data[fields : body - 2]) or self._meaning(data[fields : body - 2])
        kind: int = line.lastindex  # type: ignore[assignment]  # each way to match has its group
        if block is None:
            return self._conditional(kind, line[kind], data[fields : body - 2], body)
        length, content_type, authorization = block
        if kind == POST:
            if length is None or length > self._max_body_bytes:
                return None
        elif not length:
            length = 0
        elif kind != RAW_PUT or length > self._max_body_bytes:
            return None
        return _request(Request, (kind, line[kind], content_type, body, body + length, authorization))

    def _conditional(self, kind: int, target: bytes, block: bytes, body: int) -> ConditionalRequest | None:
        """One with preconditions, which are too many to be remembered."""
        if kind not in _CONDITIONAL or b"if-" not in block.lower():
            return None
        once = _fields_of(block, self._hosts, self._not_plain)
        if once is None:
            return None
        length, content_type, authorization = _block_of(once)
        length = length or 0
        if length > (self._max_body_bytes if kind == RAW_PUT else 0):
            return None
        request = _request(ConditionalRequest, (kind, target, content_type, body, body + length, authorization))
        lines = [(once[name],) if name in once else () for name in (b"if-match", b"if-none-match")]
        request.preconditions = Preconditions(*lines)
        return request

    def _meaning(self, block: bytes) -> _Block | None:
        once = _fields_of(block, self._hosts, self._not_plain | _PRECONDITIONS)
        meaning = None if once is None else _block_of(once)
        if meaning is not None and len(block) <= _REMEMBERED_BYTES:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[block] = meaning
        return meaning


def _fields_of(block: bytes, hosts: Hosts | None, not_plain: frozenset[bytes]) -> Mapping[bytes, bytes] | None:
    """Those of the fields in a plain block that matter."""
    if block.count(b"\r\n") > MAX_FIELDS:
        return None
    once: dict[bytes, bytes] = {}
    # The block ends in CR LF, so that what follows the last one is empty.
    for line in block.split(b"\r\n")[:-1]:
        field = _FIELD.fullmatch(line)
        if field is None:
            return None
        name = field[1].lower()
        if name in not_plain or name in once:
            return None
        if name in _ONCE:
            once[name] = field[2].strip(b" \t")
    host = once.get(b"host", b"")
    if not _HOST.fullmatch(host) or (hosts is not None and not hosts.allow(host)):
        return None
    if once.get(b"connection", b"keep-alive").lower() != b"keep-alive":
        return None
    length = once.get(b"content-length")
    return once if length is None or _LENGTH.fullmatch(length) else None


def _block_of(once: Mapping[bytes, bytes]) -> _Block:
    length, content_type = once.get(b"content-length"), once.get(b"content-type")
    return _Block(
        None if length is None else int(length),
        None if content_type is None else content_type.decode("ascii"),
        once.get(b"authorization"),
    )


def set_arguments(body: bytes) -> tuple[bytes, bytes, int] | None:
    """What `bodies.set_arguments` makes of a plain body; None of any other. See Note [Plain set bodies]."""
    if b"\\" in body:
        return None
    pieces = body.split(b'"', 11)
    ttl = 0
    if len(pieces) == 11:
        *pieces, comma, name, rest = pieces
        number = _TTL.fullmatch(rest)
        if number is None or name != b"ttl" or comma.strip(_SPACE) != b",":
            return None
        ttl = int(number[1])
        pieces.append(b"}")
    if len(pieces) != 9:
        return None
    start, first_name, first_colon, first, comma, second_name, second_colon, second, end = pieces
    if first_name == b"key" and second_name == b"value":
        key, value = first, second
    elif first_name == b"value" and second_name == b"key":
        key, value = second, first
    else:
        return None
    if (start, first_colon, comma, second_colon, end) != (b"{", b":", b",", b":", b"}") and not (
        start.strip(_SPACE) == b"{"
        and first_colon.strip(_SPACE) == b":"
        and comma.strip(_SPACE) == b","
        and second_colon.strip(_SPACE) == b":"
        and end.strip(_SPACE) == b"}"
    ):
        return None
    if len(key.translate(None, _CONTROL)) != len(key) or len(value.translate(None, _CONTROL)) != len(value):
        return None
    if not body.isascii():
        try:
            body.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return key, value, ttl
