"""grpc.health.v1 over a real server."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Callable

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from hyperframe.frame import DataFrame

from kvtwisted.core.errors import Overloaded, StorageError, Unavailable
from kvtwisted.core.health import Health
from kvtwisted.observability import health_checks
from kvtwisted.rpc import health as rpc_health
from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.health import KNOWN, Watches
from kvtwisted.rpc.watchdog import Watchdog
from kvtwisted.sessions.slots import Slots

from .http2.peer import Peer
from .support import PATIENCE, Hold, World, wait_until

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING


def check(world: World, service: str = "") -> int:
    """The status that Check answers."""
    return HealthStub(world.channel).Check(HealthCheckRequest(service=service), timeout=PATIENCE).status


def watch(world: World, service: str = "") -> Any:
    """An open Watch stream."""
    return HealthStub(world.channel).Watch(HealthCheckRequest(service=service), timeout=PATIENCE)


@pytest.mark.parametrize("service", KNOWN)
def test_check(world: World, service: str) -> None:
    """The server and both names of its service are healthy together, and each check is counted."""
    assert check(world, service) == SERVING
    world.health.fail("disk", "the disk is full")
    assert check(world, service) == NOT_SERVING
    world.health.recover("disk")
    assert check(world, service) == SERVING
    assert world.recorder.health_checks == 3


@pytest.mark.parametrize("error", [StorageError("broken"), Unavailable("closed")])
def test_check_reads_the_storage(world: World, error: Exception) -> None:
    """A storage that cannot be read is not serving, although no condition is known yet."""
    world.fail("get", error)
    assert check(world) == NOT_SERVING
    world.engine.heal("get")
    assert check(world) == SERVING


def test_check_of_an_unknown_service(world: World) -> None:
    """NOT_FOUND, as the protocol says, and not counted."""
    with pytest.raises(grpc.RpcError) as failure:
        check(world, "kv.v1.Nothing")
    assert failure.value.code() is StatusCode.NOT_FOUND
    assert world.recorder.health_checks == 0


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_a_health_request_that_cannot_be_parsed(world: World, method: str) -> None:
    """INVALID_ARGUMENT, for both methods."""
    stream = world.channel.unary_stream(f"/grpc.health.v1.Health/{method}")(b"\x0a\x01\xff", timeout=PATIENCE)
    with pytest.raises(grpc.RpcError) as failure:
        next(stream)
    assert failure.value.code() is StatusCode.INVALID_ARGUMENT


def test_a_fault_in_a_check(world: World) -> None:
    """An unexpected error is INTERNAL with an incident, like everywhere else."""
    world.fail("get", ZeroDivisionError("secret"))
    with pytest.raises(grpc.RpcError) as failure:
        check(world)
    assert failure.value.code() is StatusCode.INTERNAL
    assert "incident" in failure.value.details()
    assert "secret" not in failure.value.details()


def test_check_while_all_threads_are_busy(make_world: Callable[..., World]) -> None:
    """A server that is busy is not ill: Check has a thread of its own."""
    world = make_world(threads=1)
    hold = world.hold("write")
    call = world.client.start("Set", key="a", value="1")
    hold.reached()
    assert check(world) == SERVING
    hold.release()
    assert call.result().success


def test_a_storage_that_does_not_answer(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """NOT_SERVING after the time that it gets, for a client without a deadline too; then as before."""
    monkeypatch.setattr(health_checks, "HEALTH_TIMEOUT", 0.0)
    hold = world.hold("get")
    stub = HealthStub(world.channel)
    assert stub.Check(HealthCheckRequest()).status == NOT_SERVING
    hold.reached()
    assert check(world) == NOT_SERVING
    monkeypatch.undo()
    hold.release()
    assert check(world) == SERVING
    assert world.recorder.health_checks == 2


@pytest.mark.parametrize("service", KNOWN)
def test_watch(world: World, service: str) -> None:
    """A watcher hears the present status at once, and then every change."""
    stream = watch(world, service)
    assert next(stream).status == SERVING
    world.health.fail("disk", "the disk is full")
    assert next(stream).status == NOT_SERVING
    world.health.recover("disk")
    assert next(stream).status == SERVING
    stream.cancel()


def test_watch_of_an_unknown_service(world: World) -> None:
    """SERVICE_UNKNOWN, and the stream stays open: changes of other services are none of it."""
    stream, other = watch(world, "nothing"), watch(world)
    assert next(stream).status == HealthCheckResponse.SERVICE_UNKNOWN
    assert next(other).status == SERVING
    world.health.fail("disk", "the disk is full")
    assert next(other).status == NOT_SERVING
    world.server.stop(PATIENCE)
    with pytest.raises(grpc.RpcError) as failure:
        next(stream)
    assert failure.value.code() is StatusCode.UNAVAILABLE


def test_watchers_hear_of_the_end(world: World) -> None:
    """At shutdown a watcher hears NOT_SERVING before its stream ends, and the stream does not hold the shutdown up."""
    stream = watch(world)
    assert next(stream).status == SERVING
    world.server.stop(PATIENCE)
    assert next(stream).status == NOT_SERVING
    with pytest.raises(grpc.RpcError) as failure:
        next(stream)
    assert (failure.value.code(), failure.value.details()) == (StatusCode.UNAVAILABLE, "the server is stopping")


def test_many_idle_watches_hold_no_thread(make_world: Callable[..., World]) -> None:
    """With 50 Watch streams open and one thread for calls, Get and Check work as ever, and all hear of a change."""
    world = make_world(threads=1)
    streams = [watch(world) for _ in range(50)]
    assert [next(stream).status for stream in streams] == [SERVING] * 50
    assert world.client.call("Set", key="a", value="1").success
    assert world.client.call("Get", key="a").found
    assert check(world) == SERVING
    world.health.fail("disk", "the disk is full")
    assert [next(stream).status for stream in streams] == [NOT_SERVING] * 50


class FakeStream:
    """The server's side of a stream: keeps what is sent, and may be stuck until it is cancelled."""

    def __init__(self, *, stuck: bool = False, ended: bool = False, broken: bool = False) -> None:
        self.sent: list[int | None] = []
        self.code: grpc.StatusCode | None = None
        self.cancelled = threading.Event()
        self.got = threading.Semaphore(0)
        self._stuck, self._ended, self._broken = stuck, ended, broken
        self._callback: Callable[[], None] = lambda: None

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Keep what is to be called at the end."""
        self._callback = callback
        return not self._ended

    def cancel(self) -> None:
        """End it."""
        self.cancelled.set()
        self._callback()

    def set_code(self, code: grpc.StatusCode) -> None:
        """Keep the code."""
        self.code = code

    def set_details(self, details: str) -> None:
        """The sentence does not matter here."""

    def send(self, message: bytes | None) -> None:
        """Take one message."""
        if self._broken:
            raise ValueError("this stream is broken")
        if self._stuck:
            assert self.cancelled.wait(PATIENCE)
        self.sent.append(None if message is None else HealthCheckResponse.FromString(message).status)
        self.got.release()

    def received(self) -> None:
        """Wait for one message."""
        assert self.got.acquire(timeout=PATIENCE)


@pytest.fixture
def health() -> Health:
    """A healthy server's."""
    return Health()


