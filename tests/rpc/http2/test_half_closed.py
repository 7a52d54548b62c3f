"""Clients that end their side of the connection once they have said all, and want the answers."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from contextlib import suppress
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


class _Tls:
    """What `Peer` needs of a socket, over TLS that is made in memory, so that each half can end by itself."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw = raw
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        context.set_alpn_protocols(["h2"])
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out)
        self._drive(self._tls.do_handshake)

    def _drive(self, step: Callable[[], Any]) -> Any:
        while True:
            try:
                done, whole = step(), True
            except ssl.SSLWantReadError:
                done, whole = None, False
            if pending := self._out.read():
                self.raw.sendall(pending)
            if whole:
                return done
            self._take()

    def _take(self) -> None:
        data = self.raw.recv(65_536)
        if data:
            self._in.write(data)
        else:
            self._in.write_eof()

    def sendall(self, data: bytes) -> None:
        """See socket."""
        self._tls.write(data)
        self.raw.sendall(self._out.read())

    def recv(self, size: int) -> bytes:
        """See socket; empty once the server has sent its close_notify."""
        try:
            data: bytes = self._drive(lambda: self._tls.read(size))
        except ssl.SSLZeroReturnError:
            return b""
        return data

    def close_notify(self) -> None:
        """Send TLS's alert that we send no more; TCP stays as it is."""
        with suppress(ssl.SSLWantReadError):
            self._tls.unwrap()
        self.raw.sendall(self._out.read())

    def close(self) -> None:
        """See socket."""
        self.raw.close()


class _TlsPeer(Peer):
    """A peer over TLS; its end of input is TLS's close_notify, TCP's end, or both."""

    def __init__(self, address: str) -> None:
        super().__init__(address, greet=False)
        self.tls = _Tls(self.socket)
        self.socket = self.tls  # type: ignore[assignment]
        self.greet()

    def end(self, how: str) -> None:
        """End our side."""
        if "alert" in how:
            self.tls.close_notify()
        if "TCP" in how:
            self.tls.raw.shutdown(socket.SHUT_WR)


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


@pytest.mark.parametrize("how", ["alert", "TCP", "alert and TCP"])
def test_over_tls(tmp_path_factory: pytest.TempPathFactory, how: str) -> None:
    """The same, whether TLS has ended, or TCP below it, or both; also what waits for the storage."""
    pair = Pair(tmp_path_factory.mktemp("tls"))
    world = World(transport="native", certificate=pair.certificate, private_key=pair.private_key)
    world.start()
    try:
        for waits in (False, True):
            with _TlsPeer(world.address) as peer:
                hold = world.hold("write") if waits else None
                message = CLASSES["Set"][0](key="k", value="v").SerializeToString()
                streams = [peer.start(f"{SERVICE}/Set", message) for _ in range(3)]
                if hold is not None:
                    hold.reached()
                peer.end(how)
                if hold is not None:
                    hold.release()
                peer.read_all()
                assert [peer.answers[stream].status for stream in streams] == ["0"] * 3
    finally:
        world.stop()


def test_who_watches(attacked: Attacked) -> None:
    """A stream that would last for ever ends at once: most who end their side have gone, and slots are few."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        watch = half_open(peer, WATCH)
        peer.send(watch, DataFrame(watch.stream_id, enveloped(b""), flags=["END_STREAM"]))
        peer.read(lambda frame: isinstance(frame, DataFrame))
        _end(peer)
        peer.read_all()
        assert peer.answers[watch.stream_id].status == "3"
        assert attacked.native.slots.watch.open == 0


def test_before_anything_was_said(attacked: Attacked) -> None:
    """Nothing is waited for."""
    cases: list[Callable[[Peer], None]] = [lambda peer: None, lambda peer: peer.send(b"PRI * HT")]
    for begin in cases:
        with attacked.unharmed(), Peer(attacked.address, greet=False) as peer:
            begin(peer)
            _end(peer)
            peer.read_all()
            assert peer.ended
