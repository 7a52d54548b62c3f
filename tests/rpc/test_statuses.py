"""What ends with a gRPC status instead of a message, as every transport must do it."""

from __future__ import annotations

import gzip
import queue
from typing import Callable

import grpc
import pytest
from grpc import StatusCode
from twisted.logger import LogLevel

from kvtwisted.core import errors
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS

from .support import MIB, PATIENCE, World, logged

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

GOOD = kv.SetRequest(key="a", value="1").SerializeToString()


def failures(events: list[dict[str, object]]) -> list[dict[str, object]]:
    """Those log events that are about something that went wrong."""
    return [event for event in events if event["log_level"] in (LogLevel.warn, LogLevel.error, LogLevel.critical)]


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (errors.Overloaded("try again"), StatusCode.RESOURCE_EXHAUSTED, "try again"),
        (errors.WriteStalled("stalled"), StatusCode.RESOURCE_EXHAUSTED, "stalled"),
        (errors.DeadlineExceeded("too slow"), StatusCode.DEADLINE_EXCEEDED, "too slow"),
        (errors.Unavailable("stopping"), StatusCode.UNAVAILABLE, "stopping"),
        (errors.StorageFull("/secret is full"), StatusCode.RESOURCE_EXHAUSTED, "the disk is full"),
    ],
)
def test_conditions(world: World, error: errors.KvError, code: StatusCode, sentence: str) -> None:
    """A condition around the call has its own status; nothing of it is logged as a defect."""
    world.fail("get", error)
    with logged() as events:
        failure = world.client.error("Get", key="a")
    assert failure.code() is code
    assert failure.details().startswith(sentence)
    assert "secret" not in failure.details()
    assert failures(events) == []


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (errors.StorageError("/secret: EIO"), "the storage failed; "),
        (errors.Corruption("/secret: checksum"), "stored data is damaged; "),
        (errors.KvError("secret"), "the server failed; "),
        (ValueError("secret"), "the server failed; "),
        (KeyError("secret"), "the server failed; "),
    ],
)
@pytest.mark.parametrize("method", ["Get", "ScanKeys", "MGet"])
def test_faults_are_incidents(world: World, method: str, error: Exception, sentence: str) -> None:
    """A fault is INTERNAL, logged once with its traceback, under the id that the client gets instead of details."""
    world.fail({"Get": "get", "ScanKeys": "scan", "MGet": "multi_get"}[method], error)
    with logged() as events:
        failure = world.client.error(method, **{"Get": {"key": "a"}, "MGet": {"keys": ["a"]}}.get(method, {}))
    assert failure.code() is StatusCode.INTERNAL
    (event,) = failures(events)
    assert failure.details() == f"{sentence}the server's log tells more under incident {event['incident']}"
    assert event["log_failure"].value is error
    assert event["doing"] == method
    assert "tests/support/" in event["log_failure"].getTraceback()


def test_stored_bytes_that_are_not_text(world: World) -> None:
    """A foreign record whose key is not UTF-8 is damage, never a broken answer; values may be any bytes."""
    world.store.set(b"a\xfe", b"1")
    world.client.call("Set", key="good", value="1")
    assert world.client.error("ScanKeys").code() is StatusCode.INTERNAL
    assert world.client.error("ScanKeyValues").code() is StatusCode.INTERNAL
    assert world.client.call("Get", key="good").found


@pytest.mark.parametrize("method", ["Increment", "Touch", "DeleteRange", "Transact", "Set", "Delete", "ScanKeys"])
def test_what_the_backend_cannot_do(world: World, method: str) -> None:
    """UNIMPLEMENTED, with a sentence that names what is missing; also in a pipeline. Nothing is done."""
    world.door._capabilities = frozenset({""})
    fields: dict[str, dict[str, object]] = {
        "Transact": {"mutations": [kv.Mutation(set=kv.SetRequest(key="a"))]},
        "DeleteRange": {"prefix": "a"},
        "ScanKeys": {"reverse": True},
    }
    condition = {"condition": kv.Condition(absent=True)} if method in ("Set", "Delete") else {}
    failure = world.client.error(method, **fields.get(method, {"key": "a", **condition}))
    assert failure.code() is StatusCode.UNIMPLEMENTED
    assert "the storage backend cannot do this: it has no '" in failure.details()
    assert world.stored() == {}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("message", [b"\x0a\x01\xff", b"\x0a\x05a", b"\x07"])
def test_messages_that_cannot_be_parsed(world: World, method: str, message: bytes) -> None:
    """Strings that are not UTF-8, messages cut short, and garbage are INVALID_ARGUMENT, and no defect of the server."""
    if method == "GetConfig" and message[:1] == b"\x0a" and len(message) == message[1] + 2:
        assert world.client.call_raw(method, message)  # an unknown field of a message that has none is ignored
        return
    with logged() as events:
        failure = world.client.error_raw(method, message)
    assert failure.code() is StatusCode.INVALID_ARGUMENT
    assert f"not a {METHODS[method].request.DESCRIPTOR.full_name} message" in failure.details()
    assert "UTF-8" in failure.details()
    assert failures(events) == []
    assert world.stored() == {}


@pytest.mark.parametrize(
    "path", ["/kv.v1.KeyValueService/Nothing", "/KeyValueService/get", "/other/Get", "/kv.v2.KeyValueService/Get"]
)
def test_unknown_methods(world: World, path: str) -> None:
    """A method or service that does not exist is UNIMPLEMENTED."""
    failure = world.channel.unary_unary(path).future(GOOD, timeout=PATIENCE).exception()
    assert failure.code() is StatusCode.UNIMPLEMENTED


