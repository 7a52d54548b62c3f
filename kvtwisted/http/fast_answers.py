"""Encodes answers as twisted.web would: the same headers in the same order.

Note [Answers made once a second]: of many answers only the Date changes. So heads, and whole answers that are always
the same, are made once a second.
"""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Callable

from twisted.web.http import datetimeToString

from ..commands.get import Found
from .answers import JSON, KEY_DELETED, KEY_NOT_FOUND, KEY_SET, KEYS_SET, NOSNIFF, SERVER, Answer, found, phrase
from .urls import path_key

_SERVER = b"%b\r\n%b: %b" % (SERVER, *NOSNIFF)
#: Bytes that JSON text has to escape.
_ESCAPED = bytes(range(0x20)) + b'"\\'
_CONSTANT = (KEY_SET, KEY_DELETED, KEYS_SET, KEY_NOT_FOUND)


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
            return self.encode(found(result, path_key(target, b"")))
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
