"""Everything that waits is counted, whichever way it came in, and one failure ends nothing else."""

from __future__ import annotations

import gzip
import struct
from contextlib import ExitStack

import pytest
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2 import pipelines, streaming
from tests.support.reactors import on

from ..support import MIB, World, logged
from ..test_pipeline import get, set_
from ..test_statuses import failures
from .bystander import Attacked, eventually
from .floods import half_open
from .peer import Peer, enveloped, raw, request_fields
from .test_hostile_memory import GET, WIDE, announce, answers_at_once, ask
from .test_pipelines import begin, finish, packed

SET = "/kv.v1.KeyValueService/Set"
CHECK = "/grpc.health.v1.Health/Check"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@pytest.fixture
def transport() -> str:
    """This one alone."""
    return "native"


def request(key: str) -> bytes:
    """An encoded Get."""
    return kv.GetRequest(key=key).SerializeToString()


@pytest.mark.local_backend
@pytest.mark.parametrize("headers_first", [True, False])
def test_many_large_answers_in_one_chunk(world: World, headers_first: bool) -> None:
    """Calls beyond the limit of waiting answers wait, also when all HEADERS come before all DATA."""
    answers_at_once(world, 100_000)
    world.fill(["k"], "v" * 20_000)
    with Peer(world.address, {SettingsFrame.INITIAL_WINDOW_SIZE: 16_384}) as peer:
        # From here on the header block is remembered.
        first = [peer.answer(stream) for stream in ask(peer, "none", 2)]
        assert [answer.status for answer in first] == ["0", "0"]
        streams = [peer.next_stream() for _ in range(200)]
        headers = [peer.headers(stream, request_fields(GET)) for stream in streams]
        data = [DataFrame(stream, enveloped(request("k")), flags=["END_STREAM"]) for stream in streams]
        in_turn = [frame for pair in zip(headers, data) for frame in pair]
        peer.send(*([*headers, *data] if headers_first else in_turn))
        peer.sync()
        assert world.server.native.backlog.bytes < 200_000
        peer.send(
            SettingsFrame(settings={SettingsFrame.INITIAL_WINDOW_SIZE: WIDE}), WindowUpdateFrame(0, WIDE - 65_535)
        )
        assert {peer.answer(stream).status for stream in streams} == {"0"}


