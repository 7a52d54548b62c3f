"""Peers that want the server's memory: what each may take is bounded, given back, and never all there is."""

from __future__ import annotations

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest
from hyperframe.frame import DataFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from kvtwisted.rpc.http2.inbound import PATIENCE_SECONDS
from kvtwisted.rpc.http2.outbound import SHARES
from tests.e2e.harness import Launcher
from tests.support.reactors import on

from ..support import CLASSES, MIB, Client, World
from .bystander import Attacked, eventually
from .floods import FLOODS, WATCH, enveloped_start, half_open
from .peer import Peer, enveloped
from .test_hostile import ENHANCE_YOUR_CALM, send_flood

GET = "/kv.v1.KeyValueService/Get"
INITIAL_WINDOW = SettingsFrame.INITIAL_WINDOW_SIZE
#: A window that never fills.
WIDE = (1 << 31) - 1
EXHAUSTED = "8"


def announce(peer: Peer, size: int) -> int:
    """Begin a Set whose message is to have `size` bytes, and send none of them."""
    headers = half_open(peer)
    peer.send(headers, enveloped_start(headers.stream_id, size))
    return headers.stream_id


def ask(peer: Peer, key: str, number: int) -> list[int]:
    """Send so many Gets; returns their streams."""
    message = CLASSES["Get"][0](key=key).SerializeToString()
    return [peer.start(GET, message) for _ in range(number)]


def answers_at_once(world: World, size: int) -> None:
    """Let so many bytes of answers wait on one connection."""
    world.server.native.backlog.retune(SHARES * size)  # type: ignore[union-attr]


def test_announced_messages_that_never_come(attacked: Attacked) -> None:
    """Who announces much and sends nothing gets its promise, and loses it as soon as somebody else wants it."""
    native = attacked.native
    with attacked.unharmed(), ExitStack() as stack:
        peers = [stack.enter_context(Peer(attacked.address)) for _ in range(10)]
        with attacked.clock.standing_still():
            calls = [[announce(peer, native.terms.message_limit) for _ in range(20)] for peer in peers]
            for peer in peers:
                peer.sync()
            assert native.budget.waiting
            assert native.budget.used <= native.budget.capacity
            # A good client's large message does not wait for any of them.
            assert attacked.world.client.call("Set", key="large", value="v" * MIB, ttl=0).success
        attacked.clock.jump(PATIENCE_SECONDS + 1)
        # Long before its deadline.
        answer = peers[0].answer(calls[0][0])
        assert answer.status == EXHAUSTED
        limit = 2 * native.budget.capacity
        assert f"limits.max_unfinished_bytes is {limit} bytes" in answer.headers["grpc-message"]
    assert native.budget.refused >= 1


def test_announced_and_reset(attacked: Attacked) -> None:
    """Asking for memory and taking it back, again and again, leaves nothing behind."""
    limit = attacked.native.terms.message_limit
    with attacked.unharmed(), attacked.clock.standing_still(), ExitStack() as stack:
        first, second, peer = [stack.enter_context(Peer(attacked.address)) for _ in range(3)]
        for _ in range(10):
            announce(first, limit)
        first.sync()
        announce(second, limit)
        second.sync()
        for _ in range(10):
            streams = [announce(peer, limit) for _ in range(50)]
            peer.send(*[RstStreamFrame(stream, error_code=8) for stream in streams])
        peer.sync()
        assert 0 < len(attacked.native.budget._waiting) <= 2 * attacked.native.budget.waiting + 100


def test_unfinished_messages(attacked: Attacked) -> None:
    """First windows that are filled and never ended: one connection cannot take what others need."""
    native = attacked.native
    with attacked.unharmed(), ExitStack() as stack:
        for peer in [stack.enter_context(Peer(attacked.address)) for _ in range(3)]:
            for _ in range(200):
                headers = half_open(peer)
                peer.send(headers, enveloped_start(headers.stream_id, 60_000))
                peer.send(*[DataFrame(headers.stream_id, b"x" * 14_000) for _ in range(4)])
            peer.sync()
            refused = [answer for answer in peer.answers.values() if answer.status == EXHAUSTED]
            assert refused
            for answer in refused:
                assert "limits.max_unfinished_bytes is" in answer.headers["grpc-message"]
        assert native.budget.used < native.budget.capacity
        counted = native.budget.refused
        assert counted >= len(refused)
        # With more room the same is no attack.
        native.budget.retune(1 << 30)
        with Peer(attacked.address) as peer:
            for _ in range(200):
                headers = half_open(peer)
                peer.send(headers, enveloped_start(headers.stream_id, 60_000))
                peer.send(*[DataFrame(headers.stream_id, b"x" * 14_000) for _ in range(4)])
            peer.sync()
            assert {answer.status for answer in peer.answers.values()} <= {None}
        assert native.budget.refused == counted


