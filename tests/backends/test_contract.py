"""What the port promises, over every backend: each through a door, as it will be used, and some by itself."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from typing import Any

import pytest

from kvtwisted.commands.command import ENTRY_OVERHEAD, Command
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.scan import Scan
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import (
    DeadlineExceeded,
    InvalidKey,
    KvError,
    ResponseTooLarge,
    StorageError,
    TooLarge,
    Unavailable,
)
from kvtwisted.core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, Limits
from tests.support.doors import Blocking, Doorway, Outcome
from tests.support.pages import page_of
from tests.support.storage import PLENTY

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

KEY, VALUE = b"k", b"v"


@pytest.fixture(params=[False, True], ids=["", "slow"])
def doorway(request: pytest.FixtureRequest) -> Doorway:
    """A door to an empty backend; the local one also with an engine that may block."""
    return Doorway(slow=request.param)


@pytest.fixture
def client(doorway: Doorway) -> Blocking:
    """Waits for each command."""
    return doorway.blocking()


@pytest.mark.parametrize(
    "value", [b"\xff", b"\xff\x01\x00", b"\x80", b"a\xff", b"\xff" * 300, b"\xff" * MAX_VALUE_BYTES]
)
@pytest.mark.parametrize("ttl", [0, 9])
def test_values_are_any_bytes(client: Blocking, value: bytes, ttl: int) -> None:
    """Also those that no text begins with; by themselves, in a batch, and among others of a turn."""
    client.set(b"a", value, ttl)
    client.mset({b"b": b"text", b"c": value}, ttl)
    assert client.get(b"a") == client.get(b"c") == Found(value, ttl)
    assert client.mget([b"a", b"b", b"c"], budget=4 * MAX_VALUE_BYTES) == {b"a": value, b"b": b"text", b"c": value}
    assert client.scan(b"", limit=1, cursor=b"b", budget=4 * MAX_VALUE_BYTES) == page_of([(b"c", value)], b"")


def every_command(deadline: float) -> list[Command]:
    """One of each kind."""
    return [
        Set(KEY, VALUE, 0, deadline),
        Get(KEY, deadline),
        Delete(KEY, deadline),
        MSet({KEY: VALUE}, 0, deadline),
        MGet([KEY], budget=PLENTY, deadline=deadline),
        MDelete([KEY], deadline),
        Scan(b"", budget=PLENTY, deadline=deadline),
    ]


# The operations.


def test_one_key(client: Blocking) -> None:
    """Set, replaced, deleted; nothing is wrong with deleting what is not there."""
    assert client.get(KEY) is None
    client.set(KEY, VALUE)
    assert client.get(KEY) == Found(VALUE, 0)
    client.set(KEY, b"")
    assert client.get(KEY) == Found(b"", 0)
    client.delete(KEY)
    client.delete(KEY)
    assert client.get(KEY) is None


def test_many_keys(client: Blocking) -> None:
    """All of a batch; what is not there is left out, and what is asked for twice is given once, in the order asked."""
    client.mset({b"a": b"1", b"b": b"2", b"c": b"3"})
    client.mset({})
    assert list(client.mget([b"c", b"none", b"a", b"c"], budget=PLENTY).items()) == [(b"c", b"3"), (b"a", b"1")]
    client.mdelete([b"a", b"none", b"a"])
    assert client.scan(b"", budget=PLENTY) == page_of([(b"b", b"2"), (b"c", b"3")], b"")
    assert client.mget([], budget=PLENTY) == {}


def test_ttl(doorway: Doorway, client: Blocking) -> None:
    """The seconds that are left, rounded up; from the deadline on the key is there for nobody."""
    client.set(KEY, VALUE, 10)
    client.mset({b"m": VALUE}, 20)
    assert client.get(KEY) == Found(VALUE, 10)
    doorway.storage.time.advance(8_001)
    assert client.get(KEY) == Found(VALUE, 2)
    assert client.get(b"m") == Found(VALUE, 12)
    doorway.storage.time.advance(1_999)
    assert client.get(KEY) is None
    assert client.mget([KEY, b"m"], budget=PLENTY) == {b"m": VALUE}
    assert client.scan(b"", keys_only=True, budget=PLENTY) == page_of([(b"m", b"")], b"")
    client.set(b"m", b"for ever")
    doorway.storage.time.advance(1_000_000)
    assert client.get(b"m") == Found(b"for ever", 0)


def test_scan_pages(client: Blocking) -> None:
    """In byte order, within the prefix and after the cursor; the cursor of the last page is empty."""
    keys = [b"a", b"a\x00", b"aa", b"ab", b"b", "é".encode(), "\U0010ffff".encode()]
    client.mset(dict.fromkeys(reversed(keys), VALUE))
    seen: list[bytes] = []
    cursor = b""
    for _ in keys:
        page = client.scan(b"", cursor=cursor, limit=2, keys_only=True, budget=PLENTY)
        seen += [key for key, _ in page.items]
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == keys
    assert [key for key, _ in client.scan(b"a", budget=PLENTY).items] == keys[:4]
    assert client.scan(b"a", cursor=b"a\x00", limit=2, budget=PLENTY) == page_of([(b"aa", VALUE), (b"ab", VALUE)], b"")
    assert client.scan(b"b", cursor=b"a", limit=9, budget=PLENTY).items == [(b"b", VALUE)]
    assert client.scan(b"a", cursor=b"b", limit=9, budget=PLENTY) == page_of([], b"")


def test_budgets(client: Blocking) -> None:
    """A page ends before it is over; what cannot be cut short is refused, in the same words by every backend."""
    client.mset({b"a": b"12345", b"b": b"12345"})
    one = 1 + 5 + ENTRY_OVERHEAD
    assert client.scan(b"", limit=9, budget=2 * one - 1) == page_of([(b"a", b"12345")], b"a")
    assert client.scan(b"", cursor=b"a", budget=one) == page_of([(b"b", b"12345")], b"")
    assert client.scan(b"", limit=9, budget=1).items == [(b"a", b"12345")]
    assert len(client.scan(b"", budget=2 * one).items) == 2
    with pytest.raises(ResponseTooLarge, match=f"prefix: the answer exceeds {2 * one - 1} bytes"):
        client.scan(b"", budget=2 * one - 1)
    assert len(client.mget([b"a", b"b"], budget=2 * one)) == 2
    with pytest.raises(ResponseTooLarge, match=f"exceed {2 * one - 1} bytes"):
        client.mget([b"a", b"b"], budget=2 * one - 1)


def test_the_largest(client: Blocking) -> None:
    """What the limits let through is kept as it is."""
    key, value = b"k" * MAX_KEY_BYTES, b"v" * MAX_VALUE_BYTES
    client.set(key, value)
    assert client.get(key) == Found(value, 0)
    assert client.scan(key, budget=PLENTY).items == [(key, value)]


def test_limits_are_the_door_s(backend: str) -> None:
    """What is over them never reaches the backend."""
    doorway = Doorway(limits=Limits(max_batch_keys=2))
    client = doorway.blocking()
    for command in (Set(b"", VALUE), Get(b"k" * (MAX_KEY_BYTES + 1)), Set(KEY, b"v" * (MAX_VALUE_BYTES + 1))):
        with pytest.raises((InvalidKey, TooLarge)):
            client.run(command)
    with pytest.raises(TooLarge):
        client.mget([b"a", b"b", b"c"], budget=PLENTY)
    assert doorway.door.waiting == doorway.pool.waiting == 0


# How it answers.


def test_results_are_made_ready_where_they_are_made(doorway: Doorway) -> None:
    """`encode` makes the result, and what it weighed before is known; what it raises is the command's error."""
    doorway.blocking().mset({b"a": b"12", b"b": b"3"})

    def refuse(result: Any) -> Any:
        raise StorageError("not text")

    for command in (MGet([b"a", b"b"], budget=PLENTY), Scan(b"", budget=PLENTY)):
        command.encode = repr
        result = doorway.blocking().run(command)
        assert isinstance(result, str)
        assert command.answered == (3 if type(command) is MGet else 5)
    with pytest.raises(StorageError, match="not text"):
        doorway.blocking().run(Get(b"a", encode=refuse))


