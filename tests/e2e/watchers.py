"""Many watchers in one thread: a client of HTTP/2 that knows as much of it as it takes, so that a thousand streams cost
little."""

from __future__ import annotations

import itertools
import selectors
import socket
import struct
import threading
from collections.abc import Sequence
from typing import NamedTuple

from hpack import Decoder, Encoder

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 1, 4, 1
_WINDOW = (1 << 31) - 1
#: Streams of one connection.
STREAMS = 100

#: A commit as a watcher was told it: its revision, and its events, encoded.
Commit = tuple[int, tuple[bytes, ...]]


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


class Told(NamedTuple):
    """What all messages with the same bytes say."""

    revision: int
    events: tuple[bytes, ...]
    end: bool
    compacted: bool


class Watching:
    """One watcher, on one connection after the other."""

    def __init__(self, request: kv.WatchRequest) -> None:
        self.request = request
        #: The commits that it was told whole, in order, and that up to which it was told all.
        self.commits: list[Commit] = []
        self.reached = 0
        #: Whether it was told anything.
        self.has_begun = False
        self.is_compacted = False
        #: How its stream ended, if it did: the status, and the sentence.
        self.ended: tuple[str, str] | None = None
        self._open: list[bytes] = []
        self._buffer = b""

    def begin_again(self) -> None:
        """Another stream comes: what was told of a commit that is not whole is told again."""
        self._open, self._buffer, self.has_begun, self.ended = [], b"", False, None
        self.request.after_revision = self.reached

    def take(self, data: bytes, crowd: Crowd) -> None:
        """Bytes of its messages have come."""
        buffer = self._buffer + data if self._buffer else data
        position = 0
        while len(buffer) - position >= 5:
            size = int.from_bytes(buffer[position + 1 : position + 5], "big")
            after = position + 5 + size
            if after > len(buffer):
                break
            self._told(crowd.read(buffer[position + 5 : after]))
            position = after
        self._buffer = buffer[position:]

    def _told(self, told: Told) -> None:
        self.has_begun = True
        revision, events, end, compacted = told
        if compacted:
            self.is_compacted = True
            return
        assert revision > self.reached or not events, f"revision {revision} after {self.reached} was told"
        self._open += events
        if end:
            if self._open:
                self.commits.append((revision, tuple(self._open)))
                self._open = []
            self.reached = max(self.reached, revision)


class Crowd(threading.Thread):
    """Watchers on connections of their own. `open` them, then `start`; methods are for any thread unless said."""

    def __init__(self, address: str) -> None:
        super().__init__(name="watchers", daemon=True)
        host, _, port = address.rpartition(":")
        self._address = host, int(port)
        self._selector = selectors.DefaultSelector()
        self._connections: list[_Connection] = []
        self._known: dict[bytes, Told] = {}
        self._stopping = False
        self.failure: BaseException | None = None

    def open(self, watchers: Sequence[Watching]) -> None:
        """Open streams for these, on new connections. Not while the thread runs."""
        left = iter(watchers)
        while some := list(itertools.islice(left, STREAMS)):
            connection = _Connection(self._address, some)
            self._connections.append(connection)
            self._selector.register(connection.socket, selectors.EVENT_READ, connection)

    def run(self) -> None:
        """Read until it is to stop, or all connections are gone."""
        try:
            while not self._stopping and self._connections:
                for key, _ in self._selector.select(0.1):
                    connection: _Connection = key.data
                    if not connection.read(self):
                        self._selector.unregister(connection.socket)
                        self._connections.remove(connection)
        except BaseException as error:
            self.failure = error
            raise

    def stop(self) -> None:
        """Cut all connections, whatever is on the way."""
        self._stopping = True
        if self.is_alive():
            self.join()
        for connection in self._connections:
            connection.socket.close()
        self._selector.close()

    def read(self, message: bytes) -> Told:
        """What a message says: many watchers are told the same. On its own thread."""
        told = self._known.get(message)
        if told is None:
            if len(self._known) > 50_000:
                self._known.clear()
            parsed = kv.WatchResponse.FromString(message)
            events = tuple([event.SerializeToString() for event in parsed.events])
            told = self._known[message] = Told(parsed.revision, events, parsed.end, parsed.compacted)
        return told


class _Connection:
    def __init__(self, address: tuple[str, int], watchers: Sequence[Watching]) -> None:
        self.socket = socket.create_connection(address)
        self._by_stream = {1 + 2 * number: watcher for number, watcher in enumerate(watchers)}
        self._decoder, encoder = Decoder(), Encoder()
        self._buffer = b""
        frames = [
            _PREFACE,
            frame(_SETTINGS, 0, 0, struct.pack(">HI", 4, _WINDOW)),
            frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", _WINDOW - 65_535)),
        ]
        for stream, watcher in self._by_stream.items():
            headers = [
                (":method", "POST"), (":scheme", "http"), (":path", "/kv.v1.KeyValueService/Watch"),
                (":authority", "localhost"), ("content-type", "application/grpc"), ("te", "trailers"),
            ]  # fmt: skip
            message = watcher.request.SerializeToString()
            frames.append(frame(_HEADERS, _END_HEADERS, stream, encoder.encode(headers)))
            frames.append(frame(_DATA, _END_STREAM, stream, struct.pack(">BI", 0, len(message)) + message))
        self.socket.sendall(b"".join(frames))
        self._taken = 0

    def read(self, crowd: Crowd) -> bool:
        """Take what there is to read; whether more may come."""
        try:
            data = self.socket.recv(1 << 20)
        except ConnectionError:
            data = b""
        if not data:
            return False
        buffer = self._buffer + data
        position = 0
        while len(buffer) - position >= 9:
            length = int.from_bytes(buffer[position : position + 3], "big")
            kind, flags = buffer[position + 3], buffer[position + 4]
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big")
            after = position + 9 + length
            if after > len(buffer):
                break
            self._frame(kind, flags, stream, buffer[position + 9 : after], crowd)
            position = after
        self._buffer = buffer[position:]
        return True

    def _frame(self, kind: int, flags: int, stream: int, payload: bytes, crowd: Crowd) -> None:
        if kind == _DATA:
            self._by_stream[stream].take(payload, crowd)
            self._taken += len(payload)
            if self._taken > 1 << 28:
                self.socket.sendall(frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken)))
                self._taken = 0
        elif kind == _HEADERS:
            fields = dict(self._decoder.decode(payload))
            if "grpc-status" in fields:
                self._by_stream[stream].ended = str(fields["grpc-status"]), str(fields.get("grpc-message", ""))
        elif kind == _PING and not flags & _ACK:
            self.socket.sendall(frame(_PING, _ACK, 0, payload))
        elif kind == _SETTINGS and not flags & _ACK:
            self.socket.sendall(frame(_SETTINGS, _ACK, 0, b""))
        else:
            assert kind in (_SETTINGS, _PING, _WINDOW_UPDATE, _GOAWAY), f"frame {kind} {payload!r} on stream {stream}"