def test_a_call_without_a_message(world: World) -> None:
    """A call that ends before its message has come is INVALID_ARGUMENT."""
    stub = world.channel.stream_unary("/kv.v1.KeyValueService/Get")
    failure = stub.future(iter(()), timeout=PATIENCE).exception()
    assert failure.code() is StatusCode.INVALID_ARGUMENT


@pytest.mark.local_backend
def test_a_deadline_that_has_passed(make_world: Callable[..., World]) -> None:
    """The client hears DEADLINE_EXCEEDED, and a call whose time is up before its turn comes does no work."""
    world = make_world(threads=1)
    hold = world.hold("get")
    first = world.client.start("Get", key="first")
    hold.reached()
    assert world.client.start("Get", key="late", timeout=0.05).exception().code() is StatusCode.DEADLINE_EXCEEDED
    hold.release()
    assert not first.result().found
    world.client.call("Get", key="last")
    assert [key for key, _ in world.engine.called("get")[-2:]] == [b"first", b"last"]


def test_over_capacity(make_world: Callable[..., World]) -> None:
    """At limits.max_in_flight one more call is RESOURCE_EXHAUSTED; it works again when there is room."""
    world = make_world(max_in_flight=2)
    world.admission.enter()
    world.admission.enter()
    failure = world.client.error("Get", key="a")
    assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
    assert "limits.max_in_flight is 2" in failure.details()
    world.admission.leave()
    assert not world.client.call("Get", key="a").found
    assert world.admission.in_flight == 1


@pytest.mark.local_backend
def test_a_bounded_queue(make_world: Callable[..., World]) -> None:
    """Calls that find all threads busy wait, but no more than limits.max_in_flight of them."""
    world = make_world(threads=1, max_in_flight=3)
    hold = world.hold("get")
    first = world.client.start("Get", key="held")
    hold.reached()
    ended: queue.Queue[StatusCode] = queue.Queue()
    others = [world.client.start("Get", key="x") for _ in range(10)]
    for other in others:
        other.add_done_callback(lambda call: ended.put(call.code()))
    refused = [ended.get(timeout=PATIENCE) for _ in range(8)]
    assert refused == [StatusCode.RESOURCE_EXHAUSTED] * 8
    hold.release()
    assert [ended.get(timeout=PATIENCE) for _ in range(2)] == [StatusCode.OK] * 2
    assert not first.result().found


def test_a_closed_admission(world: World) -> None:
    """While the server drains, a call is UNAVAILABLE, which clients take to another server."""
    world.admission.close()
    failure = world.client.error("Get", key="a")
    assert (failure.code(), failure.details()) == (StatusCode.UNAVAILABLE, "the server is stopping")


def test_in_flight_is_given_back(world: World) -> None:
    """Whatever way a call ends, it no longer counts."""
    world.fail("get", errors.StorageError("broken"), times=1)
    world.client.error("Get", key="a")
    world.client.call("Get", key="")
    world.client.error_raw("Get", b"\x07")
    world.client.call("Get", key="a")
    assert world.admission.in_flight == 0


def test_a_cancelled_write(world: World) -> None:
    """A client that goes away leaves no traceback; its write may still happen, and counts until it has."""
    hold = world.hold("write")
    with logged() as events:
        call = world.client.start("Set", key="a", value="1")
        hold.reached()
        assert call.cancel()
        assert world.admission.in_flight == 1
        hold.release()
        # Writes are made in order, so the cancelled one is done when this is.
        while not world.client.call("Get", key="a").found:
            pass
        assert world.client.call("Set", key="b", value="2").success
    assert world.stored() == {"a": "1", "b": "2"}
    assert failures(events) == []


def test_the_largest_batch(world: World) -> None:
    """A batch of exactly limits.max_request_bytes passes, encoding and all; one byte more is named in the message."""
    pairs = {f"{n:06d}": "v" * 203 for n in range(10_000)}
    pairs["filler"] = "v" * (2 * MIB - 6 - 209 * 9_999)
    del pairs["009999"]
    assert sum(len(key) + len(value) for key, value in pairs.items()) == 2 * MIB
    assert world.client.call("MSet", key_values=pairs).success
    pairs["filler"] += "v"
    answer = world.client.call("MSet", key_values=pairs)
    assert "2097153 bytes were sent in all, limits.max_request_bytes is 2097152" in answer.error


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_a_message_that_is_too_large(world: World, compression: grpc.Compression) -> None:
    """A message beyond the limit is RESOURCE_EXHAUSTED; what counts is its size once it is decompressed."""
    value = "v" * (3 * MIB)
    failure = world.client.start("Set", key="a", value=value, compression=compression).exception()
    assert failure.code() is StatusCode.RESOURCE_EXHAUSTED
    assert world.stored() == {}


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(world: World, compression: grpc.Compression) -> None:
    """Requests may be compressed; the limits go by what is in them."""
    value = "v" * MIB
    assert world.client.call("Set", key="a", value=value, compression=compression).success
    assert world.client.call("Set", key="b", value="1", compression=compression).success
    assert world.stored() == {"a": value, "b": "1"}
    assert "too large" in world.client.call("Set", key="a", value=value + "v", compression=compression).error


@pytest.mark.parametrize(
    "message",
    [gzip.compress(GOOD)[:-1], gzip.compress(GOOD) + b"tail", b"\x1f\x8bgarbage"],
    ids=["cut short", "tail", "garbage"],
)
def test_broken_compressed_requests(world: World, message: bytes) -> None:
    """Compressed data that is cut short, has a tail or is none is INVALID_ARGUMENT."""
    assert world.client.error_raw("Set", message).code() is StatusCode.INVALID_ARGUMENT
    assert world.stored() == {}
