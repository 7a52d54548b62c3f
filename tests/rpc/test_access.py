"""Tokens, as every transport must look at them."""

from __future__ import annotations

import queue
import time
from collections.abc import Sequence
from typing import Any, Callable

import grpc
import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from hyperframe.frame import DataFrame

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2.server import NativeGrpcServer
from kvtwisted.rpc.methods import METHODS, SERVICES
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import NOT_VALID, Authority
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.policy import NO_TOKEN
from tests.sessions.support import grant, made
from tests.support.reactors import on

from .http2.bystander import eventually
from .http2.peer import Peer, enveloped, request_fields
from .support import CLASSES, PATIENCE, World, wait_until
from .test_pipeline import get, set_

PIPELINE = f"/{SERVICES[0]}/Pipeline"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
HEALTH = "/grpc.health.v1.Health/"

ROOT, _ROOT = made("root")
APP, _APP = made("app", grant("get,set,scan", b"a/"))
WRONG = made("app")[0]


class Guarded:
    """A world whose gate is closed."""

    def __init__(self, make_world: Callable[..., World], **options: Any) -> None:
        self.authority = Authority()
        self.authority.replace([_ROOT, _APP])
        self.counted: list[str] = []
        self.world = make_world(make_gate=self._close, **options)
        self.channel = self.world.channel

    def _close(self, door: Door, admission: Admission) -> Gate:
        self.gate = Gate(door, admission, self.authority, Audit(lambda line: None), count=self.counted.append)
        return self.gate

    def replace(self, *entries: TokenEntry) -> None:
        """Go by these tokens, and look."""
        self.authority.replace(entries)
        on(self.world.reactor, self.gate.look)

    def start(self, method: str, *tokens: bytes, message: Message | None = None, **fields: Any) -> Any:
        """The future of a call with these values of the header."""
        request, response = CLASSES[method]
        stub = self.channel.unary_unary(
            f"/{SERVICES[0]}/{method}", request.SerializeToString, response.FromString
        )  # fmt: skip
        return stub.future(message or request(**fields), timeout=PATIENCE, metadata=metadata(*tokens))

    def call(self, method: str, *tokens: bytes, **fields: Any) -> Any:
        """The response."""
        return self.start(method, *tokens, **fields).result()

    def code(self, method: str, *tokens: bytes, **fields: Any) -> StatusCode:
        """The status of a call that fails."""
        code: StatusCode = self.start(method, *tokens, **fields).exception().code()
        return code


def metadata(*tokens: bytes) -> Sequence[tuple[str, str]]:
    """As a client sends tokens."""
    return [("authorization", token.decode()) for token in tokens]


@pytest.fixture
def guarded(make_world: Callable[..., World]) -> Guarded:
    """A server with two tokens."""
    return Guarded(make_world)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [((), NO_TOKEN), ((WRONG,), NOT_VALID), ((ROOT, ROOT), NOT_VALID), ((ROOT, APP), NOT_VALID)],
    ids=["none", "wrong", "twice", "two"],
)
def test_no_method_without_a_token(guarded: Guarded, method: str, tokens: tuple[bytes, ...], sentence: str) -> None:
    """Nor with a wrong one, nor with two; each attempt is counted, and nothing is told of the request."""
    for attempt in range(2):
        failure = guarded.start(method, *tokens).exception()
        assert (failure.code(), failure.details()) == (StatusCode.UNAUTHENTICATED, sentence)
        assert guarded.counted == ["unauthenticated"] * (attempt + 1)


@pytest.mark.parametrize(
    "token", [b"Bearer " + b"x" * 4000, b"", b"Basic eDp5", b"bearer"], ids=["long", "empty", "basic", "bare"]
)
def test_strange_headers(guarded: Guarded, token: bytes) -> None:
    """Very long ones, empty ones, other schemes: all the same."""
    assert guarded.code("Get", token, key="k") is StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("tokens", [(), (WRONG,), (APP,)], ids=["none", "wrong", "good"])
def test_health_is_public(guarded: Guarded, tokens: tuple[bytes, ...]) -> None:
    """Whatever is shown: a load balancer may have an old token."""
    check = guarded.channel.unary_unary(f"{HEALTH}Check")
    assert check(b"", timeout=PATIENCE, metadata=metadata(*tokens)) == b"\x08\x01"
    watch = guarded.channel.unary_stream(f"{HEALTH}Watch")(b"", timeout=PATIENCE, metadata=metadata(*tokens))
    assert next(watch) == b"\x08\x01"
    guarded.replace()
    assert watch.is_active()
    watch.cancel()
    assert guarded.counted == []


