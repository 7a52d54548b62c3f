"""What was counted is given back, however its wait ends, and those who waited beside it go on."""

from __future__ import annotations

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support import MIB, PATIENCE, World, logged
from ..test_statuses import failures
from .bystander import Attacked, eventually
from .floods import enveloped_start, half_open
from .peer import Peer, enveloped, request_fields
from .test_hostile_memory import GET, WIDE, announce, answers_at_once, ask

INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
DEADLINE_EXCEEDED = "4"


@pytest.fixture
def transport() -> str:
    """This one alone."""
    return "native"


def gets(peer: Peer, key: str, number: int) -> tuple[list[int], list[bytes], list[bytes]]:
    """The streams, HEADERS and DATA of so many Gets, whose header block the server remembers from two others."""
    assert {peer.answer(stream).status for stream in ask(peer, "none", 2)} == {"0"}
    message = enveloped(kv.GetRequest(key=key).SerializeToString())
    streams = [peer.next_stream() for _ in range(number)]
    headers = [peer.headers(stream, request_fields(GET)).serialize() for stream in streams]
    data = [DataFrame(stream, message, flags=["END_STREAM"]).serialize() for stream in streams]
    return streams, headers, data


@pytest.mark.local_backend
def test_calls_that_are_parked(world: World) -> None:
    """Calls of one chunk that are too many are parked and counted, until they are reset or their connection goes."""
    answers_at_once(world, 100_000)
    world.fill(["k"], "v" * 20_000)
    native = world.server.native
    with Peer(world.address, {INITIAL_WINDOW: 16_384}) as peer:
        streams, headers, data = gets(peer, "k", 200)
        peer.send(*headers, *data)
        peer.sync()
        (connection,) = native._connections
        parked = connection.control.streams.parked
        before = len(parked), native.budget.used
        assert before[0] > 150
        assert before[1] >= before[0] * len(kv.GetRequest(key="k").SerializeToString())
        assert native.backlog.bytes < 200_000
        peer.send(*[RstStreamFrame(stream, error_code=8) for stream in streams[100:]])
        peer.sync()
        assert 0 < len(parked) <= before[0] - 100
        assert 0 < native.budget.used < before[1]
    eventually(lambda: native.connections == 0)
    assert (native.budget.used, native.backlog.bytes) == (0, 0)


def test_whole_messages_whose_time_runs_out(attacked: Attacked) -> None:
    """A message whose stream is not ended is counted until its call's deadline, and no longer."""
    native = attacked.native
    message = enveloped(kv.SetRequest(key="k", value="v" * 10_000).SerializeToString())
    with Peer(attacked.address) as peer:
        opened = [half_open(peer) for _ in range(50)]
        for headers in opened:
            peer.send(headers, DataFrame(headers.stream_id, message))
        peer.sync()
        assert native.budget.used >= 50 * 10_000
        peer.send(RstStreamFrame(opened[0].stream_id, error_code=8))
        peer.sync()
        assert 49 * 10_000 <= native.budget.used < 50 * 10_000
        attacked.clock.jump(PATIENCE + 1)
        assert {peer.answer(headers.stream_id).status for headers in opened[1:]} == {DEADLINE_EXCEEDED}
        assert native.budget.used == 0
    assert "k" not in attacked.world.stored()


def test_a_transport_that_is_read_in_the_end(attacked: Attacked) -> None:
    """Bytes that wait in the transport are counted until the client reads them; all that it asked for comes."""
    attacked.world.fill(["k"], "v" * 16_000)
    native = attacked.native
    with Peer(attacked.address, {INITIAL_WINDOW: WIDE}, receive_buffer=4096) as peer:
        peer.send(WindowUpdateFrame(0, WIDE - 65_535))
        streams, headers, data = gets(peer, "k", 900)
        peer.send(*[frame for pair in zip(headers, data) for frame in pair])
        eventually(lambda: native.backlog.bytes > MIB)
        assert {peer.answer(stream).status for stream in streams} == {"0"}
        eventually(lambda: native.backlog.bytes == 0)
        assert native.connections == 1
        assert peer.call("Get", key="k").found


def test_others_when_a_waiting_connection_is_lost(attacked: Attacked) -> None:
    """What a lost connection had is promised to its own streams and then to others, who are told; nothing is logged."""
    native = attacked.native
    limit = native.message_limit
    with attacked.clock.standing_still(), logged() as events, Peer(attacked.address) as other:
        for _ in range(6):
            announce(other, limit)
        other.sync()
        with Peer(attacked.address) as lost:
            announce(lost, limit)
            lost.sync()
            assert native.budget.waiting == 0
            # From here on there is too little, and the one that has asked for less is the next.
            announce(lost, limit)
            lost.sync()
            message = (
                kv.SetRequest(key="k", value="v" * MIB).SerializeToString() + b"\x7a\x80\x80\x20" + bytes(MIB // 2)
            )
            headers = half_open(other)
            stream = headers.stream_id
            other.send(headers, enveloped_start(stream, len(message)))
            other.sync()
            assert native.budget.waiting == 2
        other.read(lambda frame: isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream)
        pieces = [message[start : start + 16_000] for start in range(0, len(message), 16_000)]
        other.send(*[DataFrame(stream, piece) for piece in pieces], DataFrame(stream, flags=["END_STREAM"]))
        assert other.answer(stream).status == "0"
        assert native.budget.waiting == 0
    assert failures(events) == []
    attacked.restored()


def test_a_look_that_fails_once(attacked: Attacked, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an error in one look deadlines are still kept, and the server stops as ever."""
    native = attacked.native
    look, looks = native.budget.look, []

    def broken(now: float) -> None:
        looks.append(now)
        if len(looks) == 1:
            raise ZeroDivisionError
        look(now)

    with logged() as events, Peer(attacked.address) as peer:
        monkeypatch.setattr(native.budget, "look", broken)
        eventually(lambda: looks)
        stream = announce(peer, 1000)
        peer.sync()
        attacked.clock.jump(PATIENCE + 1)
        assert peer.answer(stream).status == DEADLINE_EXCEEDED
    assert len(failures(events)) == 1
    attacked.world.server.stop(PATIENCE)
    assert native.connections == 0
    assert not native._looking.running
