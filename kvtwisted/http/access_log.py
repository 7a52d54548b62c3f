"""The access log: one JSON object for each answer that was given, on either lane.

A line costs about a microsecond. So it is put together from bytes that are JSON already: the URL of a plain request has
nothing that JSON escapes.
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from time import time
from typing import Callable

from .fast_requests import BEGINNINGS, Request


class AccessLog:
    """Makes lines and gives them to `add`, which must not block. Reactor thread."""

    def __init__(self, add: Callable[[bytes], None], now: Callable[[], float] = time) -> None:
        """`now` is in seconds since 1970."""
        self._add = add
        self._now = now
        self._second = -1
        self._time = b""

    def plain(self, peer: bytes, request: Request, answer: bytes, seconds: float) -> None:
        """A plain request was answered, `seconds` after it was complete."""
        method, path = BEGINNINGS[request.kind]
        self._write(peer, method, path + request.target, answer[9:12], len(answer), seconds)

    def other(self, peer: bytes, method: bytes, target: bytes, status: int, size: int, seconds: float) -> None:
        """Any other request was answered: `target` as it came, and `size` bytes of body. Parts that did not come are
        empty."""
        self._write(peer, _escaped(method), _escaped(target), b"%d" % status, size, seconds)

    def _write(self, peer: bytes, method: bytes, target: bytes, status: bytes, size: int, seconds: float) -> None:
        now = self._now()
        second = int(now)
        if second != self._second:
            self._second = second
            self._time = datetime.fromtimestamp(second, timezone.utc).strftime("%Y-%m-%dT%H:%M:%S").encode()
        self._add(
            b'{"time":"%b.%03dZ","peer":"%b","method":"%b","target":"%b","status":%b,"bytes":%d,"us":%d}\n'
            % (self._time, (now - second) * 1000, peer, method, target, status, size, seconds * 1e6)
        )


def peer_text(host: str, port: int) -> bytes:
    """An address as it is logged."""
    return _escaped((f"[{host}]:{port}" if ":" in host else f"{host}:{port}").encode())


def _escaped(text: bytes) -> bytes:
    # Any byte may come; as Latin-1 none fails to decode.
    return json.dumps(text.decode("latin-1"))[1:-1].encode("ascii")