def test_grants(guarded: Guarded) -> None:
    """Inside the prefix all is well; outside the refusal is the same whether there is a key or none."""
    assert guarded.call("MSet", ROOT, key_values={"a/1": "1", "ab": "2"}).success
    assert guarded.call("Get", APP, key="a/1").value == "1"
    refusals = [guarded.start("Get", APP, key=key).exception() for key in ("ab", "none")]
    assert {refusal.code() for refusal in refusals} == {StatusCode.PERMISSION_DENIED}
    assert len({refusal.details() for refusal in refusals}) == 1
    for method, fields in (
        ("MSet", {"key_values": {"a/2": "x", "b": "x"}}),
        ("MGet", {"keys": ["a/1", "ab"]}),
        ("MDelete", {"keys": ["a/1"]}),
        ("ScanKeys", {"prefix": "a"}),
        ("ScanKeyValues", {}),
        ("GetConfig", {}),
        ("UpdateConfig", {"config": "{}"}),
    ):
        assert guarded.code(method, APP, **fields) is StatusCode.PERMISSION_DENIED, method
    assert guarded.world.stored() == {"a/1": "1", "ab": "2"}
    assert set(guarded.counted) == {"permission_denied"}


def test_calls_of_many_on_one_connection(guarded: Guarded) -> None:
    """As behind a proxy: each call has the rights of its own token, in any order."""
    guarded.world.fill(["a/1", "b"], "v")
    expected: dict[tuple[bytes, ...], Any] = {
        (ROOT,): None, (APP,): StatusCode.PERMISSION_DENIED, (): StatusCode.UNAUTHENTICATED,
        (WRONG,): StatusCode.UNAUTHENTICATED,
    }  # fmt: skip
    everybody = [*expected, *reversed(expected), *expected] * 3
    futures = [guarded.start("Get", *tokens, key="b") for tokens in everybody]
    for tokens, future in zip(everybody, futures):
        failure = future.exception()
        assert (failure and failure.code()) == expected[tokens]


def test_revocation_between_calls(guarded: Guarded) -> None:
    """From the next call on; others go on, also with what they had before."""
    for _ in range(3):
        assert not guarded.call("Get", APP, key="a/1").found
        assert not guarded.call("Get", ROOT, key="a/1").found
    guarded.replace(_ROOT)
    assert guarded.code("Get", APP, key="a/1") is StatusCode.UNAUTHENTICATED
    assert not guarded.call("Get", ROOT, key="a/1").found
    guarded.replace(_ROOT, _APP)
    assert not guarded.call("Get", APP, key="a/1").found


def test_revocation_while_a_call_runs(guarded: Guarded) -> None:
    """What was begun is done and answered; the next one is not."""
    hold = guarded.world.hold("write")
    running = guarded.start("Set", APP, key="a/1", value="1")
    hold.reached()
    guarded.replace(_ROOT)
    assert guarded.code("Set", APP, key="a/2", value="2") is StatusCode.UNAUTHENTICATED
    hold.release()
    assert running.result().success
    assert guarded.world.stored() == {"a/1": "1"}


class Talk:
    """A stream of messages, sent one by one."""

    def __init__(self, guarded: Guarded, path: str, token: bytes) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = guarded.channel.stream_stream(path)
        self.call = method(iter(self._requests.get, None), timeout=PATIENCE, metadata=metadata(token))

    def ask(self, message: bytes) -> bytes:
        """The answer to a message."""
        self._requests.put(message)
        answer: bytes = next(self.call)
        return answer

    def end(self) -> None:
        """No more messages."""
        self._requests.put(None)


def test_a_pipeline_s_operations_are_granted_one_by_one(guarded: Guarded) -> None:
    """One that is not allowed is answered so; the others are done."""
    talk = Talk(guarded, PIPELINE, APP)
    for number, key, code in ((1, "a/1", 0), (2, "b", StatusCode.PERMISSION_DENIED.value[0]), (3, "a/2", 0)):
        answer = kv.PipelineResponse.FromString(talk.ask(set_(number, key, "v").SerializeToString()))
        assert (answer.id, answer.code) == (number, code)
    talk.end()
    assert guarded.world.stored() == {"a/1": "v", "a/2": "v"}


@pytest.mark.parametrize("path", [PIPELINE, REFLECTION])
def test_revocation_in_the_middle_of_a_stream(guarded: Guarded, path: str) -> None:
    """It ends as UNAUTHENTICATED; those of others go on, and nothing is done for the one."""
    message = set_(1, "a/1", "v").SerializeToString() if path == PIPELINE else b"\x3a\x00"
    revoked, other = Talk(guarded, path, APP), Talk(guarded, path, ROOT)
    assert revoked.ask(message)
    assert other.ask(message)
    guarded.replace(_ROOT)
    with pytest.raises(grpc.RpcError) as ended:
        revoked.ask(set_(2, "a/2", "v").SerializeToString() if path == PIPELINE else message)
    assert ended.value.code() is StatusCode.UNAUTHENTICATED
    assert other.ask(message)
    for talk in (revoked, other):
        talk.end()
    assert "a/2" not in guarded.world.stored()


