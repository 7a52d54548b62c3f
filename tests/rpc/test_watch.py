"""Watch over the local backend, as every transport must answer it."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.backends.local import history, watches
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2.answering import HIGH_WATER
from kvtwisted.rpc.methods import SERVICES
from kvtwisted.rpc.streams import PART_BYTES
from tests.support.reactors import on

from .support import MIB, PATIENCE, World, wait_until

pytestmark = pytest.mark.local_backend


def watch(channel: grpc.Channel, **fields: Any) -> Any:
    """The messages of a Watch, as they come."""
    stub = channel.unary_stream(f"/{SERVICES[0]}/Watch", kv.WatchRequest.SerializeToString, kv.WatchResponse.FromString)
    return stub(kv.WatchRequest(**fields), timeout=PATIENCE)


def take(stream: Any, events: int) -> list[kv.WatchResponse]:
    """The messages with the next events."""
    messages: list[kv.WatchResponse] = []
    while sum(len(message.events) for message in messages) < events:
        messages.append(next(stream))
    return messages


def test_each_kind_of_event(world: World) -> None:
    """With values and deadlines, where those were asked for."""
    stream, bare = watch(world.channel, prefix="a", with_values=True), watch(world.channel, prefix="a")
    begun = next(stream).revision
    next(bare)
    client, now = world.client, world.time.wall_ms
    client.call("Set", key="a1", value="v1", ttl=60)
    client.call("Set", key="b", value="not watched")
    client.call("MSet", key_values={"a2": "v2", "b2": "not watched"})
    client.call("Set", key="a3", data=b"\xff\x00")
    client.call("Delete", key="a2")
    touched = client.call("Touch", key="a1", ttl=100)
    added = client.call("Increment", key="a9", delta=7)
    messages = take(stream, 6)
    assert [list(message.events) for message in messages] == [
        [kv.Event(type="SET", key="a1", data=b"v1", expires_at_ms=now + 60_000)],
        [kv.Event(type="SET", key="a2", data=b"v2")],
        [kv.Event(type="SET", key="a3", data=b"\xff\x00")],
        [kv.Event(type="DELETE", key="a2")],
        [kv.Event(type="SET", key="a1", data=b"v1", expires_at_ms=now + 100_000)],
        [kv.Event(type="SET", key="a9", data=b"7")],
    ]
    revisions = [message.revision - begun for message in messages]
    assert revisions == [1, 3, 4, 5, 6, 7]
    assert [touched.revision, added.revision] == [message.revision for message in messages[-2:]]
    assert all(message.end and not message.compacted for message in messages)
    assert [event.data for message in take(bare, 6) for event in message.events] == [b""] * 6
    stream.cancel()
    bare.cancel()


def test_expiry(world: World) -> None:
    """A key that has expired is told when it is swept."""
    stream = watch(world.channel, key="k")
    next(stream)
    world.client.call("Set", key="k", value="v", ttl=1)
    world.time.advance(1001)
    world.storage.sweeper.sweep(10)
    assert [event.type for message in take(stream, 2) for event in message.events] == [1, kv.Event.EXPIRE]
    stream.cancel()


def test_going_on_after_a_cut(world: World) -> None:
    """After the revision of the last message that said `end`: nothing is missing, nothing comes twice."""
    stream = watch(world.channel, prefix="k")
    reached = next(stream).revision
    told: list[str] = []
    for number in range(30):
        if number % 5 == 4:
            world.client.call("MSet", key_values={f"k{number}/{part}": "v" for part in range(3)})
        else:
            world.client.call("Set", key=f"k{number}", value="v")
        if number % 7 == 3:
            message = next(stream)
            told += [event.key for event in message.events]
            reached = message.revision if message.end else reached
            stream.cancel()
            stream = watch(world.channel, prefix="k", after_revision=reached)
            assert next(stream).revision == reached
    while len(told) < 30 + 2 * 6:
        told += [event.key for event in next(stream).events]
    stream.cancel()
    expected = [
        [f"k{number}/{part}" for part in range(3)] if number % 5 == 4 else [f"k{number}"] for number in range(30)
    ]
    assert sorted(told) == sorted(key for keys in expected for key in keys)
    assert [key.partition("/")[0] for key in told] == [key.partition("/")[0] for keys in expected for key in keys]


def test_a_commit_over_several_messages(world: World) -> None:
    """What is cut off in the middle of a commit gets all of it again: only its last message says `end`."""
    stream = watch(world.channel, prefix="k", with_values=True)
    begun = next(stream).revision
    world.client.call("MSet", key_values={f"k{number}": "v" * 50_000 for number in range(10)})
    messages = take(stream, 10)
    assert len(messages) > 2
    assert all(message.ByteSize() <= PART_BYTES for message in messages)
    assert {message.revision for message in messages} == {begun + 1}
    assert [message.end for message in messages] == [*[False] * (len(messages) - 1), True]
    stream.cancel()
    again = watch(world.channel, prefix="k", with_values=True, after_revision=begun)
    next(again)
    assert take(again, 10) == messages
    again.cancel()


def test_what_cannot_be_resumed(world: World) -> None:
    """The one message says so, and the stream ends well."""
    world.storage.writer.commits.history.max_bytes = 0
    for number in range(3):
        world.client.call("Set", key="k", value=f"{number}")
    last = world.store.revision
    for after in (1, last - 2, last + 1000):
        (message,) = watch(world.channel, after_revision=after)
        assert message.compacted
        assert message.end
        assert message.revision == min(after, last)


@pytest.mark.parametrize("values", [False, True])
def test_a_client_that_does_not_read(
    world: World, transport: str, values: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It holds no more than its share of memory, whatever is written; then it is told how far it came, and the stream
    ends. The others miss nothing meanwhile."""
    monkeypatch.setattr(history, "LIVE_BYTES", MIB)
    world.storage.writer.commits.history.max_bytes = MIB
    # What the client itself takes without being asked is not much.
    slow_channel = world.connect(("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0))
    slow = watch(slow_channel, prefix="k", with_values=values)
    first = next(slow).revision
    quick = watch(world.channel, prefix="k")
    next(quick)
    value, most, seen = "v" * 20_000, 0, 0
    for number in range(300):
        world.client.call("MSet", key_values={f"k{number}/{part}": value for part in range(10)})
        seen += sum(len(message.events) for message in take(quick, 10))
        if transport != "threaded":
            backlog = on(world.reactor, getattr, world.server.native.backlog.queued, "bytes")  # type: ignore[union-attr]
            most = max(most, backlog)
    assert seen == 3000
    assert most <= HIGH_WATER + PART_BYTES + 100_000
    wait_until(lambda: world.storage.writer.commits.history.bytes <= 2 * MIB)
    messages = list(slow) if values else []
    if values:
        assert messages[-1].compacted
        assert not any(message.compacted for message in messages[:-1])
        whole = [message.revision for message in messages[:-1] if message.end]
        assert messages[-1].revision in (first, *whole)
        assert whole == list(range(first + 1, first + 1 + len(whole)))
        assert len(whole) < 300
    slow.cancel()
    quick.cancel()
    slow_channel.close()


def test_word_that_nothing_happened(make_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet watcher is told now and then how far it is: from there it goes on if it is cut off."""
    monkeypatch.setattr(watches, "LOOK_SECONDS", 0.05)
    world = make_world()
    stream = watch(world.channel, prefix="k")
    begun = next(stream)
    world.client.call("Set", key="other", value="v")
    message = begun
    while message.revision == begun.revision:
        message = next(stream)
        assert message.end
        assert not message.events
        assert not message.compacted
    assert message.revision == begun.revision + 1
    stream.cancel()


def test_rights_go_with_the_session(world: World) -> None:
    """One that holds no longer is told nothing more."""
    stream = watch(world.channel)
    next(stream)
    world.gate._everybody.revoke()
    on(world.reactor, world.gate.look)
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    error: Any = caught.value
    assert error.code() is StatusCode.UNAUTHENTICATED
    wait_until(lambda: not world.backend._watches._open)
