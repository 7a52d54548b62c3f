"""Answers plain requests: hot Gets at once, all others as Klein's are, by a shorter way.

The bytes are those that twisted.web would send: the same headers in the same order.

Note [Answers made once a second]: of many answers only the Date changes. So heads, and whole answers that are always
the same, are made once a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from time import time
from typing import TYPE_CHECKING, Callable

from twisted.python.failure import Failure
from twisted.web.http import NO_BODY_CODES, datetimeToString

from ..commands.get import Found
from ..commands.set import Set
from ..core.errors import InvalidRequest
from ..sessions.session import Session
from . import errors, routes, urls
from .answers import JSON, KEY_DELETED, KEY_NOT_FOUND, KEY_SET, KEYS_SET, NOSNIFF, SERVER, Answer, found, phrase
from .dispatch import Dispatch
from .fast_requests import DELETE, GET, POST, POSTED, RAW_DELETE, RAW_GET, RAW_PUT, SCAN, Request, set_arguments
from .routes import Received

if TYPE_CHECKING:
    from .lanes import Lanes

#: Bytes of a body that is waited for here; a longer one is read by twisted.web from its first byte on.
MAX_BODY = 65_536

_SERVER = b"%b\r\n%b: %b" % (SERVER, *NOSNIFF)
#: Bytes that JSON text has to escape.
_ESCAPED = bytes(range(0x20)) + b'"\\'
#: The routes of those that are neither GET nor POST.
_OTHERS = {
    DELETE: routes.DELETE, SCAN: routes.SCAN,
    RAW_GET: routes.RAW_GET, RAW_PUT: routes.RAW_PUT, RAW_DELETE: routes.RAW_DELETE,
}  # fmt: skip
_CONSTANT = (KEY_SET, KEY_DELETED, KEYS_SET, KEY_NOT_FOUND)


class FastLane:
    """Answers the plain requests of one session, on all connections of a site. Reactor thread."""

    def __init__(self, session: Session, dispatch: Dispatch, headers: Sequence[tuple[str, str]] = ()) -> None:
        """Every answer has `headers`."""
        self._session = session
        self._get_now = session.get_now
        self._check_room = session.check_room
        self._dispatch = dispatch
        self._encoder = Encoder(headers)
        #: Makes bytes of an answer.
        self.encode = self._encoder.encode

    def answer(self, lanes: Lanes, promise: int, request: Request, body: bytes) -> bytes | None:
        """The answer to a request; None: `lanes.answered` will be told it, and `promise`."""
        kind, target, content_type = request.kind, request.target, request.content_type
        if kind == GET:
            return self._get(lanes, promise, target)
        done = partial(lanes.answered, promise, self)
        if kind != POST:
            if kind == SCAN:
                received = Received(query=target)
            else:
                key, _, query = target.partition(b"?")
                received = Received(key, query, body=body, preconditions=request.preconditions)
            lanes.running = self._dispatch.answer(self._session, _OTHERS[kind], received, done)
            return None
        route = POSTED[target]
        if route is routes.SET and content_type == JSON:
            plain = set_arguments(body)
            if plain is not None:
                lanes.running = self._dispatch.submit(self._session, route, Set(*plain), done)
                return None
        lanes.running = self._dispatch.answer(self._session, route, Received(b"", b"", content_type, body), done)
        return None

    def failed(self, name: str, error: BaseException | None = None) -> bytes:
        """The answer to what failed with `error`, or with what is being handled, while doing `name`."""
        return self.encode(errors.answer(Failure(error), name))

    def _get(self, lanes: Lanes, promise: int, target: bytes) -> bytes | None:
        try:
            key = self._decoded(target) if b"%" in target else target
            # Such a Get ends before anything else can begin, so that it need not be counted.
            self._check_room()
            known, found = self._get_now(key)
            if known:
                return self._encoder.found(found, target)
            command = routes.read_get(Received(target), self._dispatch.bounds)
        except Exception:
            return self.failed("get")
        done = partial(lanes.answered, promise, self)
        lanes.running = self._dispatch.submit(self._session, routes.GET, command, done)
        return None

    def _decoded(self, target: bytes) -> bytes:
        try:
            return urls.path_key(target, b"").encode()
        except InvalidRequest:
            self._session.require(routes.GET.requirement, "")
            self._session.before_reading(0)
            raise


class Encoder:
    """Makes bytes of answers. Reactor thread."""

    def __init__(self, headers: Sequence[tuple[str, str]] = (), now: Callable[[], float] = time) -> None:
        """Every answer has `headers`; `now` is in seconds since 1970."""
        self._now = now
        self._server = b"".join([_SERVER, *[f"\r\n{name}: {value}".encode("ascii") for name, value in headers]])
        self._second = -1
        self._date = b""
        self._head = b""
        self._constant: dict[int, bytes] = {}

    def encode(self, answer: Answer) -> bytes:
        """The bytes of any answer."""
        if int(self._now()) != self._second:
            self._renew()
        return self._constant.get(id(answer)) or self._whole(answer)

    def found(self, result: Found | None, target: bytes) -> bytes:
        """The answer of get for the key of the URL `target`; see `answers.found`. Raises Corruption."""
        if result is None:
            return self.encode(KEY_NOT_FOUND)
        value, ttl = result
        # JSON text is what the value is already, unless something in it must be escaped. The URL has nothing of that.
        if b"%" in target or len(value.translate(None, _ESCAPED)) != len(value) or not value.isascii():
            return self.encode(found(result, urls.path_key(target, b"")))
        if int(self._now()) != self._second:
            self._renew()
        # {"key":"","value":""} has 21 bytes.
        if ttl:
            end = b'","ttl":%d}' % ttl
            return b'%b%d\r\n\r\n{"key":"%b","value":"%b%b' % (
                self._head, 19 + len(target) + len(value) + len(end), target, value, end,
            )  # fmt: skip
        return b'%b%d\r\n\r\n{"key":"%b","value":"%b"}' % (
            self._head, 21 + len(target) + len(value), target, value,
        )  # fmt: skip

    def _whole(self, answer: Answer) -> bytes:
        more = "".join([f"{name}: {value}\r\n" for name, value in answer.headers]).encode("ascii")
        if answer.status in NO_BODY_CODES:
            return b"HTTP/1.1 %d %b\r\nServer: %b\r\nDate: %b\r\n%b\r\n" % (
                answer.status, phrase(answer.status), self._server, self._date, more,
            )  # fmt: skip
        return b"HTTP/1.1 %d %b\r\nServer: %b\r\nDate: %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n%b\r\n%b" % (
            answer.status, phrase(answer.status), self._server, self._date,
            answer.content_type.encode("ascii"), len(answer.body), more, answer.body,
        )  # fmt: skip

    def _renew(self) -> None:
        now = self._now()
        self._second = int(now)
        self._date = datetimeToString(now)
        self._head = b"HTTP/1.1 200 OK\r\nServer: %b\r\nDate: %b\r\nContent-Type: %b\r\nContent-Length: " % (
            self._server, self._date, JSON.encode("ascii"),
        )  # fmt: skip
        self._constant = {id(answer): self._whole(answer) for answer in _CONSTANT}


def closing(answer: bytes) -> bytes:
    """The same answer with the header that says that it is the connection's last."""
    return answer.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
