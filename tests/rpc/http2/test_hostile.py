"""Peers that mean harm by what they send: each is stopped, and a good client beside it notices nothing."""

from __future__ import annotations

import itertools
from typing import Callable

import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from hyperframe.frame import (
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    WindowUpdateFrame,
)

from kvtwisted.rpc.http2 import lifetime
from kvtwisted.rpc.http2.connection import Connection
from kvtwisted.rpc.http2.responder import MAX_STREAMS

from ..support import CLASSES
from .bystander import Attacked
from .floods import FLOODS, SET, WATCH, Frames, half_open, whole_calls_reset
from .peer import PREFACE, Peer, enveloped, raw

PROTOCOL_ERROR, STREAM_CLOSED, REFUSED_STREAM, COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x1, 0x5, 0x7, 0x9, 0xB


def send_flood(peer: Peer, flood: Callable[[Peer], Frames]) -> None:
    """Send as much of a flood as no server should bear."""
    frames = flood(peer)
    for _ in range(25):
        peer.send(*itertools.islice(frames, 400))


@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection(attacked: Attacked, flood: Callable[[Peer], Frames]) -> None:
    """What costs the peer nothing and leads nowhere is borne for a while; then the connection is closed."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        send_flood(peer, flood)
        assert peer.goaway().error_code == ENHANCE_YOUR_CALM
    assert attacked.native.cut_off == {**dict.fromkeys(lifetime.REASONS, 0), "flood": 1}


NONSENSE = {
    "HTTP/1.1": (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", PROTOCOL_ERROR),
    "TLS": (bytes.fromhex("16030100c8010000c403037f") + b"\x5a" * 200, PROTOCOL_ERROR),
    "noise": (bytes(range(256)) * 100, PROTOCOL_ERROR),
    "a preface that goes wrong": (PREFACE[:20] + b"!" * 100, PROTOCOL_ERROR),
    "no SETTINGS": (PREFACE + PingFrame(opaque_data=b"attacked").serialize(), PROTOCOL_ERROR),
    "an even stream": (PREFACE + raw(4, 0, 0).serialize() + raw(1, 5, 2, b"\x83\x86\x84").serialize(), PROTOCOL_ERROR),
    "a stream that decreases": (
        PREFACE + raw(4, 0, 0).serialize() + b"".join([raw(1, 5, number, b"\x83").serialize() for number in (9, 7)]),
        STREAM_CLOSED,
    ),
    "updates of the table's size": (
        PREFACE + raw(4, 0, 0).serialize() + raw(1, 5, 1, b"\x20" * 16_000).serialize(),
        COMPRESSION_ERROR,
    ),
    "a number without an end": (
        PREFACE + raw(4, 0, 0).serialize() + raw(1, 5, 1, b"\xff" * 16_000).serialize(),
        COMPRESSION_ERROR,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_ends_its_connection(attacked: Attacked, name: str) -> None:
    """What is not HTTP/2, or not any more, is told so and closed."""
    sent, code = NONSENSE[name]
    with attacked.unharmed(), Peer(attacked.address, greet=False) as peer:
        peer.send(sent)
        assert peer.goaway().error_code == code
    assert attacked.native.cut_off == {**dict.fromkeys(lifetime.REASONS, 0), "protocol_error": 1}


def test_streams_are_bounded(attacked: Attacked) -> None:
    """A thousand calls may be open; the next is refused, and one that ends makes room for one."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        calls = [half_open(peer) for _ in range(1001)]
        peer.send(*calls)
        assert peer.answer(calls[1000].stream_id).reset == REFUSED_STREAM
        assert attacked.native.calls <= 1001
        peer.send(RstStreamFrame(1, error_code=8))
        assert peer.call("Get", key="none").value == ""


