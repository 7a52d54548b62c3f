"""Commands that decide, between all others, against a dict: one by one over each engine, and many in one batch."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kvtwisted.backends.local import records
from kvtwisted.backends.local.cache import ENTRY_COST
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import FILES
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.commands.command import WriteCommand
from kvtwisted.commands.deciding import DecidingCommand, Outcome
from kvtwisted.core.options import EngineOptions

from ...support.deciding import (
    ASKED,
    CHECKS,
    DELETES,
    MUTATIONS,
    SETS,
    Asked,
    Done,
    Model,
    Told,
    batch,
    many,
    one,
    plain,
)
from ...support.doors import Doorway
from ...support.doors import Outcome as Finished
from ...support.engines import FaultyEngine, memory_engine
from ...support.properties import repeatable_machine
from ...support.storage import PLENTY, Storage
from .engines.support import PERSISTENT

#: Bytes from which a value has a file, where there are files.
THRESHOLD = 50


class DecidingMachine(RuleBasedStateMachine):
    """One command after the other, time, sweeps and restarts."""

    cache_bytes = 0
    with_files = False

    @initialize()
    def begin(self) -> None:
        """An empty store."""
        self.folder = tempfile.mkdtemp(prefix="kvtwisted-deciding-")
        self.model = Model()
        self.storage = Storage(
            self.new_engine(),
            cache_bytes=self.cache_bytes,
            files=ValueFiles(f"{self.folder}/files") if self.with_files else None,
            spill_threshold=THRESHOLD if self.with_files else math.inf,
        )
        self.model.now = self.storage.clock.now_ms()
        self.revision = self.storage.store.revision

    def new_engine(self) -> FaultyEngine:
        """An empty engine."""
        return memory_engine()

    def reopened_engine(self) -> FaultyEngine:
        """The engine as the next run finds it."""
        return self.storage.engine

    def teardown(self) -> None:
        """Nothing stays."""
        self.storage.engine.close()
        shutil.rmtree(self.folder)

    def carry_out(self, command: WriteCommand, told: Told) -> None:
        """The command does what the model says."""
        before = self.storage.store.revision
        if told.error is not None:
            with pytest.raises(told.error):
                self.storage.store.run(command)
            assert self.storage.store.revision == before
            return
        outcome = self.storage.store.run(command)
        assert_told(command, outcome, told)
        assert self.storage.store.revision - before == told.wrote

    @rule(done=MUTATIONS, asked=st.one_of(st.none(), ASKED))
    def one(self, done: Done, asked: Asked | None) -> None:
        """Set, Delete, Touch and Increment, most with a condition."""
        if done[0] == "add":
            asked = None
        self.carry_out(one(done, asked), self.model.transact([(done[1], asked)] if asked else [], [done]))

    @rule(checks=CHECKS, mutations=st.lists(MUTATIONS, max_size=4))
    def many(self, checks: Sequence[tuple[bytes, Asked]], mutations: Sequence[Done]) -> None:
        """Transact."""
        self.carry_out(many(checks, mutations), self.model.transact(checks, mutations))

    @rule(mutations=st.lists(st.one_of(SETS, DELETES), min_size=1, max_size=3))
    def plain(self, mutations: Sequence[Done]) -> None:
        """Sets and deletions that do not decide."""
        self.model.transact([], mutations)
        for command in plain(mutations):
            self.storage.store.run(command)

    @rule(ms=st.sampled_from([1, 999, 1000, 1001, 4000]))
    def advance(self, ms: int) -> None:
        """Time passes."""
        self.storage.time.advance(ms)
        self.model.now = self.storage.clock.now_ms()

    @rule(slow=st.booleans())
    def slow(self, slow: bool) -> None:
        """Memory does not tell any more, or does again."""
        self.storage.engine.slow = slow

    @rule()
    def sweep(self) -> None:
        """What has expired goes."""
        for key in self.storage.sweeper.sweep(100).deleted:
            assert self.model.live(key) is None
            del self.model.entries[key]

    @rule()
    def restart(self) -> None:
        """A new run knows what the engine kept."""
        self.storage.engine = self.reopened_engine()
        self.storage.restart()
        assert self.storage.clock.now_ms() == self.model.now

    @invariant()
    def stores_the_model(self) -> None:
        """Records, files and the entries of deadlines are the model's."""
        stored = self.storage.data()
        assert stored.keys() == self.model.entries.keys()
        pointers = dict(self.storage.engine.scan(b"", None, FILES))
        for key, (value, deadline) in self.model.entries.items():
            record = records.decode(stored[key])
            assert (self.storage.writer.files.value(record), record.expires_at_ms) == (value, deadline)
            assert pointers.pop(key, None) == (record.pointer and record.pointer.pack())
            assert bool(record.pointer) == (self.with_files and len(value) >= THRESHOLD)
        assert pointers == {}
        needed = {(deadline, key) for key, (_, deadline) in self.model.entries.items() if deadline}
        assert needed <= set(self.storage.index())
        if self.with_files:
            names = [path.name for path in Path(self.folder, "files").rglob("*") if path.is_file()]
            assert len(names) == sum(len(value) >= THRESHOLD for value, _ in self.model.entries.values())

    @invariant()
    def shows_the_model(self) -> None:
        """Readers see what has not expired, whatever the cache has."""
        live = {key: found[0] for key in self.model.entries if (found := self.model.live(key)) is not None}
        for key in self.model.entries:
            assert self.storage.value(key) == live.get(key)
        assert self.storage.store.scan(b"", budget=PLENTY).items == sorted(live.items())