def test_compressed_operations_wait_as_they_came(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of operations on one busy key only so many bytes are decompressed; then they are done in their order."""
    monkeypatch.setattr(pipelines, "REQUEST_BYTES", 200_000)
    hold = world.hold("write")
    with Peer(world.address) as peer:
        stream = begin(peer)
        operations = [set_(number, "k", f"{number}:" + "v" * 100_000) for number in range(40)]
        compressed = [gzip.compress(operation.SerializeToString()) for operation in operations]
        body = b"".join([struct.pack(">BI", 1, len(message)) + message for message in compressed])
        peer.send(*[DataFrame(stream, body[start : start + 16_000]) for start in range(0, len(body), 16_000)])
        hold.reached()
        peer.sync()
        (pipeline,) = world.server.native._pipelines._open
        assert pipeline._bytes < 400_000
        assert len(pipeline._waiting) >= 36
        hold.release()
        answers = finish(peer, stream)
        assert [answer.id for answer in answers] == list(range(40))
        assert all(answer.set.success for answer in answers)
    assert world.stored()["k"][:3] == "39:"


@pytest.mark.local_backend
def test_pipelines_that_read_nothing(world: World) -> None:
    """Many pipelines of one connection stay near its limit of waiting answers, and are all answered in the end."""
    answers_at_once(world, 100_000)
    world.fill(["k"], "v" * 20_000)
    with Peer(world.address, {SettingsFrame.INITIAL_WINDOW_SIZE: 0}) as peer:
        streams = [begin(peer) for _ in range(20)]
        for stream in streams:
            peer.send(DataFrame(stream, packed(*(get(number, "k") for number in range(20)))))
        peer.sync()
        # Each may have one answer of its own beside what was there.
        assert world.server.native.backlog.bytes < 100_000 + 20 * 21_000
        peer.send(WindowUpdateFrame(0, WIDE - 65_535))
        for stream in streams:
            peer.send(WindowUpdateFrame(stream, MIB), DataFrame(stream, flags=["END_STREAM"]))
        for stream in streams:
            answer = peer.answer(stream)
            assert (answer.status, len(answer.messages)) == ("0", 20)


def test_whole_messages_without_an_end(attacked: Attacked) -> None:
    """A message that has come is counted until its stream is ended, which may be never."""
    message = enveloped(kv.SetRequest(key="k", value="v" * 10_000).SerializeToString())
    with attacked.unharmed(), Peer(attacked.address) as peer:
        streams = [half_open(peer) for _ in range(50)]
        for headers in streams:
            peer.send(headers, DataFrame(headers.stream_id, message))
        peer.sync()
        assert attacked.native.budget.used >= 50 * 10_000
        peer.send(DataFrame(streams[0].stream_id, flags=["END_STREAM"]))
        assert peer.answer(streams[0].stream_id).status == "0"


def test_bytes_in_a_full_transport(attacked: Attacked) -> None:
    """What a client does not read is counted also when it has left for the transport, and given back when it goes."""
    attacked.world.fill(["k"], "v" * 16_000)
    with attacked.unharmed(), ExitStack() as stack:
        for _ in range(3):
            wide = {SettingsFrame.INITIAL_WINDOW_SIZE: WIDE}
            peer = stack.enter_context(Peer(attacked.address, wide, receive_buffer=4096))
            peer.send(WindowUpdateFrame(0, WIDE - 65_535))
            for stream in ask(peer, "k", 2):
                peer.answer(stream)
            streams = [peer.next_stream() for _ in range(800)]
            peer.send(
                *[
                    frame
                    for stream in streams
                    for frame in (
                        peer.headers(stream, request_fields(GET)),
                        DataFrame(stream, enveloped(request("k")), flags=["END_STREAM"]),
                    )
                ]
            )
        eventually(lambda: attacked.native.backlog.bytes > 10 * MIB)


def test_a_connection_lost_while_it_waits(world: World) -> None:
    """It is written to no more, though promises that it frees are given to its own streams first; nothing is logged."""
    native = world.server.native
    with logged() as events:
        with Peer(world.address) as peer:
            for _ in range(20):
                announce(peer, native.message_limit)
            peer.sync()
            assert native.budget.waiting
        eventually(lambda: native.connections == 0)
        assert world.client.call("Set", key="a", value="v" * MIB).success
    assert failures(events) == []
    assert native.budget.used == 0


def test_a_failing_look(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error in what is looked at from time to time is logged, and the next look comes all the same."""
    native = world.server.native
    looks: list[float] = []

    def broken(now: float) -> None:
        looks.append(now)
        raise ZeroDivisionError

    with logged() as events:
        monkeypatch.setattr(native.budget, "look", broken)
        eventually(lambda: len(looks) > 1)
    assert on(world.server.reactor, lambda: native._looking.running)
    assert any(event.get("log_failure") for event in events)


def test_checks_share_a_read(world: World) -> None:
    """However many ask while the storage does not answer, one thread waits for it; the next read is for them all.

    Those who wait count like answers that are being made.
    """
    backlog = world.server.native.backlog
    with Peer(world.address) as peer:
        hold = world.hold("get")
        before = world.recorder.health_checks
        first = peer.start(CHECK)
        hold.reached()
        others = [peer.start(CHECK) for _ in range(50)]
        peer.sync()
        assert backlog.bytes == 51 * streaming._WAITING_BYTES
        hold.release()
        assert {peer.answer(stream).status for stream in (first, *others)} == {"0"}
        assert world.recorder.health_checks - before == 2
        assert backlog.bytes == 0


def test_a_check_has_its_own_deadline(world: World) -> None:
    """While the storage does not answer, who has little time is told NOT_SERVING in it; who has cancelled, nothing."""

    def answered(stream: int) -> HealthCheckResponse:
        answer = peer.answer(stream)
        assert answer.status == "0"
        return HealthCheckResponse.FromString(*answer.messages)

    with Peer(world.address) as peer:
        hold = world.hold("get")
        patient, cancelled = peer.start(CHECK), peer.start(CHECK)
        hold.reached()
        hasty = peer.start(CHECK, b"", ("grpc-timeout", "1m"))
        assert answered(hasty).status == HealthCheckResponse.NOT_SERVING
        peer.send(RstStreamFrame(cancelled, error_code=8))
        hold.release()
        assert answered(patient).status == HealthCheckResponse.SERVING
        peer.sync()


def test_a_frame_that_is_too_large_on_the_short_way(world: World) -> None:
    """Whether the header block is known or not, DATA over the largest frame ends the connection."""
    for known in (False, True):
        with Peer(world.address) as peer:
            for _ in range(3 if known else 0):
                assert peer.answer(peer.start(SET, kv.SetRequest(key="k", value="v").SerializeToString())).status == "0"
            stream = peer.next_stream()
            message = kv.SetRequest(key="large", value="v" * 30_000).SerializeToString()
            peer.send(peer.headers(stream, request_fields(SET)), raw(0, 1, stream, enveloped(message)))
            goodbye = peer.read(lambda frame: isinstance(frame, GoAwayFrame))
            assert goodbye.error_code == 6  # FRAME_SIZE_ERROR
    assert "large" not in world.stored()


def test_many_reflection_requests_at_once(world: World) -> None:
    """A client that asks much in one go and reads the answers gets them all."""
    asked = ServerReflectionRequest(file_containing_symbol="kv.v1.KeyValueService").SerializeToString()
    with Peer(world.address) as peer:
        stream = peer.next_stream()
        peer.send(peer.headers(stream, request_fields(REFLECTION)), DataFrame(stream, enveloped(asked) * 200))
        peer.sync()
        peer.send(WindowUpdateFrame(0, WIDE - 65_535), WindowUpdateFrame(stream, WIDE - 65_535))
        peer.send(DataFrame(stream, flags=["END_STREAM"]))
        answer = peer.answer(stream)
        assert answer.status == "0"
        responses = [ServerReflectionResponse.FromString(message) for message in answer.messages]
        assert [bool(one.file_descriptor_response.file_descriptor_proto) for one in responses] == [True] * 200


@pytest.mark.local_backend
def test_a_panic_in_a_job_that_many_share(world: World) -> None:
    """What is no Exception, such as a panic of the binding, fails all of them; and none of them counts any longer."""

    class Panic(BaseException):
        """As PyO3 raises it."""

    def panic() -> None:
        raise Panic("broken")

    world.engine.slow = True
    world.engine.before("get", panic)
    with logged(), Peer(world.address) as peer:
        streams = [peer.next_stream() for _ in range(5)]
        fields, message = request_fields(GET), enveloped(request("k"))
        frames = [
            (peer.headers(stream, fields), DataFrame(stream, message, flags=["END_STREAM"])) for stream in streams
        ]
        peer.send(*[frame for pair in frames for frame in pair])
        statuses = [peer.answer(stream).status for stream in streams]
        # It hit the first of those of one turn, which may be one or all.
        assert statuses[0] == "13"
        assert set(statuses) <= {"13", "0"}
        assert peer.call("Get", key="none").value == ""
    assert (world.admission.in_flight, world.admission.bytes) == (0, 0)
