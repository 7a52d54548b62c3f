"""Reads of several keys on the reactor thread: what is answered there and how, and what goes to the pool."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.backends.local import batch_reads, inline_reads, pages
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.backends.local.inline_reads import KEYS_IN_A_TURN
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.scan import Page, Scan
from kvtwisted.core.errors import Corruption, DeadlineExceeded, ResponseTooLarge
from kvtwisted.core.options import EngineOptions
from kvtwisted.sessions.grants import Principal
from tests.sessions.support import EVERYTHING
from tests.support.doors import Doorway, Outcome
from tests.support.engines import memory_engine
from tests.support.storage import PLENTY, Storage

KEYS = [b"%03d" % number for number in range(100)]
PAIRS = dict.fromkeys(KEYS, b"v")
#: Of one key and its value, as it is counted.
ENTRY = 3 + 1 + 16


@pytest.fixture(autouse=True, scope="module")
def _whatever_it_takes() -> Iterator[None]:
    """The machine may be slow."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inline_reads, "SECONDS_IN_A_TURN", math.inf)
        patch.setattr(pages, "_SECONDS_NOW", math.inf)
        yield


@pytest.fixture
def doorway() -> Doorway:
    """With some keys stored."""
    made = Doorway(Storage(cache_bytes=1_000_000))
    made.storage.store.mset(PAIRS)
    return made


def ask(doorway: Doorway, command: Any, session: Any = None) -> tuple[Outcome, bool]:
    """Submit it, and give the reactor one turn; whether that was enough, without a thread."""
    outcome = doorway.submit(command, session)
    doorway.reactor.turn()
    return outcome, outcome.done is not None


def mget(keys: list[bytes] = KEYS, **options: Any) -> MGet:
    """One with a budget."""
    return MGet(keys, **{"budget": PLENTY, **options})


def scan(prefix: bytes = b"", **options: Any) -> Scan:
    """The same."""
    return Scan(prefix, **{"budget": PLENTY, **options})


def test_an_mget_from_memory_needs_no_thread(doorway: Doorway) -> None:
    """First RocksDB's memory has the values, then the cache; missing keys and keys that come twice are no matter."""
    store = doorway.storage.store
    asked = [*KEYS, b"missing", KEYS[0]]
    for hits in (0, len(KEYS)):
        outcome, at_once = ask(doorway, mget(asked))
        assert at_once
        assert outcome.result() == PAIRS
        assert list(outcome.result()) == KEYS
        assert (store.cache_hits, store.cache_misses) == (hits, 101 if not hits else 102)
    assert doorway.recorded[-1].keys == 102
    assert doorway.admission.in_flight == doorway.door.waiting == 0


def test_a_cached_mget_does_not_ask_the_engine(doorway: Doorway) -> None:
    """Once each key was read twice."""
    ask(doorway, mget())
    before = len(doorway.storage.engine.calls)
    outcome, at_once = ask(doorway, mget())
    assert at_once
    assert outcome.result() == PAIRS
    assert len(doorway.storage.engine.calls) == before
    assert all(entry.used for entry in doorway.storage.cache.entries.values())


def test_one_that_memory_does_not_know_whole_goes_to_the_pool(doorway: Doorway) -> None:
    """Nothing of it was counted before."""
    doorway.storage.engine.slow = True
    outcome, at_once = ask(doorway, mget())
    assert not at_once
    assert (doorway.storage.store.cache_misses, doorway.admission.in_flight) == (0, 1)
    doorway.run()
    assert outcome.result() == PAIRS
    assert doorway.storage.store.cache_misses == len(KEYS)


@pytest.mark.parametrize(
    "command",
    [
        mget([b"%d" % number for number in range(batch_reads.KEYS_NOW + 1)]),
        mget([b"big%d" % number for number in range(5)]),
        scan(b"big"),
        scan(limit=pages.PAIRS_NOW + 1),
        scan(),
    ],
)
def test_what_is_large_goes_to_the_pool(doorway: Doorway, command: Any) -> None:
    """Keys or bytes; and a scan without a limit that has more pairs than would be read here."""
    store = doorway.storage.store
    store.mset({b"%04d" % number: b"" for number in range(pages.PAIRS_TRIED)})
    store.mset({b"big%d" % number: b"v" * 60_000 for number in range(5)})
    outcome, at_once = ask(doorway, command)
    assert not at_once
    doorway.run()
    assert outcome.result() is not None


def test_what_has_expired(doorway: Doorway) -> None:
    """It is left out; until the clock's mark is past it, which must be written first, a thread does that."""
    storage = doorway.storage
    storage.put_record(b"005", b"gone", storage.clock.now_ms() + 1000)
    storage.put_record(b"006", b"stays", storage.clock.now_ms() + 9000)
    expected = {**PAIRS, b"006": b"stays"}
    for command in (mget(), scan(limit=100)):
        outcome, at_once = ask(doorway, command)
        assert at_once
    assert dict(zip(outcome.result().keys, outcome.result().values)) == {**expected, b"005": b"gone"}
    storage.time.advance(1000)
    written: list[int] = []
    storage.clock.mark_with(written.append)
    del expected[b"005"]
    for command, quick in ((mget(), False), (mget(), True), (scan(limit=100), True)):
        outcome, at_once = ask(doorway, command)
        assert at_once is quick
        doorway.run()
        result = outcome.result()
        assert (dict(zip(result.keys, result.values)) if isinstance(result, Page) else result) == expected
    assert len(written) == 1