def test_what_its_time_is_over_for(doorway: Doorway) -> None:
    """A read that is taken up after its deadline is not begun. A write is not, or it goes in and says so."""
    soon = time.monotonic() + 0.005
    outcomes = [doorway.submit(command) for command in every_command(soon)]
    time.sleep(0.01)
    doorway.run()
    for outcome in outcomes:
        assert outcome.done is not None
        error = outcome.done.error
        assert isinstance(error, DeadlineExceeded) or (error is None and outcome.done.writes)
    assert doorway.admission.in_flight == 0


def test_what_nobody_waits_for(doorway: Doorway) -> None:
    """Reads are left out and writes go in; both are settled."""
    commands = [Get(KEY), MGet([KEY], budget=PLENTY), Scan(b"", budget=PLENTY), Set(KEY, VALUE)]
    for command in commands:
        command.awaited = lambda: False
    outcomes = [doorway.submit(command) for command in commands]
    doorway.run()
    assert [outcome.result() for outcome in outcomes] == [None] * 4
    assert doorway.storage.data() == {KEY: VALUE}


@pytest.mark.parametrize("error", [StorageError("broken"), Unavailable("gone"), ValueError("a defect")])
def test_failures(doorway: Doorway, error: Exception) -> None:
    """What a command fails with is its error; others, and later ones, are carried out. Nothing of a batch is kept."""
    doorway.blocking().set(b"before", VALUE)
    doorway.storage.engine.slow = True
    doorway.storage.engine.fail("write", error, times=1)
    with pytest.raises(type(error)):
        doorway.blocking().mset({b"a": VALUE, b"b": VALUE})
    for method, command in [
        ("get", Get(b"before")),
        ("multi_get", MGet([b"before"], budget=PLENTY)),
        ("scan", Scan(b"", budget=PLENTY)),
    ]:
        doorway.storage.engine.fail(method, error, times=1)
        with pytest.raises(type(error)):
            doorway.blocking().run(command)
    assert doorway.blocking().scan(b"", budget=PLENTY).items == [(b"before", VALUE)]
    doorway.blocking().set(b"after", VALUE)
    assert doorway.blocking().get(b"after") == Found(VALUE, 0)
    assert doorway.admission.in_flight == 0


