"""The parts of the native server by themselves, each against something simpler that does the same.

See `test_fuzz` for how to run more of it.
"""

from __future__ import annotations

import struct
from typing import Any
from urllib.parse import unquote

import pytest
from hpack import Decoder, Encoder, HPACKError
from hpack.hpack import decode_integer
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.rpc.errors import CallError
from kvtwisted.rpc.http2.frames import ConnectionFault, StreamFault
from kvtwisted.rpc.http2.header_blocks import HeaderBlocks, Headers, checked_request, encode
from kvtwisted.rpc.http2.inbound import Budget, Incoming, Share
from kvtwisted.rpc.http2.outbound import Backlog, Outgoing, Sender
from kvtwisted.rpc.http2.responses import percent_encoded
from tests.support.properties import fuzzing, sampled

from .simulation import counted

#: Says that these are about no backend.
WITHOUT_BACKEND = True

# Header blocks.

_REQUEST = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/x")]
_names = st.sampled_from((b"a", b"b", b"x-long" * 20, b"te", b"A"))
_values = st.sampled_from((b"", b"1", b"trailers", b"v" * 60, b"w" * 2000))
_headers = st.lists(st.tuples(_names, _values), max_size=3)
_block_steps = st.lists(
    st.one_of(
        st.tuples(st.just("encode"), _headers),
        st.tuples(st.just("encode"), _headers),
        st.tuples(st.just("resize"), st.sampled_from((0, 50, 200, 4096))),
        st.tuples(st.just("repeat"), st.integers(0, 10)),
        st.tuples(st.just("raw"), st.binary(max_size=12)),
    ),
    min_size=3, max_size=30,
)  # fmt: skip


def _updates(block: bytes) -> int:
    """How many updates of the table's size a block begins with."""
    count = 0
    while block and block[0] & 0xE0 == 0x20:
        block, count = block[decode_integer(block, 5)[1] :], count + 1
    return count


@sampled(120, 400, given(steps=_block_steps))
def test_remembering_blocks_never_changes_their_meaning(steps: list[tuple[str, Any]]) -> None:
    """A block means what a decoder that remembers nothing makes of it, whatever the dynamic table has been through."""
    blocks: HeaderBlocks[tuple[Any, ...]] = HeaderBlocks(tuple)
    plain, encoder = Decoder(65_536), Encoder()
    sent: list[bytes] = []
    for name, given_ in steps:
        if name == "resize":
            encoder.header_table_size = given_
            continue
        if name == "encode":
            block = encoder.encode(_REQUEST + given_)
        elif name == "raw":
            block = given_
        else:
            block = sent[-1 - given_ % len(sent)] if sent else b""
        sent.append(block)
        known = blocks.remembered.get(block)
        try:
            # More of them than any client has a reason for: the server is stricter there.
            if _updates(block) > 2:
                raise HPACKError
            expected: Headers = plain.decode(block, raw=True)  # type: ignore[assignment]
        except (HPACKError, IndexError, UnicodeDecodeError):
            with pytest.raises(ConnectionFault):
                blocks.meaning(block)
            return
        try:
            expected = checked_request(expected)
        except StreamFault:
            with pytest.raises(StreamFault):
                blocks.meaning(block)
            continue
        assert blocks.meaning(block) == tuple(expected)
        assert known in (None, tuple(expected))


@fuzzing(100)
@given(headers=st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300)), max_size=4))
def test_encoded_blocks_decode_to_what_they_were(headers: Headers) -> None:
    """Whatever the lengths of names and values; and the decoder's table stays empty."""
    decoder = Decoder(1 << 20)
    assert list(decoder.decode(encode(headers), raw=True)) == headers
    assert not decoder.header_table.dynamic_entries


@sampled(60, 200, given(sentence=st.text(max_size=500) | st.text(min_size=500, max_size=1500)))
def test_percent_encoding_can_be_undone(sentence: str) -> None:
    """What comes out is printable ASCII, and means the sentence, or its beginning."""
    encoded = percent_encoded(sentence)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    text = sentence.encode("utf-8", "replace")[:1024].decode("utf-8", "ignore")
    assert unquote(encoded.decode("ascii"), errors="ignore") == text


# What comes in.

_message_sizes = st.lists(st.sampled_from((0, 1, 100, 40_000, 65_530, 65_531, 80_000, 199_000)), max_size=4)
_feeds = st.lists(st.tuples(st.integers(0, 3), st.sampled_from((0, 1, 4, 5, 1_000, 16_384, 60_000))), max_size=60)


class _Sending:
    """A client's side of one `Incoming`: it sends no more than its window."""

    def __init__(self, budget: Budget, share: Share, sizes: list[int]) -> None:
        self.messages = [bytes((number + 1,)) * size for number, size in enumerate(sizes)]
        self._rest = b"".join([struct.pack(">BI", 0, len(message)) + message for message in self.messages])
        self.window = 65_535
        self.got: list[bytes] = []
        self.ended = False
        self.incoming = Incoming(budget, share, 200_000, self._credit, self._lost)

    def _credit(self, size: int) -> None:
        assert size > 0
        self.window += size

    def _lost(self, error: CallError) -> None:
        self.end()

    def end(self) -> None:
        self.ended = True
        self.incoming.close()

    def send(self, size: int) -> int:
        """Send so much of what there is, if it may; returns how much."""
        piece = self._rest[: min(size, self.window)]
        if self.ended or not piece:
            return 0
        self._rest = self._rest[len(piece) :]
        self.window -= len(piece)
        try:
            self.got += [message for message, _ in self.incoming.feed(piece, len(piece))]
        except CallError:
            self.end()
        assert self.ended or self.incoming.window == self.window
        return len(piece)

    @property
    def done(self) -> bool:
        return self.ended or not self._rest


