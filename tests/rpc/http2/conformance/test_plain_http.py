"""Requests that are HTTP and not gRPC."""

from __future__ import annotations

import pytest
from hyperframe.frame import (
    DataFrame,
    RstStreamFrame,
)

from ..peer import Peer
from .deeds import CANCEL, FLOW_CONTROL_ERROR, NO_ERROR, PROTOCOL_ERROR, STREAM_CLOSED, Rest, goes_on, request, without

NOT_GRPC: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "GET": ("405", [(":method", "GET"), *without(":method")]),
    "another content-type": ("415", [*without("content-type"), ("content-type", "text/plain")]),
    "no content-type": ("415", without("content-type")),
}


def test_head(peer: Peer) -> None:
    """The answer to HEAD has no body (RFC 9110, section 9.3.2)."""
    answer = peer.answer(request((":method", "HEAD"), *without(":method"), end_stream=True)(peer))
    assert (answer.headers[":status"], answer.data, answer.reset) == ("405", b"", None)


@pytest.mark.parametrize("ended", [True, False], ids=["whole", "with a body"])
@pytest.mark.parametrize("name", NOT_GRPC)
def test_plain_http(peer: Peer, name: str, ended: bool) -> None:
    """What is HTTP but not gRPC has an HTTP status and a sentence, before its body has come, and no RST_STREAM."""
    status, fields = NOT_GRPC[name]
    stream_id = request(*fields, end_stream=ended)(peer)
    answer = peer.answer(stream_id)
    assert answer.headers[":status"] == status
    assert answer.data.startswith(b"this is a gRPC server")
    assert int(answer.headers["content-length"]) == len(answer.data)
    if not ended:
        peer.send(DataFrame(stream_id, b"body"), DataFrame(stream_id, b"", flags=["END_STREAM"]))
    peer.sync()
    assert answer.reset is None
    goes_on(peer)


REST_OF_PLAIN_HTTP: dict[str, tuple[int, Rest]] = {
    "a body that is too short": (PROTOCOL_ERROR, lambda peer, s: [DataFrame(s, b"123", flags=["END_STREAM"])]),
    "a body that is too long": (
        PROTOCOL_ERROR,
        lambda peer, s: [DataFrame(s, b"123"), DataFrame(s, bytes(6))],
    ),
    "trailers without an end": (PROTOCOL_ERROR, lambda peer, s: [peer.headers(s, [("x", "y")])]),
    "DATA after RST_STREAM": (STREAM_CLOSED, lambda peer, s: [RstStreamFrame(s, CANCEL), DataFrame(s, b"123")]),
    "nothing": (NO_ERROR, lambda peer, s: []),
}


@pytest.mark.parametrize("name", REST_OF_PLAIN_HTTP)
def test_the_rest_of_plain_http(peer: Peer, name: str) -> None:
    """A body that comes behind the answer is still checked, and not waited for long."""
    code, rest = REST_OF_PLAIN_HTTP[name]
    stream_id = request((":method", "PUT"), *without(":method"), ("content-length", "8"))(peer)
    answer = peer.answer(stream_id)
    peer.send(*rest(peer, stream_id))
    peer.read(lambda frame: isinstance(frame, RstStreamFrame) and frame.stream_id == stream_id)
    assert answer.reset == code
    goes_on(peer)


def test_a_large_body_of_plain_http(peer: Peer) -> None:
    """It gets no credit: what is over the first window is an error."""
    stream_id = request((":method", "PUT"), *without(":method"))(peer)
    answer = peer.answer(stream_id)
    peer.send(*(DataFrame(stream_id, bytes(16_384)) for _ in range(4)))
    peer.read(lambda frame: isinstance(frame, RstStreamFrame))
    assert answer.reset == FLOW_CONTROL_ERROR
    goes_on(peer)