@pytest.fixture
def slots() -> Slots:
    """Three, of which an address may have two."""
    return Slots("Watch streams", "limits.max_watches", 3, "address")


@pytest.fixture
def watches(health: Health, slots: Slots) -> Iterator[Watches]:
    """Running watches of `health`."""
    watchdog = Watchdog()
    watches = Watches(health, watchdog, slots)
    watchdog.start()
    watches.start()
    yield watches
    watches.stop(PATIENCE)
    watchdog.stop()


def test_a_stuck_watcher_is_cut_off(watches: Watches, health: Health, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that does not read is cancelled; the others hear, and who changes the health does not wait."""
    monkeypatch.setattr(rpc_health, "SEND_SECONDS", 0.0)
    stuck, good = FakeStream(stuck=True), FakeStream()
    watches.add(b"", "192.0.2.1", stuck, stuck.send)
    assert stuck.cancelled.wait(PATIENCE)
    watches.add(b"", "192.0.2.1", good, good.send)
    good.received()
    health.fail("disk", "the disk is full")
    good.received()
    assert good.sent == [SERVING, NOT_SERVING]


def test_changing_the_health_never_waits_for_a_watcher(watches: Watches, health: Health) -> None:
    """The health changes while a watcher is stuck; what that one missed in between is left out."""
    hold, good = Hold(), FakeStream()

    def slow(message: bytes | None) -> None:
        hold()
        good.send(message)

    watches.add(b"", "192.0.2.1", good, slow)
    hold.reached()
    health.fail("disk", "the disk is full")
    health.recover("disk")
    health.fail("disk", "the disk is full")
    hold.release()
    good.received()
    good.received()
    assert good.sent == [SERVING, NOT_SERVING]


def test_a_broken_watcher_is_dropped(watches: Watches, health: Health) -> None:
    """An error while sending to one stream ends that stream alone."""
    broken, good = FakeStream(broken=True), FakeStream()
    watches.add(b"", "192.0.2.1", broken, broken.send)
    assert broken.cancelled.wait(PATIENCE)
    watches.add(b"", "192.0.2.1", good, good.send)
    good.received()
    assert good.sent == [SERVING]


@pytest.mark.parametrize(
    ("addresses", "sentence"),
    [
        (["192.0.2.1", "192.0.2.1"], "limits.max_watches is 3, of which each address may have 2"),
        (["2001:db8::1", "2001:db8::2"], "limits.max_watches is 3, of which each address may have 2"),
        (["192.0.2.1", "192.0.2.2", "192.0.2.1"], "limits.max_watches is 3"),
    ],
)
def test_a_bounded_number_of_watches(watches: Watches, slots: Slots, addresses: list[str], sentence: str) -> None:
    """One stream over the limit, or over an address's share, is RESOURCE_EXHAUSTED; when one ends its slot is free."""
    streams = [FakeStream() for _ in addresses]
    for address, stream in zip(addresses, streams):
        watches.add(b"", address, stream, stream.send)
    other = FakeStream()
    with pytest.raises(Overloaded) as refused:
        watches.add(b"", addresses[0], other, other.send)
    assert str(refused.value) == f"too many Watch streams: {sentence}; try again"
    assert (slots.open, slots.refused) == (len(addresses), 1)
    streams[0].cancel()
    watches.add(b"", addresses[0], other, other.send)
    other.received()


def test_a_stream_that_ended_meanwhile(watches: Watches, slots: Slots) -> None:
    """A stream that has ended before it could be served takes no slot."""
    gone, good = FakeStream(ended=True), FakeStream()
    watches.add(b"", "192.0.2.1", gone, gone.send)
    assert slots.open == 0
    watches.add(b"", "192.0.2.1", good, good.send)
    good.received()
    assert good.sent == [SERVING]


def test_one_address_cannot_take_all_watches(make_world: Callable[..., World]) -> None:
    """It is refused when it has three quarters; a client at another address still watches."""
    world = make_world(max_watches=4, host="0.0.0.0")
    slots = world.slots.watch
    streams = [watch(world) for _ in range(3)]
    assert [next(stream).status for stream in streams] == [SERVING] * 3
    with pytest.raises(grpc.RpcError) as refused:
        next(watch(world))
    assert refused.value.code() is StatusCode.RESOURCE_EXHAUSTED
    sentence = "too many Watch streams: limits.max_watches is 4, of which each address may have 3; try again"
    assert refused.value.details() == sentence
    with Peer(world.address, source="127.0.0.2") as other:
        stream_id = other.start("/grpc.health.v1.Health/Watch")
        other.read(lambda frame: isinstance(frame, DataFrame) and frame.stream_id == stream_id)
        assert other.answers[stream_id].messages == [HealthCheckResponse(status=SERVING).SerializeToString()]
    for stream in streams:
        stream.cancel()
    wait_until(lambda: slots.open == 0)
    assert next(watch(world)).status == SERVING


def test_stopping_does_not_wait_for_a_stuck_watcher(watches: Watches) -> None:
    """A stream that does not take its last message in time is cancelled."""
    stuck = FakeStream(stuck=True)
    watches.add(b"", "192.0.2.1", stuck, stuck.send)
    watches.stop(0.0)
    assert stuck.cancelled.is_set()


def test_a_watch_while_stopping(watches: Watches) -> None:
    """All streams end with UNAVAILABLE after NOT_SERVING, and no new one begins."""
    stream = FakeStream()
    watches.add(b"", "192.0.2.1", stream, stream.send)
    stream.received()
    watches.stop(PATIENCE)
    assert (stream.sent, stream.code) == ([SERVING, NOT_SERVING, None], StatusCode.UNAVAILABLE)
    with pytest.raises(CallError) as refused:
        watches.add(b"", "192.0.2.1", stream, stream.send)
    assert refused.value.code is Code.UNAVAILABLE