def test_each_is_settled_once(doorway: Doorway) -> None:
    """Of many that come together, over few keys: in any order, each once; what was settled is seen by what follows."""
    rng = random.Random(14)
    keys = [b"%d" % number for number in range(5)]
    known: dict[bytes, bytes | None] = dict.fromkeys(keys)
    for turn in range(40):
        chosen = rng.sample(keys, 4)
        asked: list[tuple[bytes, Outcome]] = []
        for number, key in enumerate(chosen):
            kind = rng.randrange(4)
            value = b"%d.%d" % (turn, number)
            if kind == 0:
                asked.append((key, doorway.submit(Set(key, value))))
                known[key] = value
            elif kind == 1:
                asked.append((key, doorway.submit(Delete(key))))
                known[key] = None
            else:
                read = Get(key) if kind == 2 else MGet([key], budget=PLENTY)
                asked.append((key, doorway.submit(read)))
        doorway.run()
        # An Outcome refuses to be told twice.
        for key, outcome in asked:
            result = outcome.result()
            command = outcome.done
            if type(command) is Get:
                assert (result and result.value) == known[key]
            elif type(command) is MGet:
                assert result.get(key) == known[key]
    assert doorway.storage.data() == {key: value for key, value in sorted(known.items()) if value is not None}
    assert (doorway.door.waiting, doorway.admission.in_flight) == (0, 0)