def test_a_write_in_between_is_not_seen_by_half(doorway: Doorway) -> None:
    """Between two keys of an MGet another thread writes them all."""
    storage = doorway.storage
    new = dict.fromkeys(KEYS, b"new")
    storage.engine.after("peek", lambda: storage.store.mset(new))
    outcome, at_once = ask(doorway, mget())
    assert not at_once
    doorway.run()
    assert outcome.result() == new


def test_writes_of_a_turn_come_before_its_reads(doorway: Doorway) -> None:
    """Whoever reads behind a write in one turn sees it."""
    doorway.submit(MSet(dict.fromkeys(KEYS, b"new")))
    outcome, at_once = ask(doorway, mget())
    assert at_once
    assert outcome.result() == dict.fromkeys(KEYS, b"new")


def test_a_turn_has_so_many_keys(doorway: Doorway) -> None:
    """What is left has the next one, in its order."""
    outcomes = [doorway.submit(mget()) for _ in range(20)]
    done: list[int] = []
    turns = 0
    while len(done) < len(outcomes):
        before = len(done)
        doorway.reactor.turn()
        done = [number for number, outcome in enumerate(outcomes) if outcome.done is not None]
        assert done == list(range(len(done)))
        assert 0 < len(done) - before <= KEYS_IN_A_TURN // 100 + 1
        assert doorway.door.waiting == len(outcomes) - len(done)
        turns += 1
    assert turns > 1
    assert doorway.pool.waiting == 0