@fuzzing(200)
@given(
    sizes=st.lists(_message_sizes, min_size=1, max_size=4),
    feeds=_feeds,
    capacity=st.sampled_from((0, 70_000, 200_000, 1_000_000)),
    closing=st.integers(0, 60),
)
def test_incoming_messages_are_whole_and_counted(
    sizes: list[list[int]], feeds: list[tuple[int, int]], capacity: int, closing: int
) -> None:
    """The budget counts what is held and promised, no more and no less; everybody who goes on gets a turn."""
    budget = Budget(2 * capacity)
    shares = [budget.share(), budget.share()]
    clients = [_Sending(budget, shares[number % 2], given_) for number, given_ in enumerate(sizes)]

    def check() -> None:
        assert budget.used == sum(counted(client.incoming) for client in clients) >= 0
        for client in clients:
            assert client.got == client.messages[: len(client.got)]
            # Between two messages nobody has a promise, which others might have to wait for.
            assert client.incoming.unfinished or not client.incoming.promised

    for number, (which, size) in enumerate(feeds):
        client = clients[which % len(clients)]
        client.send(size)
        if number == closing:
            client.end()
        check()
    while any(client.send(50_000) for client in clients):
        check()
    assert all(client.done for client in clients), "somebody waits for ever"
    for client in clients:
        assert client.ended or client.got == client.messages
        client.end()
    assert (budget.used, budget.waiting) == (0, 0)
    assert all((share.held.bytes, share.asked) == (0, 0) for share in shares)


# What goes out.

_send_steps = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3), st.sampled_from((0, 1, 100, 16_384, 20_000, 300_000))),
        st.tuples(st.just("end"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("drop"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("widen"), st.just(0), st.integers(1, 100_000)),
        st.tuples(st.just("widen_stream"), st.integers(0, 3), st.integers(1, 100_000)),
        st.tuples(st.just("initial"), st.just(0), st.sampled_from((0, 1, 30_000, 65_535, 1 << 20))),
        st.tuples(st.just("pause"), st.just(0), st.integers(0, 1)),
        st.tuples(st.just("pump"), st.just(0), st.just(0)),
    ),
    max_size=60,
)  # fmt: skip


class _Reading:
    """A client's side of a `Sender`: it gives windows, and takes apart what comes."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.backlog = Backlog(1 << 28)
        self.sender = Sender(self.out, self.backlog)
        self.streams = {number: Outgoing(number, self.sender.initial_window) for number in range(1, 5)}
        self.sent = dict.fromkeys(self.streams, b"")
        self.got = dict.fromkeys(self.streams, b"")
        self.window = 65_535
        self.windows = dict.fromkeys(self.streams, 65_535)
        self.ended: set[int] = set()

    def pump(self) -> None:
        self.sender.pump()
        data = b"".join(self.out)
        self.out.clear()
        while data:
            length, stream_id = int.from_bytes(data[:3], "big"), int.from_bytes(data[5:9], "big")
            assert stream_id not in self.ended
            if data[3] == 0:
                self.window -= length
                self.windows[stream_id] -= length
                assert self.window >= 0
                assert self.windows[stream_id] >= 0
                self.got[stream_id] += data[9 : 9 + length]
            else:
                assert self.got[stream_id] == self.sent[stream_id], "an end before its time"
                self.ended.add(stream_id)
            data = data[9 + length :]
        queued = sum(stream.queued for stream in self.streams.values())
        assert self.sender.queued == self.backlog.bytes == queued


@fuzzing(200)
@given(steps=_send_steps)
def test_sending_keeps_to_the_windows(steps: list[tuple[str, int, int]]) -> None:
    """All that is sent comes, in order, within both windows; the end after the rest; nothing once it is dropped."""
    peer, dropped, closed = _Reading(), set(), set()
    sender = peer.sender
    for name, which, size in steps:
        stream_id = which + 1
        stream = peer.streams[stream_id]
        if name == "send" and stream_id not in dropped | closed:
            data = (b"%d." % size) * (size // len(b"%d." % size) + 1)
            sender.send(stream, data[:size])
            peer.sent[stream_id] += data[:size]
        elif name == "end" and stream_id not in dropped | closed:
            closed.add(stream_id)
            sender.end(stream, b"\0\0\0\1\5" + struct.pack(">I", stream_id))
        elif name == "drop":
            dropped.add(stream_id)
            sender.drop(stream)
        elif name == "widen":
            peer.window += size
            sender.widen(size)
        elif name == "widen_stream":
            peer.windows[stream_id] += size
            sender.widen_stream(stream, size)
        elif name == "initial":
            for number in peer.windows:
                peer.windows[number] += size - sender.initial_window
            sender.change_initial_window(size, list(peer.streams.values()))
        elif name == "pause":
            sender.paused = bool(size)
        peer.pump()
    sender.paused = False
    sender.widen(1 << 28)
    peer.window += 1 << 28
    for number, stream in peer.streams.items():
        sender.widen_stream(stream, 1 << 28)
        peer.windows[number] += 1 << 28
    while sender.can_send:
        peer.pump()
    for number in set(peer.streams) - dropped:
        assert peer.got[number] == peer.sent[number]
        assert (number in peer.ended) == (number in closed)