def test_order_on_a_key(doorway: Doorway) -> None:
    """Who waits for each answer sees their own writes, whoever else writes other keys meanwhile."""
    told: list[bytes | None] = []

    def write(number: int) -> None:
        if number < 30:
            command = Set(KEY, b"%d" % number) if number % 7 != 6 else Delete(KEY)
            doorway.session.submit(command, lambda _: doorway.session.submit(Get(KEY), read(number)))

    def read(number: int) -> Any:
        def done(command: Command) -> None:
            told.append(command.result and command.result.value)
            write(number + 1)

        return done

    write(0)
    others = [doorway.submit(Set(b"other%d" % number, VALUE)) for number in range(100)]
    while len(told) < 30:
        doorway.run()
    assert told == [None if number % 7 == 6 else b"%d" % number for number in range(30)]
    assert all(outcome.done for outcome in others)


def test_a_batch_is_seen_whole(doorway: Doorway) -> None:
    """Batches over the same keys, and reads of them, all at once: one view sees one batch."""
    keys = [b"%d" % number for number in range(10)]
    reads = []
    for number in range(30):
        doorway.submit(MSet(dict.fromkeys(keys, b"%d" % number)))
        reads += [doorway.submit(MGet(keys, budget=PLENTY)), doorway.submit(Scan(b"", budget=PLENTY))]
    doorway.run()
    for outcome in reads:
        result = outcome.result()
        values = list(result.values()) if isinstance(result, dict) else [value for _, value in result.items]
        assert len(values) in (0, len(keys))
        assert len(set(values)) <= 1


# The rest of the port.


def test_what_memory_has(doorway: Doorway, client: Blocking) -> None:
    """What is told at once is what a Get would be told."""
    client.set(KEY, VALUE)
    known, found = doorway.backend.get_now(KEY)
    assert (known, found) in [(True, Found(VALUE, 0)), (False, None)]
    entry = doorway.backend.hot(KEY)
    assert entry is None or entry.answer in (None, Found(VALUE, 0))


def test_waiting(doorway: Doorway) -> None:
    """Commands that nothing has taken up yet are counted, and no others."""
    assert doorway.door.waiting == 0
    for command in every_command(time.monotonic() + 60):
        doorway.submit(command)
    assert doorway.door.waiting == 7
    doorway.run()
    assert doorway.door.waiting == 0


def test_health(doorway: Doorway) -> None:
    """The server's own conditions, then whether the storage can be read."""
    assert doorway.door.health() is None
    doorway.health.fail("disk", "the disk is full")
    assert doorway.door.health() == "the disk is full"
    doorway.health.recover("disk")
    doorway.storage.engine.fail("get", StorageError("it cannot be read"))
    assert doorway.door.health() == "it cannot be read"
    doorway.storage.engine.heal("get")
    assert doorway.door.health() is None
    assert doorway.recorder.health_checks == 4


def test_stop(doorway: Doorway) -> None:
    """What is under way is settled, once and with an answer of some kind."""
    outcomes = [doorway.submit(command) for command in every_command(time.monotonic() + 60)]
    doorway.reactor.turn()
    doorway.backend.stop()
    doorway.run()
    for outcome in outcomes:
        assert outcome.done is not None
        assert outcome.done.error is None or isinstance(outcome.done.error, KvError)
    assert doorway.admission.in_flight == 0


def test_it_says_what_it_can(doorway: Doorway) -> None:
    """By names; the ten operations need none."""
    assert all(isinstance(name, str) for name in doorway.backend.capabilities)


def test_commands_of_one_turn_are_told_together_or_not(doorway: Doorway) -> None:
    """The door tells each command's own waiter, and those who flush after each group of them."""
    flushed: list[int] = []
    done: list[Command] = []
    doorway.door.on_settled(lambda: flushed.append(len(done)))
    commands: Sequence[Command] = every_command(time.monotonic() + 60)
    for command in commands:
        doorway.session.submit(command, done.append)
    doorway.run()
    assert sorted(map(id, done)) == sorted(map(id, commands))
    assert flushed == sorted(flushed)
    assert flushed[-1] == len(commands)
