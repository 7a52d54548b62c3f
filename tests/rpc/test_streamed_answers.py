"""ScanStream and Watch, as every transport must answer them: the stream itself, whatever is in it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import SERVICES
from kvtwisted.sessions.grants import Principal
from tests.support.reactors import on

from .support import CLASSES, PATIENCE, World, wait_until
from .test_server import stop_in_background

BACKENDS_DIFFER = True


#: Of each key: a few of them are a part.
VALUE = "value" * 2000


def open_stream(
    world: World, method: str, *, service: str = SERVICES[0], timeout: float = PATIENCE, **fields: Any
) -> Any:
    """The messages of a stream, as they come."""
    request, response = CLASSES[method]
    stub = world.channel.unary_stream(f"/{service}/{method}", request.SerializeToString, response.FromString)
    return stub(request(**fields), timeout=timeout)


def watching(world: World, **fields: Any) -> Any:
    """A Watch that has begun."""
    stream = open_stream(world, "Watch", **fields)
    first = next(stream)
    assert not first.events
    assert first.end
    return stream


def streams(world: World) -> int:
    """Those that are open, of both kinds."""
    return sum(slots.open for slots in world.door.streams.slots.values())


def failure(stream: Any) -> tuple[StatusCode, str]:
    """How it ends, after whatever it brings."""
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    error: Any = caught.value
    return error.code(), error.details()


@pytest.fixture
def filled(world: World) -> Iterator[World]:
    """With keys."""
    world.fill([f"key{number:03}" for number in range(95)], VALUE)
    yield world
    wait_until(lambda: streams(world) == 0)
    assert len(world.door.streams._open) == 0


@pytest.mark.parametrize("service", SERVICES)
def test_a_scan_comes_in_parts(filled: World, service: str) -> None:
    """All entries, in order, over several messages; then the stream ends well."""
    messages = list(open_stream(filled, "ScanStream", service=service, prefix="key", limit=93))
    assert len(messages) > 1
    entries = [entry for message in messages for entry in message.entries]
    assert entries == [kv.Entry(key=f"key{number:03}", data=VALUE.encode()) for number in range(93)]


def test_what_is_wrong_with_a_scan_is_told_in_a_message(world: World) -> None:
    """As with ScanKeyValues: the answer has the field."""
    for fields, sentence in (
        ({"prefix": "x" * 2000}, "prefix: too long"),
        ({"limit": -1}, "limit"),
        ({"count_only": True}, "count_only: not in a ScanStream"),
        ({"delimiter": "/"}, "delimiter: not in a ScanStream"),
    ):
        (answer,) = open_stream(world, "ScanStream", **fields)
        assert answer.error.startswith(sentence)
    assert streams(world) == 0


def test_what_is_wrong_with_a_watch_is_its_status(world: World) -> None:
    """Its answer has no such field."""
    for fields in ({"key": "k", "prefix": "p"}, {"after_revision": -1}):
        code, _ = failure(open_stream(world, "Watch", **fields))
        assert code == StatusCode.INVALID_ARGUMENT


def test_a_watch_follows(filled: World) -> None:
    """What is committed comes, in order, until the client has enough."""
    stream = watching(filled, prefix="key", with_values=True)
    filled.client.call("Set", key="key1", value="1")
    filled.client.call("Set", key="other", value="1")
    filled.client.call("Delete", key="key1")
    got = [next(stream), next(stream)]
    assert [list(message.events) for message in got] == [
        [kv.Event(type="SET", key="key1", data=b"1")],
        [kv.Event(type="DELETE", key="key1")],
    ]
    assert got[0].revision < got[1].revision
    stream.cancel()


def test_a_client_that_cancels(filled: World) -> None:
    """The stream is over on the server too, and so is its thread: all of them can be had again."""
    for _ in range(6):
        stream = watching(filled)
        stream.cancel()
        wait_until(lambda: streams(filled) == 0)
    assert list(open_stream(filled, "ScanStream"))


def test_a_client_whose_time_is_up(filled: World) -> None:
    """The deadline ends a stream that would go on."""
    code, _ = failure(open_stream(filled, "Watch", timeout=0.3))
    assert code == StatusCode.DEADLINE_EXCEEDED


def test_a_connection_that_is_gone(filled: World) -> None:
    """With it go its streams."""
    channel = filled.connect()
    stub = channel.unary_stream(f"/{SERVICES[0]}/Watch", kv.WatchRequest.SerializeToString, kv.WatchResponse.FromString)
    next(stub(kv.WatchRequest(), timeout=PATIENCE))
    assert streams(filled) == 1
    channel.close()


def test_a_stopping_server(world: World) -> None:
    """Streams end with a status that says to come again, long before the time for calls is up."""
    stream = watching(world)
    on(world.reactor, world.door.streams.stop)
    stop_in_background(world, PATIENCE)
    assert failure(stream) == (StatusCode.UNAVAILABLE, "the server is stopping")


def test_no_more_streams_than_there_may_be(world: World) -> None:
    """One more is refused with the limit's name; when one ends there is room."""
    on(world.reactor, setattr, world.door.streams.slots["watch"], "_capacity", 1)
    stream = watching(world)
    code, sentence = failure(open_stream(world, "Watch"))
    assert (code, sentence) == (
        StatusCode.RESOURCE_EXHAUSTED, "too many watchers: limits.max_watchers is 1; try again",
    )  # fmt: skip
    stream.cancel()
    wait_until(lambda: streams(world) == 0)
    watching(world).cancel()


def test_half_the_threads(world: World, transport: str) -> None:
    """On the threaded transport streams have threads of their own, half as many as calls: one more is refused."""
    opened = [watching(world), watching(world)]  # World has 4 threads
    if transport == "threaded":
        code, sentence = failure(open_stream(world, "ScanStream"))
        assert (code, sentence) == (
            StatusCode.RESOURCE_EXHAUSTED,
            "too many Watch and ScanStream calls: half of grpc.threads is 2; try again",
        )
    # Calls have all of theirs.
    futures = [world.client.start("Get", key="k") for _ in range(8)]
    assert not any(future.result().found for future in futures)
    for stream in opened:
        stream.cancel()
    wait_until(lambda: streams(world) == 0)


@pytest.mark.parametrize("is_replaced", [False, True])
def test_a_session_that_is_withdrawn(filled: World, is_replaced: bool) -> None:
    """Its streams end: with word that the token holds no longer, or that one has to come again."""
    stream = watching(filled)
    principal: Principal = filled.gate._everybody
    principal.revoke(is_replaced=is_replaced)
    on(filled.reactor, filled.gate.look)
    expected = StatusCode.UNAVAILABLE if is_replaced else StatusCode.UNAUTHENTICATED
    assert failure(stream)[0] == expected


@pytest.mark.parametrize("method", ["Watch", "ScanStream"])
def test_no_message(world: World, method: str) -> None:
    """A call that ends without a request."""
    stub = world.channel.stream_stream(f"/{SERVICES[0]}/{method}")
    code, sentence = failure(stub(iter(()), timeout=PATIENCE))
    assert (code, sentence) == (StatusCode.INVALID_ARGUMENT, "the call ended without a request message")


def test_a_message_that_is_none(world: World) -> None:
    """What cannot be parsed."""
    stub = world.channel.unary_stream(f"/{SERVICES[0]}/Watch")
    code, sentence = failure(stub(b"\xff", timeout=PATIENCE))
    assert code == StatusCode.INVALID_ARGUMENT
    assert "WatchRequest" in sentence