def test_those_who_wait_get_the_room_that_is_added(attacked: Attacked) -> None:
    """At once, without anybody's having to end."""
    native = attacked.native
    with attacked.unharmed(), attacked.clock.standing_still(), Peer(attacked.address) as peer:
        for _ in range(20):
            announce(peer, native.terms.message_limit)
        peer.sync()
        assert native.budget.waiting > 5
        on(attacked.world.server.reactor, native.retune, 100 * native.terms.message_limit, 1 << 28)
        assert native.budget.waiting == 0


def test_a_message_in_crumbs(attacked: Attacked) -> None:
    """A message that comes ever so slowly ends at its call's deadline."""
    with attacked.unharmed(), Peer(attacked.address) as peer:
        stream = announce(peer, 1000)
        for _ in range(10):
            peer.send(DataFrame(stream, b"x"))
            peer.sync()  # or all this time would pass before the call has begun
            attacked.clock.jump(3.1)
        assert peer.answer(stream).status == "4"


@pytest.fixture
def small_backlogs(attacked: Attacked) -> int:
    """Bytes that may wait on one connection; eight times that on all."""
    answers_at_once(attacked.world, 4 * MIB)
    return 4 * MIB


def test_answers_that_no_window_lets_out(attacked: Attacked, small_backlogs: int) -> None:
    """Answers wait up to a limit, calls after that; when nothing moves for long the connection is cut off."""
    attacked.world.client.call("Set", key="large", value="v" * MIB, ttl=0)
    with attacked.unharmed(), Peer(attacked.address, {INITIAL_WINDOW: 0}) as peer:
        streams = ask(peer, "large", 900)
        peer.sync()
        assert small_backlogs <= attacked.native.backlog.bytes <= small_backlogs + 2 * MIB
        peer.send(*[RstStreamFrame(stream, error_code=8) for stream in streams[:100]])
        peer.sync()
        attacked.clock.jump(31)
        # Those that never began have ended by themselves; the others still wait.
        answer = peer.answer(streams[-1])
        assert answer.status == "4"
        assert "limits.max_unsent_bytes is 33554432 bytes" in answer.headers["grpc-message"]
        attacked.clock.jump(61)
        assert peer.read_or_end(lambda frame: False) is None
    assert attacked.native.cut_off["slow_reader"] == 1


def test_requests_that_wait_are_counted(attacked: Attacked, small_backlogs: int) -> None:
    """Large requests behind answers that nobody takes: they are memory too, until their streams are reset."""
    native = attacked.native
    attacked.world.client.call("Set", key="large", value="v" * MIB, ttl=0)
    with attacked.unharmed(), Peer(attacked.address, {INITIAL_WINDOW: 0}) as peer:
        ask(peer, "large", 6)
        message = enveloped(CLASSES["Set"][0](key="k", value="v" * 60_000).SerializeToString())
        pieces = [message[start : start + 16_000] for start in range(0, len(message), 16_000)]
        streams = []
        for _ in range(300):
            headers = half_open(peer)
            streams.append(headers.stream_id)
            data = [DataFrame(headers.stream_id, piece) for piece in pieces]
            data[-1].flags.add("END_STREAM")
            peer.send(headers, *data)
        peer.sync()
        assert MIB < native.budget.used < native.budget.capacity
        peer.send(*[RstStreamFrame(stream, error_code=8) for stream in streams])
        peer.sync()
        assert native.budget.used < MIB


def test_many_that_take_no_answers(attacked: Attacked, small_backlogs: int) -> None:
    """With many such connections each may have less waiting, and the slowest are cut off."""
    attacked.world.client.call("Set", key="large", value="v" * MIB, ttl=0)
    with attacked.unharmed(), ExitStack() as stack:
        peers = [stack.enter_context(Peer(attacked.address, {INITIAL_WINDOW: 0})) for _ in range(60)]
        for peer in peers:
            ask(peer, "large", 10)
        eventually(lambda: attacked.native.connections < 60)
        eventually(lambda: attacked.native.backlog.bytes <= 68 * MIB)
        cut = attacked.native.cut_off["unsent"]
        assert cut > 0
        # A lower limit holds at once, and each is counted once.
        on(attacked.world.server.reactor, attacked.native.retune, 1 << 28, 16 * MIB)
        eventually(lambda: attacked.native.backlog.bytes <= 34 * MIB)
        assert attacked.native.cut_off["unsent"] > cut
        # The good client's is the one beside the peers'.
        eventually(lambda: attacked.native.cut_off["unsent"] == 61 - attacked.native.connections)