def test_reset_calls_that_still_run_are_bounded(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks, who resets its calls has no more of them running than who waits for their answers."""
    world = attacked.world
    monkeypatch.setattr(Connection, "look", lambda connection, now: None)
    write = world.hold("write")
    with Peer(attacked.address) as peer:
        peer.send(*itertools.islice(whole_calls_reset(peer), 3 * 1300))
        write.reached()
        peer.sync()
        assert world.admission.in_flight <= MAX_STREAMS
        assert attacked.native.calls == 0
        write.release()
    attacked.good_calls(0)
    attacked.restored()


def test_calls_after_the_own_goodbye(attacked: Attacked) -> None:
    """Whoever says GOAWAY and goes on is served all the same."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        peer.send(GoAwayFrame(last_stream_id=0, error_code=0))
        assert peer.call("Set", key="k", value="v", ttl=0).success


def test_a_call_costs_no_tokens(attacked: Attacked) -> None:
    """A client that pings and gives windows back with each call, for ever, is no attacker."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        for _ in range(700):
            peer.send(WindowUpdateFrame(0, window_increment=1), PingFrame(opaque_data=b"whatever"))
            peer.send(PriorityFrame(1001), half := half_open(peer), RstStreamFrame(half.stream_id, error_code=8))
            peer.call("Get", key="none")
        peer.sync()


def test_large_answers_pay_for_small_windows(attacked: Attacked) -> None:
    """A client that gives each frame back at once, for stream and connection, may do so for ever."""
    attacked.world.client.call("Set", key="large", value="v" * 1_000_000, ttl=0)
    with attacked.unharmed(), Peer(attacked.address) as peer:
        for _ in range(40):
            message = CLASSES["Get"][0](key="large").SerializeToString()
            stream_id = peer.start("/kv.v1.KeyValueService/Get", message)
            while not (stream_id in peer.answers and peer.answers[stream_id].ended):
                frame = peer.read(lambda frame: frame.stream_id > 0)
                if isinstance(frame, DataFrame) and frame.data:
                    size = len(frame.data)
                    peer.send(WindowUpdateFrame(0, window_increment=size))
                    peer.send(WindowUpdateFrame(stream_id, window_increment=size))
            assert peer.answers[stream_id].status == "0"


# What never comes.

SILENCE = {
    "nothing": b"",
    "half a preface": PREFACE[:10],
    "a preface alone": PREFACE,
    "half of SETTINGS": PREFACE + raw(4, 0, 0, b"\0" * 600).serialize()[:300],
}


@pytest.mark.parametrize("name", SILENCE)
def test_the_handshake_has_a_deadline(attacked: Attacked, name: str) -> None:
    """Who does not get to the first SETTINGS is cut off."""
    with attacked.unharmed(), Peer(attacked.address, greet=False) as peer:
        peer.send(SILENCE[name])
        peer.read(lambda frame: isinstance(frame, WindowUpdateFrame))
        attacked.clock.jump(9)
        assert attacked.native.connections >= 1
        attacked.clock.jump(2)
        assert peer.read_or_end(lambda frame: True) is None
    assert attacked.native.cut_off["handshake"] == 1


def test_idle_connections_are_closed(attacked: Attacked) -> None:
    """PINGs do not keep a connection open that makes no calls; neither does a header block that never ends."""
    with attacked.unharmed(), Peer(attacked.address) as pinging, Peer(attacked.address) as hanging:
        pinging.sync()
        hanging.answers_pings = False
        hanging.send(HeadersFrame(1, b"\x83\x86", flags=[]))
        attacked.clock.jump(601)
        assert pinging.read(lambda frame: isinstance(frame, GoAwayFrame))
        attacked.clock.jump(2)
        assert pinging.goaway().error_code == 0
        assert hanging.goaway().error_code == 0


def test_half_open_calls_have_a_deadline(attacked: Attacked) -> None:
    """HEADERS without DATA, on as many streams as there may be: unary calls and streams that ask for nothing."""
    with attacked.unharmed():
        peers = [Peer(attacked.address) for _ in range(4)]
        calls = [[half_open(peer, path) for path in (SET, WATCH) * 490] for peer in peers]
        for peer, frames in zip(peers, calls):
            peer.send(*frames)
            peer.sync()
        assert attacked.native.calls >= 4 * 980
        attacked.clock.jump(31)
        for peer, frames in zip(peers, calls):
            assert {peer.answer(frame.stream_id).status for frame in frames} == {"4"}
            peer.socket.close()


def test_a_peer_that_is_gone_without_a_word_is_noticed(attacked: Attacked) -> None:
    """While a call runs, silence is answered by a PING; a peer that does not answer it is cut off."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        peer.answers_pings = False
        watch = half_open(peer, WATCH)
        peer.send(watch, DataFrame(watch.stream_id, enveloped(HealthCheckRequest().SerializeToString())))
        peer.read(lambda frame: isinstance(frame, DataFrame))
        attacked.clock.jump(61)
        peer.read(lambda frame: isinstance(frame, PingFrame))
        attacked.clock.jump(21)
        assert peer.read_or_end(lambda frame: False) is None
    assert attacked.native.cut_off["silent"] == 1
