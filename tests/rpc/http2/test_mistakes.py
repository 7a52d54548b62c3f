"""Honest mistakes: each ends its own call, with a word of what is wrong, and no other one, however many they are."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame

from kvtwisted.rpc.http2.flood_guard import TOKENS, TOKENS_PER_CALL, tokens_for_headers
from kvtwisted.rpc.http2.hpack_decoder import HpackDecoder

from ..support import CLASSES, World
from ..test_pipeline import get, set_
from .bystander import Attacked
from .floods import SET, half_open, whole_calls_reset
from .peer import Peer, enveloped, request_fields
from .test_hostile import ENHANCE_YOUR_CALM

GET, NOTHING = "/kv.v1.KeyValueService/Get", "/kv.v1.KeyValueService/Nothing"
NONE = CLASSES["Get"][0](key="none").SerializeToString()
PROTOCOL_ERROR, CANCEL = 1, 8
#: What SETTINGS and an acknowledgement take.
_TOKENS_TO_GREET = 20
#: More calls than any bucket would bear, if they took from it.
MANY = TOKENS + 500


def _fields(*more: tuple[str, str], path: str = GET, content_type: str = "application/grpc") -> Any:
    """The headers of a call, of another type if need be."""
    return [(name, content_type if name == "content-type" else value) for name, value in request_fields(path, *more)]


@pytest.mark.parametrize("value", ["abc ", " abc", "\tabc \t", " ", "a c"])
def test_blanks_around_metadata(attacked: Attacked, value: str) -> None:
    """They are no part of the value, as gRPC allows; the call is served."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        for _ in range(300):
            assert peer.answer(peer.start(GET, NONE, ("x-note", value))).status == "0"
        assert not [frame for frame in peer.frames if isinstance(frame, (GoAwayFrame, RstStreamFrame))]


