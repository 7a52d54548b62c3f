"""Pipelines on the native transport: what a client that sends much or reads nothing costs, and how answers travel."""

from __future__ import annotations

import struct
from typing import Callable

import pytest
from hyperframe.frame import DataFrame, RstStreamFrame, WindowUpdateFrame

from kvtwisted.rpc.errors import Code
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2 import pipelines
from kvtwisted.rpc.http2.stream import Stream
from kvtwisted.sessions import door, session

from ..support import World
from ..test_pipeline import delete, get, set_
from .peer import Peer, enveloped, request_fields
from .simulation import Link, simulation
from .wire import Request

PLENTY = 1 << 30


@pytest.fixture
def transport() -> str:
    """This one alone."""
    return "native"


def begin(peer: Peer) -> int:
    """Open a pipeline; returns its stream."""
    stream_id = peer.next_stream()
    peer.send(peer.headers(stream_id, request_fields("/kv.v1.KeyValueService/Pipeline")))
    return stream_id


def opened(link: Link) -> tuple[int, bytes]:
    """A pipeline in the simulation: its stream, and the frames that open it."""
    stream_id, frames = link.begin(Request("/kv.v1.KeyValueService/Pipeline", (), end="nothing"))
    link.unsent.clear()
    return stream_id, b"".join(frames)


def packed(*operations: kv.PipelineRequest) -> bytes:
    """Operations as the bytes of DATA."""
    return b"".join([enveloped(operation.SerializeToString()) for operation in operations])


def served(world: World) -> Stream:
    """The server's side of the one stream that there is."""
    (connection,) = world.server.native._connections
    (stream,) = connection.streams.responder.streams.values()
    return stream


def finish(peer: Peer, stream_id: int) -> list[kv.PipelineResponse]:
    """End the pipeline with all windows open; all its answers."""
    peer.send(
        WindowUpdateFrame(0, PLENTY), WindowUpdateFrame(stream_id, PLENTY), DataFrame(stream_id, flags=["END_STREAM"])
    )
    answer = peer.answer(stream_id)
    assert answer.status == "0"
    return [kv.PipelineResponse.FromString(message) for message in answer.messages]


@pytest.mark.local_backend
def test_small_answers_share_frames(world: World) -> None:
    """What is answered in one go is sent in one frame, not one for each answer."""
    with Peer(world.address) as peer:
        world.fill(["k"], "v")
        stream_id = begin(peer)
        peer.send(DataFrame(stream_id, packed(*(get(number, "k") for number in range(200)))))
        assert [answer.id for answer in finish(peer, stream_id)] == list(range(200))
        assert len([frame for frame in peer.frames if isinstance(frame, DataFrame)]) == 1


@pytest.mark.local_backend
def test_answers_of_a_group_of_writes_share_a_frame(world: World) -> None:
    """Writes that are done together are answered together."""
    hold = world.hold("write")
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        peer.send(DataFrame(stream_id, packed(*(set_(number, f"k{number}", "v") for number in range(50)))))
        hold.reached()
        hold.release()
        assert [answer.id for answer in finish(peer, stream_id)] == list(range(50))
        assert len([frame for frame in peer.frames if isinstance(frame, DataFrame)]) == 1
    assert len(world.stored()) == 50