def assert_told(command: WriteCommand, outcome: Outcome | None, told: Told) -> None:
    """What a command was answered."""
    if not isinstance(command, DecidingCommand):
        assert outcome is None
        return
    assert outcome is not None
    assert (outcome.failed_check, outcome.etag) == (told.failed_check, told.etag)
    assert tuple(map(tuple, outcome.mutated)) == told.mutated
    assert bool(outcome.revision) == told.wrote
    assert command.condition_failed == bool(told.failed_check)


def gathered(doorway: Doorway, command: Any) -> Finished:
    """The outcome of a command that goes with others of its session and turn."""
    finished = Finished()
    session = doorway.session
    deciding = session.deciding or session.gather_decisions(doorway, 60.0, told_of)
    assert deciding is not None
    deciding.mutations.append(command.mutation)
    deciding.conditions.append(command.condition)
    deciding.tokens.append((finished, command))
    return finished


def told_of(_: object, tokens: Sequence[Any], results: Sequence[Any]) -> None:
    """They are done."""
    for (finished, command), result in zip(tokens, results):
        if isinstance(result, Outcome):
            command.result, command.condition_failed = result, bool(result.failed_check)
        else:
            command.error = result
        finished(command)


class CachedMachine(DecidingMachine):
    """With a hot cache that has room for a few of the keys."""

    cache_bytes = 8 * (ENTRY_COST + 50)


class FilesMachine(DecidingMachine):
    """With files for what is large there, and a hot cache."""

    cache_bytes = 1 << 20
    with_files = True


class DiskMachine(FilesMachine):
    """On a disk, where a restart closes and opens the folder."""

    engine = "rocksdict"

    def new_engine(self) -> FaultyEngine:
        """A new folder."""
        return FaultyEngine(open_engine(self.engine, f"{self.folder}/data", EngineOptions()))

    def reopened_engine(self) -> FaultyEngine:
        """The same folder."""
        self.storage.engine.close()
        return self.new_engine()


class LbryMachine(DiskMachine):
    """The same on the other binding, where there is that."""

    engine = "lbry"


