"""The table behind header blocks (RFC 7541), and what is remembered of them."""

from __future__ import annotations

from typing import Callable

import pytest
from hyperframe.frame import (
    DataFrame,
    HeadersFrame,
)

from kvtwisted.rpc.http2.header_blocks import MAX_UNKNOWN_BLOCK_BYTES

from ..peer import Peer, enveloped, raw
from .deeds import COMPRESSION_ERROR, GET, goes_on, opened, reset_by_server, watching


def indexed(path: str) -> bytes:
    """A path as a literal that becomes the table's newest entry, number 62."""
    return b"\x44" + bytes((len(path),)) + path.encode()


def get_with(peer: Peer, block: bytes) -> str | None:
    """The status of a call with this header block and a Get's message; None if it was reset."""
    stream_id = peer.next_stream()
    peer.send(
        HeadersFrame(stream_id, block, flags=["END_HEADERS"]),
        DataFrame(stream_id, enveloped(b"\x0a\x01a"), flags=["END_STREAM"]),
    )
    return peer.answer(stream_id).status


def test_the_same_block_means_something_else(peer: Peer) -> None:
    """A block that was seen before is decoded anew once the table has changed."""
    first, again = indexed(GET) + b"\x83\x86", b"\x83\x86\xbe"
    plain = b"\x0f\x10\x10application/grpc"
    assert get_with(peer, first + plain) == "0"
    assert [get_with(peer, again + plain) for _ in range(3)] == ["0"] * 3
    assert get_with(peer, indexed("/no.Such/Method") + b"\x83\x86" + plain) == "12"
    assert [get_with(peer, again + plain) for _ in range(3)] == ["12"] * 3


@pytest.mark.parametrize("size", [b"\x20\x3f\xe1\x1f", b"\x20"], ids=["and back", "to 0"])
def test_a_block_whose_entries_are_evicted(peer: Peer, size: bytes) -> None:
    """A block that was seen before is wrong once a change of the table's size has evicted what it refers to."""
    plain, again = b"\x0f\x10\x10application/grpc", b"\x83\x86\xbe"
    assert get_with(peer, indexed(GET) + b"\x83\x86" + plain) == "0"
    assert [get_with(peer, again + plain) for _ in range(2)] == ["0"] * 2
    assert get_with(peer, size + b"\x83\x86\x04\x1a" + GET.encode() + plain) == "0"
    peer.send(HeadersFrame(peer.next_stream(), again + plain, flags=["END_HEADERS"]))
    assert peer.goaway().error_code == COMPRESSION_ERROR


TOUCHES_THE_TABLE: dict[str, Callable[[Peer], int]] = {
    "a malformed request": Peer.next_stream,
    "trailers of a half-closed stream": watching,
    "a stream that the server has reset": reset_by_server,
    "trailers": opened,
}


@pytest.mark.parametrize("name", TOUCHES_THE_TABLE)
def test_blocks_that_are_good_for_nothing_else(peer: Peer, name: str) -> None:
    """A block changes the table even if nothing comes of it; else all later ones would be misread."""
    stream_id = TOUCHES_THE_TABLE[name](peer)
    peer.send(HeadersFrame(stream_id, indexed(GET), flags=["END_HEADERS", "END_STREAM"]))
    assert get_with(peer, b"\x83\x86\xbe\x0f\x10\x10application/grpc") == "0"


def test_headers_that_are_too_many(peer: Peer) -> None:
    """A list over the limit that the server told is a status; the connection goes on."""
    stream_id = opened(peer, GET, *((f"x-{number}", "y" * 100) for number in range(150)))
    answer = peer.answer(stream_id)
    assert (answer.status, answer.headers["grpc-message"]) == ("8", "the headers are over 16384 bytes")
    goes_on(peer)


def test_no_block_is_gathered_without_end(peer: Peer) -> None:
    """One byte over what a stranger's block may have ends the connection, before the block's own end has come."""
    most = MAX_UNKNOWN_BLOCK_BYTES
    peer.send(raw(1, 0, 1, bytes(most)), raw(9, 0, 1, bytes(1)))
    goodbye = peer.goaway()
    assert goodbye.error_code == 11  # ENHANCE_YOUR_CALM
    assert f"over {most} bytes".encode() in goodbye.additional_data
