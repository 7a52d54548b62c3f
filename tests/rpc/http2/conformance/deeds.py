"""What a peer may send, and the states of streams that it may be sent in."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
    RstStreamFrame,
)

from kvtwisted.rpc.generated.keyvalue_pb2 import SetRequest

from ..peer import Peer, Sendable, enveloped, request_fields

SET, GET, WATCH = "/kv.v1.KeyValueService/Set", "/kv.v1.KeyValueService/Get", "/grpc.health.v1.Health/Watch"

PROTOCOL_ERROR, FLOW_CONTROL_ERROR, STREAM_CLOSED, FRAME_SIZE_ERROR = 1, 3, 5, 6
NO_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0, 7, 8, 9, 11

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, END_HEADERS, PADDED, HAS_PRIORITY = 0x1, 0x4, 0x8, 0x20

WINDOW = 65_535
LARGEST_WINDOW = (1 << 31) - 1

#: What a peer sends; it is made once the connection is there.
Deed = Callable[[Peer], "Iterable[Sendable]"]
#: The same for a stream.
Rest = Callable[[Peer, int], "Iterable[Sendable]"]


def set_request(value: str = "2", key: str = "c") -> bytes:
    """An encoded request to Set."""
    encoded: bytes = SetRequest(key=key, value=value).SerializeToString()
    return encoded


GOOD = enveloped(set_request())


def opened(peer: Peer, path: str = SET, *fields: tuple[str, str]) -> int:
    """A stream whose HEADERS were sent and whose message is still to come."""
    stream_id = peer.next_stream()
    peer.send(peer.headers(stream_id, request_fields(path, *fields)))
    return stream_id


def watching(peer: Peer) -> int:
    """A stream that the peer has half closed and the server keeps open."""
    stream_id = peer.start(WATCH)
    peer.read(lambda frame: isinstance(frame, DataFrame) and frame.stream_id == stream_id)
    return stream_id


def closed(peer: Peer) -> int:
    """A stream that both sides have ended."""
    stream_id = peer.start(GET, b"\x0a\x01a")
    assert peer.answer(stream_id).status == "0"
    return stream_id


def reset_by_peer(peer: Peer) -> int:
    """A stream that the peer has reset."""
    stream_id = opened(peer)
    peer.send(RstStreamFrame(stream_id, CANCEL))
    return stream_id


def reset_by_server(peer: Peer) -> int:
    """A stream that the server has reset."""
    stream_id = peer.next_stream()
    peer.send(HeadersFrame(stream_id, b"\x83", flags=["END_HEADERS"]))
    assert peer.answer(stream_id).reset == PROTOCOL_ERROR
    return stream_id


def goes_on(peer: Peer) -> None:
    """The connection serves calls as before."""
    assert peer.call("Get", key="a").value == "1"


def without(name: str) -> list[tuple[str, str]]:
    """A request's headers but for one."""
    return [field for field in request_fields(SET) if field[0] != name]


def request(*fields: tuple[str, str], end_stream: bool = False) -> Callable[[Peer], int]:
    """HEADERS of a new stream with these fields."""

    def deed(peer: Peer) -> int:
        stream_id = peer.next_stream()
        peer.send(peer.headers(stream_id, fields, end_stream=end_stream))
        return stream_id

    return deed


def body(stream_id: int) -> DataFrame:
    """The one DATA frame of a Set."""
    return DataFrame(stream_id, GOOD, flags=["END_STREAM"])