MISTAKES: dict[str, tuple[Any, str, int | None]] = {
    "a name with capitals": (_fields(("X-Note", "y")), "3", PROTOCOL_ERROR),
    "a name with a space": (_fields(("x note", "y")), "3", PROTOCOL_ERROR),
    "a value with a line end": (_fields(("x-note", "y\nz")), "3", PROTOCOL_ERROR),
    "a header of HTTP/1": (_fields(("connection", "close")), "3", PROTOCOL_ERROR),
    "bad base64": (_fields(("x-trace-bin", "!!!")), "0", None),
    "an unknown method": (_fields(path=NOTHING), "12", None),
    "a deadline without a unit": (_fields(("grpc-timeout", "10")), "3", None),
    "a deadline in the past": (_fields(("grpc-timeout", "0n")), "4", None),
    "an unknown compression": (_fields(("grpc-encoding", "snappy")), "12", None),
    "another subtype": (_fields(content_type="application/grpc+json"), "12", None),
    "metadata that is too large": (_fields(*((f"x-{number}", "y" * 980) for number in range(16))), "8", None),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_end_their_own_call(attacked: Attacked, mistake: str) -> None:
    """The call has a status that says what is wrong; calls beside it are served, for ever."""
    fields, status, reset = MISTAKES[mistake]
    number = 100 if mistake.startswith("metadata") else MANY
    with attacked.unharmed(), Peer(attacked.address) as peer:
        # One that was let in: of those who are unknown large headers are charged.
        assert peer.answer(peer.start(GET, NONE)).status == "0"
        for first in range(0, number, 100):
            streams = []
            frames: list[Frame] = []
            for _ in range(100):
                streams.append(peer.next_stream())
                frames.append(peer.headers(streams[-1], fields))
                frames.append(DataFrame(streams[-1], enveloped(NONE), flags=["END_STREAM"]))
            peer.send(*frames)
            peer.sync()
            assert {peer.answer(stream).status for stream in streams} == {status}
            if reset is not None:
                assert {peer.answers[stream].reset for stream in streams} == {reset}
            assert first or all(status == "0" or peer.answers[stream].headers["grpc-message"] for stream in streams)
        assert peer.answer(peer.start(GET, NONE)).status == "0"


def test_content_types() -> None:
    """415 is for what does not begin with application/grpc."""
    world = World(transport="native")
    world.start()
    try:
        with Peer(world.address) as peer:
            for content_type, http, grpc_status in (
                ("application/grpc", "200", "0"),
                ("application/grpc+proto", "200", "0"),
                ("Application/GRPC+Proto", "200", "0"),
                ("application/grpc;charset=utf-8", "200", "0"),
                ("application/grpc+proto ; x=y", "200", "0"),
                ("application/grpc+json", "200", "12"),
                ("application/grpc+", "200", "12"),
                ("application/grpc-web+proto", "200", "12"),
                ("application/json", "415", None),
                ("text/plain", "415", None),
                ("", "415", None),
            ):
                stream = peer.next_stream()
                data = DataFrame(stream, enveloped(NONE), flags=["END_STREAM"])
                peer.send(peer.headers(stream, _fields(content_type=content_type)), data)
                answer = peer.answer(stream)
                assert (answer.headers[":status"], answer.status) == (http, grpc_status), content_type
    finally:
        world.stop()


def test_calls_that_are_given_up(attacked: Attacked) -> None:
    """A client whose deadlines pass resets its calls, each of them; a pipeline beside them is not cut."""
    world = attacked.world
    with Peer(attacked.address) as peer:
        pipeline = peer.next_stream()
        peer.send(peer.headers(pipeline, request_fields("/kv.v1.KeyValueService/Pipeline")))
        peer.send(DataFrame(pipeline, enveloped(set_(1, "p", "v").SerializeToString())))
        message = enveloped(CLASSES["Set"][0](key="k", value="v").SerializeToString())
        for _ in range(MANY // 100):
            hold = world.hold("write")
            calls = [half_open(peer, SET) for _ in range(100)]
            for call in calls:
                peer.send(call, DataFrame(call.stream_id, message, flags=["END_STREAM"]))
            hold.reached()
            peer.sync()
            # As grpcio does when the time is over.
            peer.send(*[RstStreamFrame(call.stream_id, error_code=CANCEL) for call in calls])
            peer.sync()
            hold.release()
        peer.send(DataFrame(pipeline, enveloped(get(2, "p").SerializeToString()), flags=["END_STREAM"]))
        answer = peer.answer(pipeline)
        assert (len(answer.messages), answer.status) == (2, "0")
        assert not [frame for frame in peer.frames if isinstance(frame, GoAwayFrame)]
    attacked.restored()


def test_resets_that_cross_an_answer(attacked: Attacked) -> None:
    """A call that is given up just when its answer goes out: as many as there were calls, and no more."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        streams = []
        for _ in range(MANY):
            streams.append(peer.start(GET, NONE))
            if len(streams) % 100 == 0:
                peer.answer(streams[-1])
        for first in range(0, MANY, 100):
            peer.send(*[RstStreamFrame(stream, error_code=CANCEL) for stream in streams[first : first + 100]])
            peer.sync()
        assert peer.call("Get", key="none").value == ""
        peer.send(*[RstStreamFrame(streams[0], error_code=CANCEL)] * 2 * MANY)
        assert peer.goaway().error_code == ENHANCE_YOUR_CALM


def test_calls_under_way_end_when_a_flood_ends_their_connection(attacked: Attacked) -> None:
    """Those of a proxy's other clients, say: they are answered before the connection is closed."""
    world = attacked.world
    hold = world.hold("write")
    with Peer(attacked.address) as peer:
        written = [peer.start(SET, CLASSES["Set"][0](key=f"k{n}", value="v").SerializeToString()) for n in range(20)]
        pipeline = peer.next_stream()
        peer.send(peer.headers(pipeline, request_fields("/kv.v1.KeyValueService/Pipeline")))
        peer.send(DataFrame(pipeline, enveloped(set_(1, "p", "v").SerializeToString())))
        hold.reached()
        peer.send(*[PingFrame(opaque_data=b"attacked")] * 3 * TOKENS)
        peer.read(lambda frame: isinstance(frame, GoAwayFrame))
        hold.release()
        goodbye = peer.goaway()
        assert goodbye.error_code == ENHANCE_YOUR_CALM
        assert goodbye.last_stream_id >= written[-1]
        assert {peer.answers[stream].status for stream in written} == {"0"}
        assert (len(peer.answers[pipeline].messages), peer.answers[pipeline].status) == (1, "14")
    attacked.restored()


def test_many_small_operations_at_once(attacked: Attacked) -> None:
    """A pipeline may have a whole window of them before any is answered."""
    operations = [DataFrame(1, enveloped(set_(number, "c", "1").SerializeToString())) for number in range(MANY)]
    with attacked.unharmed(), Peer(attacked.address) as peer:
        assert peer.next_stream() == 1
        peer.send(peer.headers(1, request_fields("/kv.v1.KeyValueService/Pipeline")), *operations)
        peer.send(DataFrame(1, b"", flags=["END_STREAM"]))
        answer = peer.answer(1)
        assert (len(answer.messages), answer.status) == (MANY, "0")


def test_refused_calls_earn_nothing(attacked: Attacked) -> None:
    """Who floods does not get on by making calls that are refused in between."""
    refused = CLASSES["Set"][0](key="k").SerializeToString() + b"\xff"  # cut short

    def flood(peer: Peer) -> Any:
        while True:
            headers = half_open(peer)
            yield headers
            yield DataFrame(headers.stream_id, enveloped(refused), flags=["END_STREAM"])
            yield from [PingFrame(opaque_data=b"attacked")] * 3

    with attacked.unharmed(), Peer(attacked.address) as peer:
        frames = flood(peer)
        for _ in range(20):
            peer.send(*[next(frames) for _ in range(500)])
        assert peer.goaway().error_code == ENHANCE_YOUR_CALM


def test_reset_at_once_is_no_mistake(attacked: Attacked) -> None:
    """A call and its end in one go is what an attacker sends."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        frames = whole_calls_reset(peer)
        for _ in range(25):
            peer.send(*[next(frames) for _ in range(399)])
        assert peer.goaway().error_code == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("value", ["y" * 900, "\\" * 350], ids=["large", "slow"])
@pytest.mark.parametrize("known", [True, False])
def test_header_blocks_that_lead_nowhere(attacked: Attacked, known: bool, value: str) -> None:
    """They are charged by the work on them, and much more to those of whom no call was let in."""
    # Of an encoder that has sent nothing before: each block takes the same work.
    block = Encoder().encode(request_fields(NOTHING, *((f"x-{number}", value) for number in range(14))))
    decoder = HpackDecoder(1 << 16)
    decoder.decode(block)
    left = TOKENS - _TOKENS_TO_GREET + (TOKENS_PER_CALL if known else 0)
    borne = left // tokens_for_headers(decoder.work, known=known)
    assert borne < (250 if known else 10)
    with attacked.unharmed(), attacked.clock.standing_still(), Peer(attacked.address) as peer:
        if known:
            assert peer.answer(peer.start(GET, NONE)).status == "0"
        for _ in range(borne + 1):
            peer.send(HeadersFrame(peer.next_stream(), block, flags=["END_HEADERS", "END_STREAM"]))
        assert peer.goaway().error_code == ENHANCE_YOUR_CALM
        assert [answer.status for answer in peer.answers.values()].count("12") == borne


@pytest.mark.parametrize(("known", "size"), [(True, 32_768), (False, 16_384)])
def test_blocks_are_smaller_before_a_call_was_let_in(attacked: Attacked, known: bool, size: int) -> None:
    """What keeps to the announced limit of a header list is never larger than an unknown peer's block may be."""
    for extra, ends in ((0, False), (1, True)):
        with attacked.unharmed(), Peer(attacked.address) as peer:
            if known:
                assert peer.answer(peer.start(GET, NONE)).status == "0"
            start = peer.headers(peer.next_stream(), request_fields(GET)).data
            value = size + extra - len(start) - len(b"\0\1x\x7f\x81\x80\x01")
            rest = value - 127
            length = b"\x7f" + bytes((rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14))
            block = start + b"\0\1x" + length + b"y" * value
            assert len(block) == size + extra
            stream = 3 if known else 1
            peer.send(HeadersFrame(stream, block[:16_000], flags=["END_STREAM"]))
            for at in range(16_000, len(block), 16_000):
                last = at + 16_000 >= len(block)
                peer.send(ContinuationFrame(stream, block[at : at + 16_000], flags=["END_HEADERS"] * last))
            if ends:
                assert peer.goaway().error_code == ENHANCE_YOUR_CALM
            else:
                assert peer.answer(stream).status == "8"