def test_other_rights_in_the_middle_of_a_stream(make_world: Callable[..., World], transport: str) -> None:
    """They hold from the next operation on; a native pipeline ends so that clients open it again."""
    guarded = Guarded(make_world, threads=8)
    talk = Talk(guarded, PIPELINE, APP)
    assert talk.ask(set_(1, "a/1", "v").SerializeToString())
    guarded.replace(_ROOT, _APP._replace(grants=(grant("get,set", b"b/"),)))
    if transport == "threaded":
        answer = kv.PipelineResponse.FromString(talk.ask(set_(2, "a/2", "v").SerializeToString()))
        assert answer.code == StatusCode.PERMISSION_DENIED.value[0]
    else:
        with pytest.raises(grpc.RpcError) as ended:
            talk.ask(set_(2, "a/2", "v").SerializeToString())
        assert ended.value.code() is StatusCode.UNAVAILABLE
    talk.end()
    again = Talk(guarded, PIPELINE, APP)
    for key, code in (("b/1", 0), ("a/3", StatusCode.PERMISSION_DENIED.value[0])):
        answer = kv.PipelineResponse.FromString(again.ask(set_(3, key, "v").SerializeToString()))
        assert answer.code == code
    again.end()
    assert set(guarded.world.stored()) == {"a/1", "b/1"}


def test_an_unfinished_request_of_a_revoked_token(guarded: Guarded, transport: str) -> None:
    """Its headers came before, its message afterwards: it is not carried out."""
    path, message = f"/{SERVICES[0]}/Set", enveloped(kv.SetRequest(key="a/1", value="v").SerializeToString())
    with Peer(guarded.world.address) as peer:
        streams = [peer.next_stream() for _ in range(2)]
        for stream_id, token in zip(streams, (APP, ROOT)):
            fields = request_fields(path, ("authorization", token.decode()))
            peer.send(peer.headers(stream_id, fields), DataFrame(stream_id, message[:7]))
        peer.sync()
        if transport == "threaded":
            # grpcio gives the calls to its threads in its own time; both have been let in before.
            deadline = time.monotonic() + PATIENCE
            while len(guarded.gate._sessions) < 2:
                assert time.monotonic() < deadline
                time.sleep(0.01)
        guarded.replace(_ROOT)
        for stream_id in streams:
            peer.send(DataFrame(stream_id, message[7:], flags=["END_STREAM"]))
        assert [peer.answer(stream_id).status for stream_id in streams] == ["16", "0"]
    assert guarded.counted in ([], ["unauthenticated"])


def test_header_blocks_that_are_remembered(guarded: Guarded) -> None:
    """A block that means another token, once the table has changed, is that token's; without one nobody's."""
    path = f"/{SERVICES[0]}/Get"
    message = kv.GetRequest(key="b").SerializeToString()
    with Peer(guarded.world.address) as peer:
        for _ in range(3):
            for token, status in ((ROOT, "0"), (APP, "7"), (None, "16"), (ROOT, "0"), (WRONG, "16")):
                fields = [] if token is None else [("authorization", token.decode())]
                # Sent twice: the second time the whole block is in the table.
                for _ in range(3):
                    assert peer.answer(peer.start(path, message, *fields)).status == status
        # The same bytes, before and after an entry was added in front of those that they point at.
        one, other = (request_fields(path, ("authorization", token.decode())) for token in (ROOT, APP))
        for fields, status in ((one, "0"), (one, "0"), (other, "7"), (one, "0"), (other, "7")):
            stream_id = peer.next_stream()
            peer.send(peer.headers(stream_id, fields), DataFrame(stream_id, enveloped(message), flags=["END_STREAM"]))
            assert peer.answer(stream_id).status == status


def test_a_secret_that_is_never_indexed(guarded: Guarded) -> None:
    """As careful clients send it (RFC 7541, section 7.1.3): the same block means the same, others something else."""
    path, message = f"/{SERVICES[0]}/Get", kv.GetRequest(key="b").SerializeToString()
    with Peer(guarded.world.address) as peer:
        for token, status in ((ROOT, "0"), (APP, "7"), (ROOT, "0"), (WRONG, "16"), (APP, "7")) * 2:
            stream_id = peer.next_stream()
            block = peer.headers(stream_id, request_fields(path))
            name, value = b"authorization", token
            assert len(value) < 127
            block.data += b"\x10" + bytes((len(name),)) + name + bytes((len(value),)) + value
            peer.send(block, DataFrame(stream_id, enveloped(message), flags=["END_STREAM"]))
            assert peer.answer(stream_id).status == status