def test_a_turn_has_so_much_time(doorway: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few keys may be much work: each of these takes more than there is."""
    monkeypatch.setattr(inline_reads, "SECONDS_IN_A_TURN", -0.0)
    now = iter(range(1000))
    monkeypatch.setattr(inline_reads, "monotonic", lambda: float(next(now)))
    outcomes = [doorway.submit(mget(KEYS[:1])) for _ in range(3)]
    for number in range(1, 4):
        doorway.reactor.turn()
        assert sum(outcome.done is not None for outcome in outcomes) == number


def test_what_comes_while_others_wait_has_no_turn_of_its_own(doorway: Doorway) -> None:
    """In each turn of the reactor there is one go, however many come."""
    outcomes = [doorway.submit(mget()) for _ in range(12)]
    doorway.reactor.turn()
    first = sum(outcome.done is not None for outcome in outcomes)
    outcomes += [doorway.submit(mget()) for _ in range(12)]
    doorway.reactor.turn()
    assert sum(outcome.done is not None for outcome in outcomes) == 2 * first
    doorway.run()
    assert all(outcome.result() == PAIRS for outcome in outcomes)


def test_principals_have_their_turns_in_a_round() -> None:
    """One that asks for much does not keep another waiting."""
    doorway = Doorway(Storage())
    doorway.storage.store.mset(PAIRS)
    greedy, modest = (doorway.make_session(principal=Principal(name, (EVERYTHING,))) for name in ("greedy", "modest"))
    greedy.admission, modest.admission = doorway.admission.share(), doorway.admission.share()
    many = [doorway.submit(mget(), greedy) for _ in range(100)]
    few = doorway.submit(mget(), modest)
    doorway.reactor.turn()
    assert few.done is not None
    assert sum(outcome.done is not None for outcome in many) < 10
    doorway.run()
    assert all(outcome.result() == PAIRS for outcome in many)


def test_late_or_given_up_while_it_waited_for_its_turn(doorway: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read."""
    until = time.monotonic() + 60
    reads: list[Any] = [mget(deadline=until) for _ in range(10)]
    gone = mget()
    waiting = [True]
    gone.awaited = lambda: waiting[0]
    outcomes = [doorway.submit(read) for read in (*reads, gone)]
    doorway.reactor.turn()
    assert outcomes[-2].done is None
    waiting[0] = False
    before = len(doorway.storage.engine.calls)
    monkeypatch.setattr(inline_reads, "monotonic", lambda: until + 1)
    doorway.run()
    with pytest.raises(DeadlineExceeded, match="before it was started"):
        outcomes[-2].result()
    assert outcomes[-1].result() is None
    assert len(doorway.storage.engine.calls) == before
    assert doorway.admission.in_flight == 0


@pytest.mark.parametrize("command", [mget, scan])
def test_failures_are_the_command_s_own(doorway: Doorway, command: Any) -> None:
    """Its budget, what cannot be encoded, and whatever breaks; the others of the turn are answered."""

    def refuse(_: object) -> object:
        raise Corruption("no text")

    def breaks() -> bool:
        raise ZeroDivisionError

    small, bad, broken, good = command(budget=ENTRY), command(encode=refuse), command(), command()
    broken.awaited = breaks
    outcomes = [doorway.submit(each) for each in (small, bad, broken, good)]
    doorway.run()
    for outcome, error in zip(outcomes, (ResponseTooLarge, Corruption, ZeroDivisionError)):
        with pytest.raises(error):
            outcome.result()
    assert outcomes[-1].result() is not None
    assert doorway.admission.in_flight == 0


def test_stopping_settles_what_waits(doorway: Doorway) -> None:
    """The reactor may have no other turn."""
    outcomes = [doorway.submit(mget()) for _ in range(30)]
    doorway.reactor.turn()
    doorway.backend.stop()
    assert all(outcome.result() == PAIRS for outcome in outcomes)


def test_scans_go_to_the_pool_where_others_run_meanwhile(doorway: Doorway) -> None:
    """Such as those of lbry-rocksdb."""
    doorway.storage.engine.slow = True
    _, at_once = ask(doorway, scan(limit=10))
    assert not at_once
    doorway.run()


def test_a_scan_that_takes_long_goes_to_the_pool(doorway: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    """It needs the disk, perhaps."""
    monkeypatch.setattr(pages, "_SECONDS_NOW", -1.0)
    outcome, at_once = ask(doorway, scan(limit=10))
    assert not at_once
    doorway.run()
    assert outcome.result()._replace(revision=0) == Page(KEYS[:10], [b"v"] * 10, KEYS[9])


def test_after_one_that_took_long_none_is_tried_for_a_while(doorway: Doorway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next one would most likely be in vain, too."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(pages, "_SECONDS_NOW", 1.0)
    store, command, engine = doorway.storage.store, scan(limit=10), doorway.storage.engine

    def wait() -> None:
        now[0] += 2

    engine.after("scan", wait)
    assert store.read_now(command) is None
    before = len(engine.calls)
    for now[0] in (2.0, 2 * pages.REST + 1.9):
        assert store.read_now(command) is None
    assert len(engine.calls) == before
    now[0] = 2 * pages.REST + 2.1
    page = store.read_now(command)
    assert isinstance(page, Page)
    assert page == Page(KEYS[:10], [b"v"] * 10, KEYS[9], revision=store.revision)


@example({"a": 5, "aa": 0, "aaa": 5, "b": 0}, "", "", 1, False, {})  # more expired pairs than the page has
@given(
    st.dictionaries(st.text("ab", min_size=1, max_size=4), st.sampled_from([0, 0, 5, 50]), max_size=30),
    st.text("ab", max_size=2), st.text("ab", max_size=3), st.integers(0, 12) | st.just(1000), st.booleans(),
    st.fixed_dictionaries(
        {},
        optional={
            "start": st.text("ab", max_size=2).map(str.encode),
            "end": st.text("ab", max_size=2).map(str.encode),
            "reverse": st.booleans(),
            "count_only": st.booleans(),
            "with_expiries": st.booleans(),
        },
    ),
)  # fmt: skip
def test_small_scans_give_what_scans_give(
    keys: dict[str, int], prefix: str, cursor: str, limit: int, keys_only: bool, more: dict[str, Any]
) -> None:
    """Whatever is stored, with and without a ttl, and whatever is asked for."""
    storage = Storage(memory_engine())
    for key, ttl in keys.items():
        storage.store.set(key.encode(), key.encode(), ttl)
    storage.time.advance(10_000)
    command = scan(prefix.encode(), cursor=cursor.encode(), limit=limit, keys_only=keys_only, **more)
    found: Any = storage.store.read(command)
    assert storage.store.keys_now(command) > 0
    now = storage.store.read_now(command)
    assert isinstance(now, Page)
    assert now._replace(expiries=tuple(now.expiries)) == found._replace(expiries=tuple(found.expiries))


def test_nothing_is_flushed_for_deleted_keys(tmp_path: Any) -> None:
    """A scan among many gives up at once, and leaves what is to be done about them to the pool."""
    engine = open_engine("rocksdict", str(tmp_path / "data"), EngineOptions())
    try:
        engine.write([(DATA, b"%06d" % number, b"") for number in range(5000)])
        engine.write([(DATA, b"%06d" % number, None) for number in range(4999)])
        flushed: list[str] = []
        engine._flush_deleted = flushed.append  # type: ignore[attr-defined]
        storage = Storage(engine)  # type: ignore[arg-type]
        assert storage.store.read_now(scan(limit=10)) is None
        assert flushed == []
        assert storage.store.read(scan(limit=10)) == Page([b"004999"], [b""], b"", revision=storage.store.revision)
        assert flushed == [DATA]
    finally:
        engine.close()


def test_a_budget_over_all_is_looked_at(doorway: Doorway) -> None:
    """A page with a limit ends where the budget does, as in a thread; that is not tried here."""
    outcome, at_once = ask(doorway, scan(limit=10, budget=3 * ENTRY))
    assert not at_once
    doorway.run()
    assert outcome.result()._replace(revision=0) == Page(KEYS[:3], [b"v"] * 3, KEYS[2])
