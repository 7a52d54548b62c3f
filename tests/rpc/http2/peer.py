"""An HTTP/2 client of the native server that may do anything: it sends what it is told, and looks at what comes back.

Frames are made and read by `hyperframe`, header blocks by `hpack`: by nothing of the code that is tested.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from typing import Any, Callable, Union

from hpack import Decoder, Encoder
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
)

from ..support import CLASSES, PATIENCE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

#: A frame of hyperframe's, or bytes as they are.
Sendable = Union[Frame, bytes]
Fields = list["tuple[str, str]"]


class Answer:
    """What came on one stream until it ended."""

    def __init__(self) -> None:
        #: All headers and trailers.
        self.headers: dict[str, str] = {}
        #: How many header blocks came.
        self.blocks = 0
        self.data = b""
        #: Whether a frame ended it.
        self.ended = False
        #: The code of the RST_STREAM that ended it, or None.
        self.reset: int | None = None

    @property
    def status(self) -> str | None:
        """Its grpc-status."""
        return self.headers.get("grpc-status")

    @property
    def messages(self) -> list[bytes]:
        """The gRPC messages in its data."""
        messages, rest = [], self.data
        while rest:
            length = struct.unpack_from(">BI", rest)[1]
            messages.append(rest[5 : 5 + length])
            rest = rest[5 + length :]
        return messages


class Peer:
    """One connection, used by one thread. A context manager."""

    def __init__(
        self,
        address: str,
        settings: dict[int, int] | None = None,
        *,
        greet: bool = True,
        patience: float = PATIENCE,
        receive_buffer: int = 0,
        source: str = "",
    ) -> None:
        """Connect to "host:port" and, with `greet`, exchange prefaces and settings.

        After `patience` seconds without a byte, reading fails. `receive_buffer`: bytes of SO_RCVBUF, if not 0.
        `source` is the address to come from, if not the system's choice.
        """
        host, _, port = address.rpartition(":")
        self.socket = socket.socket()
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(patience)
        if source:
            self.socket.bind((source, 0))
        self.socket.connect((host, int(port)))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.encoder, self.decoder = Encoder(), Decoder()
        #: All frames that have come, in order.
        self.frames: list[Frame] = []
        #: What has come on each stream.
        self.answers: dict[int, Answer] = {}
        #: Whether the server has ended its side.
        self.ended = False
        #: Whether the server's PINGs are answered while something is read.
        self.answers_pings = True
        self._rest = b""
        self._next_stream = 1
        self._pings = 0
        if greet:
            self.greet(settings)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    # Sending.

    def greet(self, settings: dict[int, int] | None = None) -> None:
        """Exchange prefaces and settings."""
        self.send(PREFACE, SettingsFrame(settings=settings or {}))
        self.read(lambda frame: isinstance(frame, SettingsFrame) and "ACK" in frame.flags)
        self.send(SettingsFrame(flags=["ACK"]))

    def send(self, *things: Sendable) -> None:
        """Send frames and bytes, in one go."""
        self.socket.sendall(b"".join([thing if isinstance(thing, bytes) else thing.serialize() for thing in things]))

    def next_stream(self) -> int:
        """A stream identifier that was not used yet."""
        stream_id, self._next_stream = self._next_stream, self._next_stream + 2
        return stream_id

    def headers(
        self, stream_id: int, fields: Iterable[tuple[str, str]], *, end_stream: bool = False, end_headers: bool = True
    ) -> HeadersFrame:
        """HEADERS with these fields, encoded with the connection's table (so it must be sent, in order)."""
        flags = ["END_STREAM"] * end_stream + ["END_HEADERS"] * end_headers
        return HeadersFrame(stream_id, self.encoder.encode(list(fields)), flags=flags)

    def start(self, path: str, message: bytes = b"", *fields: tuple[str, str]) -> int:
        """Begin a call and send its one message; returns its stream."""
        stream_id = self.next_stream()
        self.send(
            self.headers(stream_id, request_fields(path, *fields)),
            DataFrame(stream_id, enveloped(message), flags=["END_STREAM"]),
        )
        return stream_id

    # Reading.

    def read(self, wanted: Callable[[Frame], bool]) -> Frame:
        """The next frame to come that is `wanted`; fails if none comes."""
        frame = self.read_or_end(wanted)
        assert frame is not None, f"the server closed the connection after {self.frames[-5:]}"
        return frame

    def read_or_end(self, wanted: Callable[[Frame], bool]) -> Frame | None:
        """The same; None if the server closes before."""
        while True:
            frame = self._take()
            if frame is not None:
                self._note(frame)
                if wanted(frame):
                    return frame
                continue
            if self.ended:
                return None
            try:
                received = self.socket.recv(65536)
            except ConnectionError:
                received = b""
            self._rest += received
            self.ended = not received

    def read_all(self) -> list[Frame]:
        """All frames, once the server has closed its side."""
        self.read_or_end(lambda frame: False)
        return self.frames

    def answer(self, stream_id: int) -> Answer:
        """What came on a stream, once it has ended."""
        while not self._over(stream_id):
            self.read(lambda frame: frame.stream_id == stream_id)
        return self.answers[stream_id]

    def goaway(self) -> GoAwayFrame:
        """The last GOAWAY, once the server has closed its side."""
        goodbyes = [frame for frame in self.read_all() if isinstance(frame, GoAwayFrame)]
        assert goodbyes, f"the server closed the connection without GOAWAY, after {self.frames[-5:]}"
        return goodbyes[-1]

    def sync(self) -> None:
        """Return when the server has handled all that was sent, and its answers so far have come."""
        self._pings += 1
        token = struct.pack(">Q", self._pings)
        self.send(PingFrame(opaque_data=token))
        self.read(lambda frame: isinstance(frame, PingFrame) and "ACK" in frame.flags and frame.opaque_data == token)

    def call(self, method: str, **fields: Any) -> Any:
        """The response of a method of the key-value service to a request with these fields."""
        request, response = CLASSES[method]
        stream_id = self.start(f"/kv.v1.KeyValueService/{method}", request(**fields).SerializeToString())
        answer = self.answer(stream_id)
        assert answer.status == "0", f"{method}: {answer.headers}, reset: {answer.reset}"
        return response.FromString(answer.messages[0])

    def _over(self, stream_id: int) -> bool:
        answer = self.answers.get(stream_id)
        return answer is not None and (answer.ended or answer.reset is not None)

    def _take(self) -> Frame | None:
        if len(self._rest) < 9:
            return None
        frame, length = Frame.parse_frame_header(memoryview(self._rest[:9]))
        if len(self._rest) < 9 + length:
            return None
        frame.parse_body(memoryview(self._rest[9 : 9 + length]))
        self._rest = self._rest[9 + length :]
        return frame

    def _note(self, frame: Frame) -> None:
        self.frames.append(frame)
        answer = self.answers.setdefault(frame.stream_id, Answer())
        if isinstance(frame, HeadersFrame):
            answer.blocks += 1
            answer.headers.update({str(name): str(value) for name, value in self.decoder.decode(frame.data)})
        elif isinstance(frame, DataFrame):
            answer.data += frame.data
        elif isinstance(frame, RstStreamFrame):
            answer.reset = frame.error_code
        elif isinstance(frame, PingFrame) and "ACK" not in frame.flags and self.answers_pings:
            self.send(PingFrame(opaque_data=frame.opaque_data, flags=["ACK"]))
        if "END_STREAM" in frame.flags and not isinstance(frame, (SettingsFrame, PingFrame)):
            answer.ended = True


def raw(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> Frame:
    """A frame that hyperframe would not make, being wrong."""
    frame = ExtensionFrame(kind, stream_id, flag_byte=flags, body=payload)
    frame.body_len = len(payload)  # which hyperframe knows of frames that it has read
    return frame


def request_fields(path: str, *more: tuple[str, str]) -> Fields:
    """The headers of a gRPC call; `more` come last."""
    return [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "test"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        *more,
    ]


def enveloped(message: bytes) -> bytes:
    """A message with the five bytes in front of it."""
    return struct.pack(">BI", 0, len(message)) + message
