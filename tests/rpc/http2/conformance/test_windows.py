"""Flow control, towards the client and towards the server."""

from __future__ import annotations

from typing import Callable

import pytest
from hyperframe.frame import (
    DataFrame,
    Frame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from kvtwisted.rpc.generated.keyvalue_pb2 import GetResponse
from kvtwisted.rpc.http2 import lifetime

from ...support import MIB, World
from ..peer import Peer, enveloped
from .deeds import (
    CANCEL,
    FLOW_CONTROL_ERROR,
    GET,
    LARGEST_WINDOW,
    SET,
    STREAM_CLOSED,
    WINDOW,
    body,
    goes_on,
    opened,
    set_request,
)

# Flow control towards the client.


def get_large(peer: Peer) -> int:
    """A call that is answered with 200,000 bytes."""
    return peer.start(GET, b"\x0a\x05large")


def received(peer: Peer, stream_id: int) -> int:
    """Bytes of DATA that have come on a stream."""
    return len(peer.answers[stream_id].data) if stream_id in peer.answers else 0


def await_bytes(peer: Peer, stream_id: int, size: int) -> None:
    """Return once so many bytes of DATA came; fails if there are more."""
    while received(peer, stream_id) < size:
        peer.read(lambda frame: isinstance(frame, DataFrame))
    peer.sync()
    assert received(peer, stream_id) == size


def open_connection_window(peer: Peer) -> None:
    """Leave the connection's window out of the question."""
    peer.send(WindowUpdateFrame(0, 1 << 30))


LARGE = len(enveloped(GetResponse(value="v" * 200_000, found=True).SerializeToString()))


def is_whole(peer: Peer, stream_id: int) -> None:
    """The call was answered with all of the 200,000 bytes."""
    answer = peer.answer(stream_id)
    assert (answer.status, len(answer.data), answer.reset) == ("0", LARGE, None)
    assert GetResponse.FromString(answer.messages[0]).value == "v" * 200_000


def test_a_streams_window(peer: Peer) -> None:
    """The server sends what the window allows, not a byte more, and goes on with WINDOW_UPDATE."""
    open_connection_window(peer)
    stream_id = get_large(peer)
    await_bytes(peer, stream_id, WINDOW)
    peer.send(WindowUpdateFrame(stream_id, 1))
    await_bytes(peer, stream_id, WINDOW + 1)
    peer.send(WindowUpdateFrame(stream_id, 50_000))
    await_bytes(peer, stream_id, WINDOW + 50_001)
    goes_on(peer)
    peer.send(WindowUpdateFrame(stream_id, 1 << 30))
    is_whole(peer, stream_id)


def test_the_connections_window(peer: Peer) -> None:
    """All streams together get no more than it; a status needs none."""
    streams = [get_large(peer) for _ in range(3)]
    for stream_id in streams:
        peer.send(WindowUpdateFrame(stream_id, 1 << 30))
    while sum(received(peer, stream_id) for stream_id in streams) < WINDOW:
        peer.read(lambda frame: isinstance(frame, DataFrame))
    # More than once: the server may have waited for the kernel to take what it sent before.
    for _ in range(3):
        peer.sync()
    assert sum(received(peer, stream_id) for stream_id in streams) == WINDOW
    assert peer.answer(peer.start("/no.Such/Method")).status == "12"
    open_connection_window(peer)
    for stream_id in streams:
        is_whole(peer, stream_id)


@pytest.mark.parametrize("initial", [0, 1, 5, 100])
def test_small_initial_windows(world: World, initial: int) -> None:
    """Small answers wait for their window too, byte by byte if they must."""
    with Peer(world.address, {4: initial}) as peer:
        stream_id = peer.start(GET, b"\x0a\x01a")
        size = len(enveloped(GetResponse(value="1", found=True).SerializeToString()))
        peer.read(lambda frame: isinstance(frame, HeadersFrame))
        peer.sync()
        for allowed in range(initial, size):
            await_bytes(peer, stream_id, allowed)
            assert not peer.answers[stream_id].ended
            peer.send(WindowUpdateFrame(stream_id, 1))
        answer = peer.answer(stream_id)
        assert (answer.status, len(answer.data)) == ("0", size)
        peer.send(SettingsFrame(settings={4: WINDOW}))
        goes_on(peer)


def test_a_window_below_zero(peer: Peer) -> None:
    """A smaller initial window takes away from streams that have used theirs; they wait until they are above 0."""
    open_connection_window(peer)
    stream_id = get_large(peer)
    await_bytes(peer, stream_id, WINDOW)
    peer.send(SettingsFrame(settings={4: 1_000}))
    peer.send(WindowUpdateFrame(stream_id, WINDOW - 1_000))
    await_bytes(peer, stream_id, WINDOW)
    peer.send(WindowUpdateFrame(stream_id, 10))
    await_bytes(peer, stream_id, WINDOW + 10)
    goes_on(peer)
    peer.send(SettingsFrame(settings={4: 0}), SettingsFrame(settings={4: 2_000}))
    await_bytes(peer, stream_id, WINDOW + 1_010)
    peer.send(SettingsFrame(settings={4: 1 << 30}))
    is_whole(peer, stream_id)


def test_windows_that_grow_before_the_answer(peer: Peer) -> None:
    """Credit that comes while the request is not whole counts."""
    open_connection_window(peer)
    stream_id = opened(peer, GET)
    peer.send(
        WindowUpdateFrame(stream_id, LARGE - WINDOW),
        DataFrame(stream_id, b"\0\0\0\0\x07\x0a\x05large", flags=["END_STREAM"]),
    )
    is_whole(peer, stream_id)


def test_smaller_frames_than_windows(world: World) -> None:
    """No frame is larger than the client takes."""
    for largest in (16_384, 20_000):
        with Peer(world.address, {4: 1 << 30, 5: largest}) as peer:
            open_connection_window(peer)
            is_whole(peer, get_large(peer))
            sizes = [len(frame.data) for frame in peer.frames if isinstance(frame, DataFrame)]
            assert max(sizes) == largest


def test_a_reset_while_data_waits(peer: Peer) -> None:
    """Nothing more comes on a stream that the client has reset, and others get what is left of the window."""
    first = get_large(peer)
    await_bytes(peer, first, WINDOW)
    second = get_large(peer)
    peer.send(RstStreamFrame(first, CANCEL), WindowUpdateFrame(second, 1 << 30), WindowUpdateFrame(0, LARGE))
    is_whole(peer, second)
    assert received(peer, first) == WINDOW


# Flow control towards the server.


class Honest:
    """Sends DATA within the windows that the server gives."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._connection = WINDOW
        self._streams: dict[int, int] = {}
        self._seen = 0

    def send(self, stream_id: int, data: bytes, *, pad_length: int | None = None) -> None:
        """Send all of it, in frames of 16,000 bytes or what the windows allow, and end the stream."""
        while data:
            while (allowed := min(self._connection, self._window(stream_id))) <= 0:
                self.peer.read(lambda frame: isinstance(frame, WindowUpdateFrame))
                self._look()
            padding = 0 if pad_length is None or allowed <= pad_length + 1 else pad_length + 1
            size = min(len(data), 16_000, allowed - padding)
            self._connection -= size + padding
            self._streams[stream_id] -= size + padding
            flags = ["PADDED"] * (padding > 0) + ["END_STREAM"] * (size == len(data))
            self.peer.send(DataFrame(stream_id, data[:size], pad_length=max(padding - 1, 0), flags=flags))
            data = data[size:]
            self._look()

    def _window(self, stream_id: int) -> int:
        return self._streams.setdefault(stream_id, WINDOW)

    def _look(self) -> None:
        for frame in self.peer.frames[self._seen :]:
            if isinstance(frame, WindowUpdateFrame):
                if frame.stream_id == 0:
                    self._connection += frame.window_increment
                else:
                    self._streams[frame.stream_id] = self._window(frame.stream_id) + frame.window_increment
        self._seen = len(self.peer.frames)


@pytest.mark.parametrize("pad_length", [None, 0, 255])
def test_large_requests(world: World, peer: Peer, pad_length: int | None) -> None:
    """A client that keeps to its windows gets a message of 1 MiB through, padded or not, and many one after another."""
    honest = Honest(peer)
    for number in range(20 if pad_length is None else 2):
        stream_id = opened(peer)
        value = chr(ord("a") + number) * MIB
        honest.send(stream_id, enveloped(set_request(value)), pad_length=pad_length)
        assert peer.answer(stream_id).status == "0"
        assert world.stored()["c"] == value
        assert world.server.native.budget.used == 0
    world.store.delete(b"c")


def test_padding_is_given_back(peer: Peer) -> None:
    """It counts against the windows, and comes back though no message grows by it."""
    stream_id, sent = opened(peer), 0
    padding = DataFrame(stream_id, b"", pad_length=255, flags=["PADDED"])
    while sent < 3 * WINDOW:
        peer.send(*[padding] * 120)
        sent += 120 * 256
        peer.sync()
        credit = sum(f.window_increment for f in peer.frames if isinstance(f, WindowUpdateFrame) and f.stream_id)
        assert sent <= WINDOW + credit
        assert peer.answers.get(stream_id) is None or peer.answers[stream_id].reset is None
        goes_on(peer)
    peer.send(body(stream_id))
    assert peer.answer(stream_id).status == "0"


def test_credit_of_a_call_that_has_ended(peer: Peer) -> None:
    """DATA that comes too late for its call is still given back to the connection's window."""
    sent = 0
    while not any(isinstance(f, WindowUpdateFrame) and f.stream_id == 0 for f in peer.frames[2:]):
        assert sent < 8 * MIB
        stream_id = opened(peer, "/no.Such/Method")
        peer.send(*[DataFrame(stream_id, bytes(16_000))] * 4)
        sent += 64_000
        peer.sync()
    goes_on(peer)


# While the answer is made.


def test_a_window_that_grows_too_far_before_the_answer(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window of a call that runs counts as well, when SETTINGS raises all windows."""
    monkeypatch.setattr(lifetime, "LAST_CALLS_SECONDS", 0.1)  # the server waits so long for the call before it closes
    world = make_world()
    hold = world.hold("write")
    with Peer(world.address) as peer:
        stream_id = peer.start(SET, set_request())
        hold.reached()
        peer.send(WindowUpdateFrame(stream_id, LARGEST_WINDOW - WINDOW), SettingsFrame(settings={4: WINDOW + 1}))
        assert peer.goaway().error_code == FLOW_CONTROL_ERROR
    hold.release()
    assert world.client.call("Get", key="a").error == ""


@pytest.mark.parametrize("frame", [DataFrame(1, b"data"), HeadersFrame(1, b"\x00\x01x\x01y", flags=["END_HEADERS"])])
def test_frames_of_a_call_that_runs(make_world: Callable[..., World], frame: Frame) -> None:
    """A call whose request was whole takes no more of it; its stream is reset, and the connection goes on."""
    world = make_world()
    hold = world.hold("write")
    with Peer(world.address) as peer:
        stream_id = peer.start(SET, set_request())
        hold.reached()
        peer.send(frame)
        assert peer.answer(stream_id).reset == STREAM_CLOSED
        hold.release()
        assert peer.call("Set", key="d", value="4").success
        assert len(peer.answers[stream_id].data) == 0