def test_windows_of_a_byte(attacked: Attacked) -> None:
    """An answer that is let out byte by byte takes more frames than it is worth."""
    attacked.world.client.call("Set", key="large", value="v" * MIB, ttl=0)
    with attacked.unharmed(), Peer(attacked.address, {INITIAL_WINDOW: 0}) as peer:
        (stream,) = ask(peer, "large", 1)
        for _ in range(30):
            peer.send(*[WindowUpdateFrame(stream, window_increment=1)] * 100)
        assert peer.goaway().error_code == ENHANCE_YOUR_CALM


def test_a_window_that_goes_below_zero_and_back(attacked: Attacked) -> None:
    """Changed windows of all streams: nothing is lost and nothing sent twice."""
    attacked.world.client.call("Set", key="large", value="v" * 100_000, ttl=0)
    with attacked.unharmed(), Peer(attacked.address, {INITIAL_WINDOW: 1000}) as peer:
        streams = ask(peer, "large", 5)
        for size in (0, 10, 0, 40_000, 5, 0, 200_000):
            peer.send(SettingsFrame(settings={INITIAL_WINDOW: size}))
        peer.send(WindowUpdateFrame(0, window_increment=1_000_000))
        answers: list[Any] = [CLASSES["Get"][1].FromString(peer.answer(stream).messages[0]) for stream in streams]
        assert {answer.value for answer in answers} == {"v" * 100_000}


def test_answers_that_nobody_reads(attacked: Attacked) -> None:
    """With windows wide open and the socket full, nothing more is read from a peer; in the end it is cut off."""
    attacked.world.client.call("Set", key="some", value="v" * 16_000, ttl=0)
    with attacked.unharmed(), Peer(attacked.address, {INITIAL_WINDOW: WIDE}, receive_buffer=4096) as peer:
        peer.send(WindowUpdateFrame(0, window_increment=WIDE - 65_535))
        peer.socket.settimeout(0.5)
        with pytest.raises(socket.timeout):
            ask(peer, "some", 1_000_000)
        assert attacked.native.backlog.bytes <= attacked.native.backlog.limit // SHARES + MIB
        attacked.clock.jump(61)
        eventually(lambda: attacked.native.connections == 1)


def test_a_watch_that_is_not_read(attacked: Attacked) -> None:
    """However often the health changes, what waits for a watcher is one message."""
    health = attacked.world.health
    with attacked.unharmed(), Peer(attacked.address, {INITIAL_WINDOW: 0}) as peer:
        watch = half_open(peer, WATCH)
        peer.send(watch, DataFrame(watch.stream_id, enveloped(HealthCheckRequest().SerializeToString())))
        peer.sync()
        for number in range(500):
            health.fail("test", "ill") if number % 2 else health.recover("test")
        peer.sync()
        assert attacked.native.backlog.bytes < 100


@pytest.mark.long
def test_a_process_after_all_of_it(tmp_path: Path) -> None:
    """A real server whose memory is, after floods and half requests on many connections, what it was before."""
    launcher = Launcher(tmp_path)
    try:
        process = launcher("--grpc-transport", "native")
        address = process.grpc_address
        with grpc.insecure_channel(address) as channel:
            good = Client(channel)
            good.call("Set", key="large", value="v" * MIB, ttl=0)
            _attack(address)
            _flood(address)
            good.call("Get", key="large")
            before = _resident(process.pid)
            for _ in range(3):
                _attack(address)
            _flood(address)
            assert good.call("Get", key="large").value == "v" * MIB
            # The allowance is for the allocator; the rounds together held four times as much.
            eventually(lambda: _resident(process.pid) < before + 64 * MIB)
    finally:
        launcher.end()


def _attack(address: str) -> None:
    with ExitStack() as stack:
        for _ in range(30):
            peer = stack.enter_context(Peer(address, {INITIAL_WINDOW: 0}))
            peer.send(*[half_open(peer) for _ in range(300)])
            ask(peer, "large", 2)
            for _ in range(10):
                headers = half_open(peer)
                peer.send(headers, enveloped_start(headers.stream_id, 16 * MIB))
                peer.send(*[DataFrame(headers.stream_id, b"x" * 16_000) for _ in range(3)])
            peer.sync()


def _flood(address: str) -> None:
    for flood in FLOODS:
        with Peer(address) as peer:
            send_flood(peer, flood)
            assert peer.goaway().error_code == ENHANCE_YOUR_CALM


def _resident(pid: int) -> int:
    """Bytes of memory that a process has."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    (line,) = [line for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(line.split()[1]) * 1024
