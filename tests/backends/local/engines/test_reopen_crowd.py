"""Reopen under everybody at once: readers, scans, writers and fsyncs of many threads."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, META, Engine
from kvtwisted.core.errors import Unavailable, WriteStalled

from .support import PERSISTENT, PLENTY, opened

#: Set to some hundreds for a long trial.
ROUNDS = int(os.environ.get("KVTWISTED_REOPENINGS", "12"))


class Crowd:
    """Threads that use an engine in every way, and write down what was acknowledged and what they may not see."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.stop = threading.Event()
        self.acknowledged: dict[bytes, bytes] = {}
        self.surprises: list[BaseException] = []
        self.done = dict.fromkeys(("write", "put", "get", "few", "many", "scan", "sync"), 0)
        jobs = [self.write, self.write, self.put, self.get, self.few, self.many, self.scan, self.sync]
        self._threads = [threading.Thread(target=self._go, args=(number, job)) for number, job in enumerate(jobs)]

    def __enter__(self) -> Crowd:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive()

    def _go(self, number: int, job: Callable[[int, int, random.Random], None]) -> None:
        chance = random.Random(number)
        for turn in itertools.count():
            # The pause keeps those that are quick from taking all the time there is.
            if self.stop.wait(0.0005):
                return
            try:
                job(number, turn, chance)
                self.done[job.__name__] += 1
            except (Unavailable, WriteStalled):
                """To be tried again."""
            except BaseException as error:
                if job.__name__ != "sync" or "reached the disk" not in str(error):
                    self.surprises.append(error)
                    return

    def write(self, number: int, turn: int, chance: random.Random) -> None:
        """A batch over three families, at a new key."""
        key, value = b"%d-%06d" % (number, turn), b"%d" % chance.getrandbits(64)
        self.engine.write([(DATA, key, value), (EXPIRY, key, value), (META, b"last-%d" % number, value)])
        self.acknowledged[key] = value

    def put(self, number: int, turn: int, chance: random.Random) -> None:
        """One value, at a key of a hundred."""
        key, value = b"%d-%06d" % (number, turn % 100), b"%d" % chance.getrandbits(64)
        self.engine.write([(DATA, key, value)])
        self.acknowledged[key] = value

    def get(self, number: int, turn: int, chance: random.Random) -> None:
        """Some keys of two families."""
        for key, value in self._some(chance, 20):
            assert self.engine.get(key) == value
            assert self.engine.get(key, EXPIRY) == value

    def few(self, number: int, turn: int, chance: random.Random) -> None:
        """Some keys at once."""
        self._many(chance, 30)

    def many(self, number: int, turn: int, chance: random.Random) -> None:
        """Many keys from a snapshot."""
        self._many(chance, 300)

    def _many(self, chance: random.Random, count: int) -> None:
        some = self._some(chance, count)
        assert self.engine.multi_get([key for key, _ in some], PLENTY) == [value for _, value in some]

    def scan(self, number: int, turn: int, chance: random.Random) -> None:
        """Two families from end to end."""
        known = dict(self._some(chance, 100))
        for family in (DATA, EXPIRY):
            begun = self.engine.scan(b"0-", b"2-", family)
            found = dict(begun)
            assert {key: found.get(key) for key in known} == known

    def sync(self, number: int, turn: int, chance: random.Random) -> None:
        """An fsync, now and then a compaction, and the figures."""
        self.engine.sync()
        if turn % 20 == 0:
            self.engine.compact(b"", b"1")
        assert self.engine.statistics().figures["estimate-num-keys"] >= 0

    def _some(self, chance: random.Random, count: int) -> list[tuple[bytes, bytes]]:
        """Of what the `write` jobs have, whose keys have one value for ever."""
        known = [pair for pair in self.acknowledged.copy().items() if pair[0] < b"2-"]
        return chance.sample(known, min(count, len(known)))


@pytest.fixture
def short_switches() -> Iterator[None]:
    """Threads are switched as often as can be."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", PERSISTENT)
@pytest.mark.usefixtures("short_switches")
def test_reopened_under_everybody(name: str, tmp_path: Path) -> None:
    """Readers, scans, writers and syncs meet no other error than Unavailable, and no acknowledged write is lost."""
    engine = opened(name, tmp_path)
    with Crowd(engine) as crowd:
        for _ in range(ROUNDS):
            engine.reopen()
            before = dict(crowd.done)
            deadline = time.monotonic() + 30
            # Everybody must have got something done in between, so that the next reopening meets them all.
            while any(crowd.done[job] == before[job] for job in before) and not crowd.surprises:
                assert time.monotonic() < deadline, (before, crowd.done)
                time.sleep(0.001)
    assert crowd.surprises == []
    for _ in range(2):
        # A refused write has not happened.
        assert dict(engine.scan(b"", None)) == crowd.acknowledged
        assert dict(engine.scan(b"", None, EXPIRY)) == dict(engine.scan(b"0-", b"2-"))
        engine.close()
        engine = opened(name, tmp_path)
    engine.close()
