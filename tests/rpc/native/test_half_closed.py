"""Clients that end their side of the connection once they have said all, and want the answers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any, Callable

import pytest
from hyperframe.frame import DataFrame, SettingsFrame, WindowUpdateFrame

from tests.support.certificates import Pair

from ..support import CLASSES, MIB, World, wait_until
from ..test_pipeline import get, set_
from .bystander import Attacked
from .floods import WATCH, half_open
from .peer import Peer, enveloped, request_fields

SERVICE = "/kv.v1.KeyValueService"
INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE


class _TlsPeer(Peer):
    """A peer over TLS; its end of input is TLS's alert, or TCP's end without one."""

    def __init__(self, address: str, alert: bool) -> None:
        super().__init__(address, greet=False)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self._raw = self.socket.dup()
        self._alert = alert
        self.socket = context.wrap_socket(self.socket)
        self.greet()

    def end(self) -> None:
        """End our side."""
        if self._alert:
            # `unwrap` waits for the server's alert, and gives up what comes before it.
            self._raw.shutdown(socket.SHUT_WR)
        self._raw.shutdown(socket.SHUT_WR)


def _end(peer: Peer) -> None:
    peer.socket.shutdown(socket.SHUT_WR)


@pytest.fixture(params=["native", "native, by the pool"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    """A server, also with storage that may block."""
    started = World(transport=request.param)
    started.start()
    yield started
    started.stop()


REQUESTS: dict[str, dict[str, Any]] = {
    "Set": {"key": "a", "value": "v" * 10_000},
    "Get": {"key": "none"},
    "Delete": {"key": "a"},
    "MSet": {"key_values": {"b": "w"}},
    "MGet": {"keys": ["b"]},
    "MDelete": {"keys": ["b"]},
    "ScanKeys": {},
    "ScanKeyValues": {"limit": 3},
    "GetConfig": {},
    "UpdateConfig": {"config": "{}"},
}


@pytest.mark.parametrize("method", REQUESTS)
def test_each_method_is_answered(world: World, method: str) -> None:
    """Many calls and the end, in one go: all are answered, then the server closes."""
    message = CLASSES[method][0](**REQUESTS[method]).SerializeToString()
    with Peer(world.address) as peer:
        streams = [peer.start(f"{SERVICE}/{method}", message) for _ in range(20)]
        _end(peer)
        peer.read_all()
        assert [peer.answers[stream].status for stream in streams] == ["0"] * 20
    wait_until(lambda: world.server.native.connections == 1 or not world.server.native.calls)  # type: ignore[union-attr]


def test_writes_that_take_their_time(world: World) -> None:
    """What waits for the storage when the client's side ends is done and answered."""
    hold = world.hold("write")
    with Peer(world.address) as peer:
        message = CLASSES["Set"][0](key="slow", value="v").SerializeToString()
        stream = peer.start(f"{SERVICE}/Set", message)
        hold.reached()
        _end(peer)
        hold.release()
        peer.read_all()
        assert peer.answers[stream].status == "0"
    assert world.stored()["slow"] == "v"


def test_large_answers(world: World) -> None:
    """As far as the windows go that the client gave before; what does not fit is never let out, and not kept."""
    world.fill(["large"], "v" * MIB)
    native = world.server.native  # type: ignore[union-attr]
    message = CLASSES["Get"][0](key="large").SerializeToString()
    for window, whole in ((2 * MIB, True), (65_535, False)):
        with Peer(world.address, {INITIAL_WINDOW: window}) as peer:
            peer.send(*([] if not whole else [WindowUpdateFrame(0, window_increment=3 * MIB)]))
            stream = peer.start(f"{SERVICE}/Get", message)
            _end(peer)
            peer.read_all()
            assert (peer.answers[stream].status == "0") is whole
    wait_until(lambda: native.backlog.bytes == 0)


def test_a_pipeline(world: World) -> None:
    """Its operations are answered, whether the stream was ended before the connection was or not."""
    operations = [set_(number, f"k{number}", "v") for number in range(50)] + [get(50, "k7")]
    data = b"".join([enveloped(operation.SerializeToString()) for operation in operations])
    for flags, status in ((["END_STREAM"], "0"), ([], "3")):
        with Peer(world.address) as peer:
            stream = peer.next_stream()
            peer.send(peer.headers(stream, request_fields(f"{SERVICE}/Pipeline")), DataFrame(stream, data, flags=flags))
            _end(peer)
            peer.read_all()
            answer = peer.answers[stream]
            assert len(answer.messages) == 51
            assert answer.status == status


def test_what_is_not_whole(world: World) -> None:
    """A call without its end is not carried out; it is told so, and so is who watches."""
    message = CLASSES["Set"][0](key="half", value="v").SerializeToString()
    with Peer(world.address) as peer:
        half, watch = half_open(peer), half_open(peer, WATCH)
        peer.send(half, DataFrame(half.stream_id, enveloped(message)))
        peer.send(watch, DataFrame(watch.stream_id, enveloped(b""), flags=["END_STREAM"]))
        open_watch = half_open(peer, WATCH)
        peer.send(open_watch, DataFrame(open_watch.stream_id, enveloped(b"")))
        peer.sync()
        _end(peer)
        peer.answer(half.stream_id)
        assert peer.answers[half.stream_id].status == "3"
        assert peer.answer(open_watch.stream_id).status == "3"
    assert "half" not in world.stored()


@pytest.mark.parametrize("alert", [True, False], ids=["alert", "none"])
def test_over_tls(tmp_path_factory: pytest.TempPathFactory, alert: bool) -> None:
    """The same, whether TLS ended before TCP or not."""
    pair = Pair(tmp_path_factory.mktemp("tls"))
    world = World(transport="native", certificate=pair.certificate, private_key=pair.private_key)
    world.start()
    try:
        with _TlsPeer(world.address, alert) as peer:
            stream = peer.start(f"{SERVICE}/Set", CLASSES["Set"][0](key="k", value="v").SerializeToString())
            peer.end()
            peer.read_all()
            assert peer.answers[stream].status == "0"
    finally:
        world.stop()


def test_who_watches(attacked: Attacked) -> None:
    """A stream that would last for ever ends at once: most who end their side have gone, and it has a place of few."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        watch = half_open(peer, WATCH)
        peer.send(watch, DataFrame(watch.stream_id, enveloped(b""), flags=["END_STREAM"]))
        peer.read(lambda frame: isinstance(frame, DataFrame))
        _end(peer)
        peer.read_all()
        assert peer.answers[watch.stream_id].status == "3"
        assert attacked.native.places.watch.open == 0


def test_before_anything_was_said(attacked: Attacked) -> None:
    """Nothing is waited for."""
    cases: list[Callable[[Peer], None]] = [lambda peer: None, lambda peer: peer.send(b"PRI * HT")]
    for begin in cases:
        with attacked.unharmed(), Peer(attacked.address, greet=False) as peer:
            begin(peer)
            _end(peer)
            peer.read_all()
            assert peer.ended