def test_what_is_kept_of_sessions(guarded: Guarded, transport: str) -> None:
    """Of many tokens that came and went nothing stays."""
    for number in range(20):
        shown, entry = made(f"t{number}")
        guarded.replace(_ROOT, entry)
        assert not guarded.call("Get", shown, key="k").found
    guarded.replace(_ROOT)
    server: Any = guarded.world.server
    if transport != "threaded":
        native: NativeGrpcServer = server.native
        assert len(native._routes._tables) == 0
    assert len(guarded.gate._sessions) == 0


def test_an_operation_of_a_pipeline_that_waits_for_its_key(guarded: Guarded, transport: str) -> None:
    """The pipeline ends while one operation runs and another waits: the one is done, the other is not begun."""
    if transport == "threaded":
        pytest.skip("there an operation is begun when the one before is answered")
    hold = guarded.world.hold("write")
    fields = request_fields(PIPELINE, ("authorization", APP.decode()))
    with Peer(guarded.world.address) as peer:
        stream_id = peer.next_stream()
        peer.send(peer.headers(stream_id, fields))
        for operation in (set_(1, "a/1", "first"), set_(2, "a/1", "second"), get(3, "a/1")):
            peer.send(DataFrame(stream_id, enveloped(operation.SerializeToString())))
        hold.reached()
        peer.sync()
        guarded.replace(_ROOT)
        assert peer.answer(stream_id).status == "16"
        hold.release()
        assert guarded.call("Set", ROOT, key="a/2", value="later").success
    assert guarded.world.stored() == {"a/1": "first", "a/2": "later"}


def test_one_token_cannot_take_all_pipelines(make_world: Callable[..., World]) -> None:
    """Idle ones cost it nothing, and would keep others out without end. It has three quarters, from all connections."""
    guarded = Guarded(make_world, threads=16, max_pipelines=4)
    slots = guarded.world.slots.pipeline
    message = get(1, "a/1").SerializeToString()
    talks = [Talk(guarded, PIPELINE, APP) for _ in range(3)]
    assert all(talk.ask(message) for talk in talks)
    elsewhere = guarded.world.connect()
    for channel in (guarded.channel, elsewhere):
        refused = channel.stream_stream(PIPELINE)(iter([message]), timeout=PATIENCE, metadata=metadata(APP))
        assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
        sentence = "limits.max_pipelines is 4, of which each principal may have 3"
        assert refused.details() == f"too many pipelines: {sentence}; try again"
    elsewhere.close()
    other = Talk(guarded, PIPELINE, ROOT)
    assert other.ask(message)
    one_more = Talk(guarded, PIPELINE, ROOT)
    assert one_more.call.details() == "too many pipelines: limits.max_pipelines is 4; try again"
    assert (slots.open, slots.refused) == (4, 3)
    talks[0].end()
    assert talks[0].call.code() is StatusCode.OK
    wait_until(lambda: slots.open == 3)
    talks[0] = Talk(guarded, PIPELINE, APP)
    assert talks[0].ask(message)
    for talk in (*talks, other):
        talk.end()
        assert talk.call.code() is StatusCode.OK
    wait_until(lambda: slots.open == 0)


def test_one_token_cannot_take_all(make_world: Callable[..., World]) -> None:
    """With its share under way it is refused, in pipelines too, while another token is served."""
    guarded, share = Guarded(make_world, threads=8, max_in_flight=8), 6
    hold = guarded.world.hold("write")
    running = [guarded.start("Set", APP, key=f"a/{number}", value="v") for number in range(share)]
    hold.reached()
    eventually(lambda: guarded.world.admission.in_flight == share)
    for method in ("Get", "Set"):
        failure = guarded.start(method, APP, key="a/x").exception()
        assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
        assert failure.details() == f"too many requests: limits.max_in_flight_per_principal is {share}; try again"
    (answer,) = guarded.channel.stream_stream(
        PIPELINE, kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString
    )(iter([get(1, "a/x")]), timeout=PATIENCE, metadata=metadata(APP))
    assert (answer.id, answer.code) == (1, StatusCode.RESOURCE_EXHAUSTED.value[0])
    assert not guarded.call("Get", ROOT, key="a/x").found
    hold.release()
    assert [call.result().success for call in running] == [True] * share
    assert not guarded.call("Get", APP, key="a/x").found
