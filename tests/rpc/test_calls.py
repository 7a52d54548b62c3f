"""What happens to a message before there is a command: it is charged for, counted in, expanded, counted and decoded."""

from __future__ import annotations

import gzip
from typing import Any

import pytest

from kvtwisted.commands.set import Set
from kvtwisted.core.errors import InvalidKey, KvError, Overloaded, RateLimited, TooLarge
from kvtwisted.rpc.calls import MAX_FIELDS, OTHER_FIELDS, Terms, overdue
from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, Call
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.buckets import Limiter, Rate
from kvtwisted.sessions.charged import Charged
from kvtwisted.sessions.session import Session
from tests.sessions.support import ManualTime
from tests.support.doors import Doorway

#: Says that no test here is about a backend.
WITHOUT_BACKEND = True
CALL = Call(float("inf"), 4 << 20)
TERMS = Terms(10_000, 4 << 20, 60.0, 3)
#: What one second has.
BYTES = 16_384
SET = kv.SetRequest(key="k", value="v" * 1000).SerializeToString()
#: A message of empty keys: two bytes each on the wire.
EMPTY_KEY = b"\x0a\x00"


class Scene(Doorway):
    """A session that may have eight operations and BYTES at once, and room for as many bytes.

    Powers of two: their parts of a second are exact.
    """

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(4, BYTES)
        self.limiter = Limiter(Rate(8, BYTES))
        self.session: Session = self.make_session(
            *self.session.principal.grants, limiter=self.limiter, seconds=ManualTime()
        )

    def left(self) -> tuple[int, int]:
        """Operations and bytes that are left of the rate. They are gone afterwards."""

        operations = sum(not self.limiter.take(1, 0, 1000.0) for _ in range(9))
        # As the digits of a number are found.
        halves = [BYTES >> place for place in range(BYTES.bit_length())]
        return operations, sum(size for size in halves if not self.limiter.take(0, size, 1000.0))

    def refused(self, method: str, message: bytes, *, compressed: bool = False) -> Exception:
        """What a message is refused for when it is read."""
        charged = Charged(self.session, len(message))
        with pytest.raises((KvError, CallError)) as refused:
            TERMS.read(charged, METHODS[method], message, CALL, compressed=compressed)
        charged.refuse()
        assert (self.admission.in_flight, self.admission.bytes) == (0, 0)
        return refused.value


@pytest.fixture
def scene() -> Scene:
    """A new one."""
    return Scene()


@pytest.mark.parametrize("compressed", [False, True])
def test_a_good_message_pays_for_its_command(scene: Scene, compressed: bool) -> None:
    """One operation, and the bytes of key and value: nothing of what was charged before is left."""
    message = gzip.compress(SET) if compressed else SET
    charged = Charged(scene.session, len(message))
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, len(message))
    command = TERMS.read(charged, METHODS["Set"], message, CALL, compressed=compressed)
    assert isinstance(command, Set)
    # What it expanded to is there beside what came.
    assert scene.admission.bytes == (len(message) + len(SET) if compressed else len(SET))
    charged.submit(command, lambda command: None)
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, 1001)
    scene.run()
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    assert scene.storage.data() == {b"k": b"v" * 1000}
    assert scene.left() == (7, BYTES - 1001)


def test_what_is_refused_by_the_session_has_left(scene: Scene) -> None:
    """And pays what the session takes for it."""
    message = kv.SetRequest(key="").SerializeToString()
    charged = Charged(scene.session, len(message))
    command = TERMS.read(charged, METHODS["Set"], message, CALL, compressed=False)
    with pytest.raises(InvalidKey):
        charged.submit(command, lambda command: pytest.fail("it was refused"))
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    assert scene.left()[0] == 7


def test_what_nobody_waits_for_costs_nothing(scene: Scene) -> None:
    """It was not looked at."""
    Charged(scene.session, 5000).forget()
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    assert scene.left() == (8, BYTES)


@pytest.mark.parametrize(
    ("method", "message", "cause"),
    [
        ("Set", b"\xff" * 1000, "not a kv.v1.SetRequest message"),
        ("Set", EMPTY_KEY * (MAX_FIELDS + OTHER_FIELDS + 1), "the request has over 1000 fields"),
        ("MGet", EMPTY_KEY * (3 + OTHER_FIELDS + 1), "keys: too many: over 3 keys were sent"),
        ("MSet", EMPTY_KEY * (3 + OTHER_FIELDS + 1), "key_values: too many: over 3 keys were sent"),
    ],
    ids=["no message", "fields", "keys", "pairs"],
)
def test_a_bad_message_has_cost_its_bytes(scene: Scene, method: str, message: bytes, cause: str) -> None:
    """It was work all the same."""
    assert cause in str(scene.refused(method, message))
    assert scene.left() == (7, BYTES - len(message))


def test_how_many_fields_are_decoded() -> None:
    """As many as there may be keys, with some beside them; the command says the rest."""
    for method, most in (("MGet", 3), ("MDelete", 3), ("Get", MAX_FIELDS)):
        TERMS.check_fields(METHODS[method], EMPTY_KEY * (most + OTHER_FIELDS))
        with pytest.raises((TooLarge, CallError)):
            TERMS.check_fields(METHODS[method], EMPTY_KEY * (most + OTHER_FIELDS + 1))


def test_what_expands_is_charged_for_what_it_is(scene: Scene) -> None:
    """Not for what came on top of it."""
    message = gzip.compress(b"\xff" * 5000)
    assert isinstance(scene.refused("Set", message, compressed=True), CallError)
    assert scene.left() == (7, BYTES - 5000)


def test_what_expands_too_far(scene: Scene) -> None:
    """Beyond the limit of a message, the room that there is, or the rate: none of it stays counted in."""
    error = scene.refused("Set", gzip.compress(bytes(10_001)), compressed=True)
    assert isinstance(error, CallError)
    assert error.code is Code.RESOURCE_EXHAUSTED
    # What is alone in the room may grow; with somebody else in it, it may not.
    scene.admission.enter(8000)
    charged = Charged(scene.session, 100)
    with pytest.raises(Overloaded):
        TERMS.read(charged, METHODS["Set"], gzip.compress(bytes(9000)), CALL, compressed=True)
    charged.refuse()
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, 8000)


def test_what_finds_no_room_costs_nothing(scene: Scene) -> None:
    """It was not looked at."""
    scene.admission.enter(BYTES - 500)
    for _ in range(20):
        with pytest.raises(Overloaded):
            Charged(scene.session, 1000)
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, BYTES - 500)
    assert scene.left() == (8, BYTES)


def test_what_is_over_the_rate_does_not_come_in(scene: Scene) -> None:
    """Nor is it owed."""
    scene.limiter.take(8, 0, 1000.0)
    with pytest.raises(RateLimited):
        Charged(scene.session, 1000)
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    assert scene.left() == (0, BYTES)


def test_a_call_without_time_is_counted(scene: Scene) -> None:
    """Among those that were given up before they were started."""
    error: Any = overdue(scene.session)
    assert "before it was started" in str(error)
    assert scene.admission.overdue.value == 1