@pytest.mark.local_backend
def test_operations_that_there_is_no_room_for(
    make_world: Callable[..., World], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of a chunk is answered once, whenever it is found out that there is no room; there is later."""
    monkeypatch.setattr(door, "GATHERED_SETS", 10)
    world = make_world(max_in_flight=4)
    with Peer(world.address) as peer:
        world.fill(["k"], "v")
        stream_id = begin(peer)
        operations = [set_(number, f"k{number}", "v") if number % 3 else get(number, "k") for number in range(100)]
        peer.send(DataFrame(stream_id, packed(*operations)))
        peer.sync()
        peer.send(DataFrame(stream_id, packed(set_(100, "last", "v"), get(101, "last"))))
        answers = {answer.id: answer for answer in finish(peer, stream_id)}
    assert sorted(answers) == list(range(102))
    full = [answer for answer in answers.values() if answer.code == Code.RESOURCE_EXHAUSTED]
    assert all("limits.max_in_flight is 4" in answer.message for answer in full)
    assert len(full) >= 50
    assert answers[101].get.found
    done = {f"k{number}" for number in range(100) if answers[number].set.success}
    assert set(world.stored()) == done | {"k", "last"}
    assert world.admission.in_flight == 0


@pytest.mark.local_backend
def test_sets_behind_those_that_there_is_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """When a Set is refused, the next one on its key begins at once, while others gather: none of them is lost."""
    monkeypatch.setattr(session, "GATHERED_SETS", 4)
    with simulation(in_flight=2) as made:
        link = made.connect()
        link.greet()
        pipes = [opened(link) for _ in range(6)]
        link.send(b"".join([frames for _, frames in pipes]))
        parts = [
            DataFrame(stream, packed(*(set_(number, f"{stream}/{number % 3}", "v") for number in range(12))))
            for stream, _ in pipes
        ]
        link.send(b"".join([part.serialize() for part in parts]))
        made.reactor.settle()
        for stream, _ in pipes:
            messages = link.observer.streams[stream].messages
            ids = [kv.PipelineResponse.FromString(message).id for message in messages]
            assert sorted(ids) == list(range(12))


def test_gets_in_a_row_without_room(world: World) -> None:
    """One look at the room is enough for them; what it says holds for each."""
    world.fill(["k"], "v")
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        world.admission.close()
        peer.send(DataFrame(stream_id, packed(*(get(number, "k") for number in range(5)))))
        answers = finish(peer, stream_id)
    assert [(answer.id, answer.code) for answer in answers] == [(number, Code.UNAVAILABLE) for number in range(5)]


@pytest.mark.local_backend
def test_gets_around_what_takes_the_room(make_world: Callable[..., World]) -> None:
    """Those before it are answered, and those behind it are refused: it is looked for room again."""
    world = make_world(max_in_flight=1)
    world.fill(["k"], "v")
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        operations = [get(1, "k"), get(2, "k"), delete(3, "d"), get(4, "k"), get(5, "k")]
        peer.send(DataFrame(stream_id, packed(*operations)))
        answers = finish(peer, stream_id)
    codes = {answer.id: answer.code for answer in answers}
    assert codes == {1: 0, 2: 0, 3: 0, 4: Code.RESOURCE_EXHAUSTED, 5: Code.RESOURCE_EXHAUSTED}


@pytest.mark.local_backend
def test_no_room_again_and_again_in_a_chunk(make_world: Callable[..., World]) -> None:
    """Each look for room finds Sets that there is none for: hundreds of times in a chunk, and each is answered once."""
    world = make_world(max_in_flight=4)
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        pairs = [(set_(2 * number, f"k{number}", "v"), delete(2 * number + 1, f"d{number}")) for number in range(600)]
        data = packed(*(operation for pair in pairs for operation in pair))
        peer.send(*(DataFrame(stream_id, data[start : start + 16_000]) for start in range(0, len(data), 16_000)))
        answers = finish(peer, stream_id)
    assert sorted(answer.id for answer in answers) == list(range(1200))
    assert {answer.code for answer in answers} == {0, Code.RESOURCE_EXHAUSTED}
    assert world.admission.in_flight == 0


def test_an_operation_waits_for_its_key_alone(world: World) -> None:
    """Those on other keys are answered while a write is under way; those on its key come after it, in order."""
    world.fill(["other"], "v")
    hold = world.hold("write")
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        peer.send(DataFrame(stream_id, packed(set_(1, "k", "1"))))
        hold.reached()
        later = [get(2, "k"), get(3, "other"), set_(4, "k", ""), delete(5, "k"), get(6, "k"), set_(7, "k", "7")]
        peer.send(DataFrame(stream_id, packed(*later, get(8, "k"))))
        peer.read(lambda frame: isinstance(frame, DataFrame))
        hold.release()
        answers = finish(peer, stream_id)
    assert [answer.id for answer in answers] == [3, 1, 2, 4, 5, 6, 7, 8]
    assert [answers[place].get.value for place in (0, 2, 5, 7)] == ["v", "1", "", "7"]
    assert not answers[5].get.found
    assert world.stored()["k"] == "7"


@pytest.mark.local_backend
def test_a_client_that_reads_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once so many bytes of answers wait, no more operations are begun until they are read; then all are answered."""
    monkeypatch.setattr(pipelines, "QUEUED_BYTES", 100_000)
    with Peer(world.address) as peer:
        world.fill(["k"], "v" * 10_000)
        stream_id = begin(peer)
        peer.send(DataFrame(stream_id, packed(*(get(number, "k") for number in range(300)))))
        peer.sync()
        assert 0 < served(world).queued <= 100_000 + 10_100
        assert served(world).incoming.paused
        with Peer(world.address) as other:
            assert other.call("Get", key="k").found
        answers = finish(peer, stream_id)
        assert [answer.id for answer in answers] == list(range(300))
        assert {answer.get.value for answer in answers} == {"v" * 10_000}


@pytest.mark.local_backend
def test_nobody_reads_what_waited_for_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets that waited for a Set go on waiting once so many bytes of answers do; then all are answered, in order."""
    monkeypatch.setattr(pipelines, "QUEUED_BYTES", 200_000)
    with simulation() as made:
        link = made.connect()
        link.greet()
        stream_id, frames = opened(link)
        operations = [set_(0, "k", "v" * 40_000), *(get(number, "k") for number in range(1, 101))]
        operations += [set_(101, "k", "new"), get(102, "k"), set_(103, "other", "v")]
        data = packed(*operations)
        parts = [DataFrame(stream_id, data[start : start + 16_000]) for start in range(0, len(data), 16_000)]
        link.send(frames + b"".join([part.serialize() for part in parts]))
        made.reactor.settle()
        (stream,) = link.connection.streams.responder.streams.values()
        assert 100_000 < stream.queued <= 200_000 + 2 * 40_100
        link.send(DataFrame(stream_id, flags=["END_STREAM"]).serialize())
        made.reactor.settle()
        assert not link.observer.streams[stream_id].ended
        link.send(WindowUpdateFrame(0, PLENTY).serialize() + WindowUpdateFrame(stream_id, PLENTY).serialize())
        made.reactor.settle()
        assert link.observer.streams[stream_id].status == "0"
        answers = [kv.PipelineResponse.FromString(message) for message in link.observer.streams[stream_id].messages]
    on_key = [answer for answer in answers if answer.id != 103]
    assert [answer.id for answer in on_key] == list(range(103))
    assert {answer.get.value for answer in on_key[1:101]} == {"v" * 40_000}
    assert on_key[102].get.value == "new"
    assert len(answers) == 104


@pytest.mark.local_backend
def test_answers_that_went_out_take_no_memory() -> None:
    """Large Gets that were done together are apart: what is sent as a whole is kept until its last byte."""
    with simulation(slow=True) as made:
        for number in range(5):
            made.store.set(b"%d" % number, b"v" * 100_000)
        link = made.connect()
        link.greet()
        stream_id, frames = opened(link)
        gets = packed(*(get(number, f"{number}") for number in range(5)))
        link.send(frames + DataFrame(stream_id, gets).serialize())
        made.reactor.settle()
        (stream,) = link.connection.streams.responder.streams.values()
        kept = [len(piece.obj if isinstance(piece, memoryview) else piece) for piece in stream.queue]
        assert stream.queued > 400_000
        assert max(kept) < 101_000


def test_more_operations_than_may_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client gets no more window while so many of its operations wait; it gets some when they are done."""
    monkeypatch.setattr(pipelines, "MAX_UNANSWERED", 10)
    hold = world.hold("write")
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        data = packed(*(set_(number, f"k{number}", "v" * 900) for number in range(50)))
        half = len(data) // 2
        peer.send(DataFrame(stream_id, data[:16_000]), DataFrame(stream_id, data[16_000:half]))
        peer.send(DataFrame(stream_id, data[half : half + 16_000]), DataFrame(stream_id, data[half + 16_000 :]))
        hold.reached()
        peer.sync()
        assert served(world).incoming.paused
        (pipeline,) = world.server.native._pipelines._open
        assert len(pipeline._busy) == 10
        assert not [frame for frame in peer.frames if isinstance(frame, WindowUpdateFrame) and frame.stream_id]
        hold.release()
        peer.read(lambda frame: isinstance(frame, WindowUpdateFrame) and frame.stream_id == stream_id)
        assert sorted(answer.id for answer in finish(peer, stream_id)) == list(range(50))
        assert len(world.stored()) == 50
        assert world.admission.in_flight == 0


@pytest.mark.local_backend
def test_a_full_pipeline_that_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """When its Sets are done nothing is asked for any more for the message that had begun to come."""
    monkeypatch.setattr(pipelines, "MAX_UNANSWERED", 10)
    with simulation() as made:
        link = made.connect()
        link.greet()
        stream_id, frames = opened(link)
        data = packed(*(set_(number, f"k{number}", "v") for number in range(20))) + struct.pack(">BI", 0, 90_000)
        link.send(frames + DataFrame(stream_id, data).serialize())
        (stream,) = link.connection.streams.responder.streams.values()
        assert stream.incoming.paused
        link.send(RstStreamFrame(stream_id, 8).serialize())
        made.reactor.settle()
        assert made.server.budget.used == 0
        assert made.store.get(b"k9") is not None, "what had begun goes on"


@pytest.mark.parametrize("cut", [1, 4, 5, 6, 17, 40])
def test_messages_in_pieces(world: World, cut: int) -> None:
    """Where DATA is cut means nothing."""
    data = packed(set_(1, "a", "1"), get(2, "a"), set_(3, "b", "x" * 100))
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        for start in range(0, len(data), cut):
            peer.send(DataFrame(stream_id, data[start : start + cut]))
        answers = {answer.id: answer for answer in finish(peer, stream_id)}
        assert answers[2].get.value == "1"
        assert sorted(answers) == [1, 2, 3]


def test_the_end_in_the_middle_of_a_message(world: World) -> None:
    """What was whole is done, and the rest is an error."""
    with Peer(world.address) as peer:
        stream_id = begin(peer)
        peer.send(DataFrame(stream_id, packed(set_(1, "a", "1")) + struct.pack(">BI", 0, 9), flags=["END_STREAM"]))
        assert peer.answer(stream_id).status == "3"
        assert peer.call("Get", key="a").value == "1"
