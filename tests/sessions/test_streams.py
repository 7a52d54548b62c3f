"""Streams beneath the transports: who may open them, how many, what they pay, and what ends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from twisted.internet.task import Clock

from kvtwisted.backends.backend import Settled
from kvtwisted.commands.command import Command
from kvtwisted.commands.scan_stream import ScanStream
from kvtwisted.commands.streams import StreamCommand
from kvtwisted.commands.watch import Watch
from kvtwisted.core.errors import (
    InvalidRequest,
    KvError,
    Overloaded,
    PermissionDenied,
    RateLimited,
    Unauthenticated,
    Unavailable,
)
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.buckets import Limiter, Rate
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.grants import Grant, Principal
from kvtwisted.sessions.session import Session
from kvtwisted.sessions.streams import StreamLimits
from tests.support.doors import Outcome
from tests.support.recorders import CountingRecorder

from .support import grant


class ManualFlow:
    """A flow whose parts come when a test says."""

    def __init__(self, command: StreamCommand, settled: Settled) -> None:
        self.command = command
        self._settled = settled
        self.asked = 0
        self.is_cancelled = False

    def more(self) -> None:
        """See `Flow.more`."""
        self.asked += 1

    def cancel(self) -> None:
        """See `Flow.cancel`."""
        self.is_cancelled = True

    def tell(self, part: object, entries: int = 1, size: int = 0) -> None:
        """Tell a part that was asked for."""
        self.asked -= 1
        assert self.asked == 0
        self.command.entries += entries
        self.command.answered += size
        self.command.part(part)

    def settle(self, error: BaseException | None = None) -> None:
        """It is over."""
        self.command.error = error
        self._settled([self.command])


class StreamBackend:
    """A backend with nothing but streams."""

    capabilities = frozenset({"watch", "scan_stream"})
    waiting = 0

    def __init__(self) -> None:
        self.flows: list[ManualFlow] = []

    def hot(self, key: bytes) -> None:
        """Nothing is."""

    def get_now(self, key: bytes) -> tuple[bool, None]:
        """Nothing is known."""
        return False, None

    def start(self, settled: Settled) -> None:
        """See `Backend.start`."""
        self._settled = settled

    def stop(self) -> None:
        """Nothing waits."""

    def submit(self, commands: Sequence[Command]) -> None:
        """Each has its flow."""
        for command in commands:
            assert isinstance(command, StreamCommand)
            self.flows.append(ManualFlow(command, self._settled))
            command.flow = self.flows[-1]

    def health(self) -> None:
        """It is well."""


class Scene:
    """A door with nothing but streams behind it."""

    def __init__(self, *limits: int) -> None:
        self.clock = Clock()
        self.backend = StreamBackend()
        self.recorder = CountingRecorder()
        reactor: Any = self.clock
        server: Any = None
        self.door = Door(
            reactor, self.backend, server, self.recorder, Limits(), Health(), StreamLimits(*limits or (4, 4))
        )
        self.admission = Admission(2)
        self.parts: list[object] = []

    def session(self, *grants: Grant, name: str = "p", rate: Rate | None = None) -> Session:
        """Of a principal that has these grants, and a share."""
        limiter = None if rate is None else Limiter(rate)
        return Session(
            self.door, Principal(name, grants), self.admission.share(), lambda *refused: None,
            limiter=limiter, seconds=self.clock.seconds,
        )  # fmt: skip

    def open(self, session: Session, command: StreamCommand | None = None) -> tuple[StreamCommand, Outcome, ManualFlow]:
        """Open a stream, which asks for its first part."""
        outcome = Outcome()
        command = command or Watch(budget=1000)
        command.part = self.parts.append
        session.submit(command, outcome)
        command.more()
        self.clock.advance(0)
        return command, outcome, self.backend.flows[-1]

    def open_count(self) -> int:
        """Slots that are taken."""
        return sum(slots.open for slots in self.door.streams.slots.values())


ALL = grant("scan,get")


def test_what_is_asked_before_there_is_a_flow_is_asked_then() -> None:
    """`more` may be called at once; the backend has the command at the end of the turn."""
    scene = Scene()
    _, _, flow = scene.open(scene.session(ALL))
    assert flow.asked == 1
    flow.tell("part")
    assert scene.parts == ["part"]
    assert flow.asked == 0


def test_cancelled_before_there_is_a_flow() -> None:
    """It is cancelled as soon as it is there, and asked for nothing."""
    scene = Scene()
    command, outcome = Watch(budget=1000), Outcome()
    command.part = scene.parts.append
    scene.session(ALL).submit(command, outcome)
    command.more()
    command.cancel()
    scene.clock.advance(0)
    (flow,) = scene.backend.flows
    assert (flow.asked, flow.is_cancelled) == (0, True)
    flow.settle()
    assert outcome.done is command
    assert command.error is None
    assert scene.open_count() == 0


@pytest.mark.parametrize("kind", ["watch", "scan_stream"])
def test_no_more_than_there_may_be(kind: str) -> None:
    """In all and of one principal, whatever kind the others are; they take no room of requests."""
    scene = Scene(4, 4)

    def make() -> StreamCommand:
        return Watch(budget=1000) if kind == "watch" else ScanStream(budget=1000)

    greedy, modest = scene.session(ALL), scene.session(ALL, name="q")
    opened = [scene.open(greedy, make()) for _ in range(3)]
    with pytest.raises(Overloaded, match=r"limits\.max_\w+ is 4, of which each principal may have 3; try again"):
        scene.open(greedy, make())
    scene.open(modest, make())
    with pytest.raises(Overloaded, match=r"limits\.max_\w+ is 4; try again"):
        scene.open(modest, make())
    scene.open(greedy, ScanStream(budget=1000) if kind == "watch" else Watch(budget=1000))
    opened[0][2].settle()
    scene.open(greedy, make())
    assert scene.admission.in_flight == 0


def test_rights() -> None:
    """A Watch needs scan over what it watches, and with values get too; a ScanStream needs scan over its range."""
    scene = Scene(100, 100)
    scans = scene.session(grant("scan", b"a/"))
    both = scene.session(grant("scan", b"a/"), grant("get", b"a/b/"))
    watch = {"budget": 1000}
    for session, command, allowed in (
        (scans, Watch(prefix=b"a/x", **watch), True),
        (scans, Watch(key=b"a/x", **watch), True),
        (scans, Watch(prefix=b"a", **watch), False),
        (scans, Watch(**watch), False),
        (scans, Watch(prefix=b"a/x", with_values=True, **watch), False),
        (both, Watch(prefix=b"a/b/", with_values=True, **watch), True),
        (both, Watch(prefix=b"a/", with_values=True, **watch), False),
        (both, Watch(key=b"a/b/c", with_values=True, **watch), True),
        (scans, ScanStream(b"a/", **watch), True),
        (scans, ScanStream(b"a", **watch), False),
        (scans, ScanStream(b"", b"a/b", b"a/c", **watch), True),
        (scene.session(grant("get")), Watch(**watch), False),
    ):
        if allowed:
            scene.open(session, command)[2].settle()
        else:
            with pytest.raises(PermissionDenied):
                scene.open(session, command)
    assert scene.open_count() == 0
    assert scene.door.streams._open == {}


def test_what_cannot_be_asked_for() -> None:
    """It takes no slot."""
    scene = Scene()
    with pytest.raises(InvalidRequest):
        scene.open(scene.session(ALL), Watch(key=b"k", prefix=b"p", budget=1000))
    assert scene.open_count() == 0
    assert scene.door.streams._open == {}


def test_parts_are_paid_for() -> None:
    """Each part costs its entries and bytes; the next one waits until something is left of the rate."""
    scene = Scene()
    session = scene.session(ALL, rate=Rate(operations=10, bytes=1000))
    command, _, flow = scene.open(session)
    assert flow.asked == 1
    flow.tell("one", entries=30, size=100)
    command.more()
    assert flow.asked == 0  # 32 operations were taken: two seconds are owed
    with pytest.raises(RateLimited):
        scene.open(session)
    for _ in range(21):
        assert flow.asked == 0
        scene.clock.advance(0.1)
    scene.clock.advance(0.2)
    assert flow.asked == 1
    flow.tell("two", size=5000)
    command.more()
    scene.clock.advance(3)
    assert flow.asked == 0
    scene.clock.advance(2)
    assert flow.asked == 1
    assert scene.parts == ["one", "two"]


def test_a_stream_that_is_cancelled_while_it_waits_for_its_rate() -> None:
    """It is not asked for more when that comes."""
    scene = Scene()
    command, outcome, flow = scene.open(scene.session(ALL, rate=Rate(operations=10)))
    flow.tell("one", entries=100)
    command.more()
    command.cancel()
    assert flow.is_cancelled
    flow.settle()
    scene.clock.advance(60)
    assert flow.asked == 0
    assert outcome.done is command


@pytest.mark.parametrize(
    ("is_replaced", "error"),
    [(False, Unauthenticated("the token or certificate holds no longer")), (True, Unavailable("call again"))],
)
def test_a_session_that_is_withdrawn(is_replaced: bool, error: KvError) -> None:
    """Its streams are cancelled, and end with why; those of others go on."""
    scene = Scene()
    session, other = scene.session(ALL), scene.session(ALL, name="q")
    opened, kept = [scene.open(session) for _ in range(2)], scene.open(other)
    session.is_replaced = is_replaced
    session.withdraw()
    assert not kept[2].is_cancelled
    for command, outcome, flow in opened:
        assert flow.is_cancelled
        assert outcome.done is None
        flow.settle()
        assert type(command.error) is type(error)
        assert str(error) in str(command.error)
        assert outcome.done is command
    assert scene.open_count() == 1


def test_a_stopping_server() -> None:
    """All streams end, and no more come."""
    scene = Scene()
    command, _, flow = scene.open(scene.session(ALL))
    scene.door.streams.stop()
    flow.settle()
    assert str(command.error) == "the server is stopping"
    with pytest.raises(Unavailable, match="the server is stopping"):
        scene.open(scene.session(ALL))
    assert scene.open_count() == 0


def test_what_is_counted() -> None:
    """A ScanStream is one scan, whose time is up to who reads it; a Watch, which may last for days, is no operation."""
    scene = Scene()
    session = scene.session(ALL)
    scene.open(session, ScanStream(budget=1000))[2].settle()
    scene.open(session, ScanStream(budget=1000))[2].settle(Unavailable("gone"))
    scene.open(session)[2].settle()
    scene.open(session)[2].settle(Unavailable("gone"))
    assert scene.recorder.operations == [("scan", 1, False), ("scan", 1, True)]
    assert scene.recorder.seconds == []