class TurnMachine(RuleBasedStateMachine):
    """Many commands in one turn of the reactor, which are one batch of the engine."""

    @initialize()
    def begin(self) -> None:
        """An empty store."""
        self.doorway = Doorway(Storage(cache_bytes=1 << 20))
        self.storage: Storage = self.doorway.storage
        self.model = Model()
        self.model.now = self.storage.clock.now_ms()
        self.revision = self.storage.store.revision

    @rule(
        turn=st.lists(
            st.one_of(
                st.tuples(st.just("one"), st.one_of(st.none(), ASKED), MUTATIONS),
                st.tuples(st.just("many"), CHECKS, st.lists(MUTATIONS, max_size=4)),
                st.tuples(st.just("gathered"), st.none() | ASKED, MUTATIONS.filter(lambda done: done[0] != "delete")),
                st.tuples(st.just("plain"), st.none(), st.one_of(SETS, DELETES)),
                st.tuples(
                    st.just("batch"),
                    st.none(),
                    st.lists(DELETES, min_size=1, max_size=3, unique_by=lambda done: done[1]),
                ),
            ),
            min_size=1,
            max_size=12,
        )
    )
    def turn(self, turn: Sequence[tuple[str, object, object]]) -> None:
        """Each is told what it would be told after those before it."""
        self.storage.store.metadata.mark_clock()  # what has expired may be told of at once
        asked = []
        for kind, checks, mutations in turn:
            if kind in ("one", "gathered"):
                asked_of = None if mutations[0] == "add" else checks  # type: ignore[index]
                command = one(mutations, asked_of)  # type: ignore[arg-type]
                told = self.model.transact([(mutations[1], asked_of)] if asked_of else [], [mutations])  # type: ignore
            elif kind == "many":
                command = many(checks, mutations)  # type: ignore[arg-type]
                told = self.model.transact(checks, mutations)  # type: ignore[arg-type]
            elif kind == "plain":
                (command,) = plain([mutations])  # type: ignore[list-item]
                told = self.model.transact([], [mutations])  # type: ignore[list-item]
            else:
                command = batch(mutations)  # type: ignore[arg-type]
                told = self.model.transact([], mutations)  # type: ignore[arg-type]
            if kind == "gathered":
                asked.append((command, gathered(self.doorway, command), told))
            else:
                asked.append((command, self.doorway.submit(command), told))
        self.storage.engine.calls.clear()
        self.doorway.reactor.turn()
        assert self.doorway.pool.waiting == 0
        assert len(self.storage.engine.called("write")) == any(told.wrote for _, _, told in asked)
        for command, outcome, told in asked:
            if told.error is not None:
                assert type(command.error) is told.error
                continue
            assert_told(command, outcome.result(), told)
            self.revision += told.wrote
            if isinstance(command, DecidingCommand) and told.wrote:
                assert outcome.result().revision == self.revision
        assert self.storage.store.revision == self.revision

    @rule(ms=st.sampled_from([1, 999, 1000, 4000]))
    def advance(self, ms: int) -> None:
        """Time passes."""
        self.storage.time.advance(ms)
        self.model.now = self.storage.clock.now_ms()

    @invariant()
    def stores_the_model(self) -> None:
        """Byte for byte, and readers see it."""
        assert self.storage.data() == {key: records.encode(*entry) for key, entry in self.model.entries.items()}
        for key in self.model.entries:
            found = self.model.live(key)
            assert self.storage.value(key) == (found and found[0])


TestDeciding = DecidingMachine.TestCase
TestDeciding.settings = settings(repeatable_machine, max_examples=25)

TestDecidingCached = CachedMachine.TestCase
TestDecidingCached.settings = settings(repeatable_machine, max_examples=15)

TestDecidingFiles = FilesMachine.TestCase
TestDecidingFiles.settings = settings(repeatable_machine, max_examples=4)

TestDecidingTurns = TurnMachine.TestCase
TestDecidingTurns.settings = settings(repeatable_machine, max_examples=25)

if "lbry" in PERSISTENT:
    TestDecidingOnLbry = LbryMachine.TestCase
    TestDecidingOnLbry.settings = settings(repeatable_machine, max_examples=2)

TestDecidingOnDisk = DiskMachine.TestCase
TestDecidingOnDisk.settings = settings(repeatable_machine, max_examples=2)
