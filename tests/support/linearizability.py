"""A checker of histories: whether what clients of keys with conditions and ttls were told can have happened in one
order.

A history is linearizable if every operation can be given one moment between its call and its answer so that, done one
by one at those moments, each would have answered what it did (Herlihy and Wing). Keys that no operation joins are
checked apart, which is enough. The search goes through calls and answers in the order of time, and keeps every
(operations done among those under way, state) that explains what was told so far; an operation is done as late as its
answer allows (Lowe). So what fails is the answer after which nothing is left.

What an operation does stands in `Model`, told once more in plain words: it shares no code with the server.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import product
from typing import NamedTuple

#: Seconds by which the clocks of this process and of the server may differ.
TOLERANCE = 0.1
#: Explanations that are kept at a time, at most.
MOST = 200_000

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1


class Condition(NamedTuple):
    """`kind` is absent, present, value or etag."""

    kind: str
    value: bytes = b""
    etag: str = ""


class Mutation(NamedTuple):
    """A change of one key. `kind` is set, delete, touch or increment; each has what it needs of the others."""

    kind: str
    key: str
    value: bytes = b""
    ttl: int = 0
    delta: int = 0


@dataclass(frozen=True)
class Request:
    """What a client asks: to read `reads` in one step, or to carry out all `mutations` if all `checks` hold."""

    reads: tuple[str, ...] = ()
    checks: tuple[tuple[str, Condition], ...] = ()
    mutations: tuple[Mutation, ...] = ()

    @property
    def keys(self) -> set[str]:
        """All that it is about."""
        return {*self.reads, *(key for key, _ in self.checks), *(mutation.key for mutation in self.mutations)}


class Read(NamedTuple):
    """What was at a key: the value or None, and the seconds left (0: for ever; None: not told)."""

    value: bytes | None
    ttl: int | None = None


class Did(NamedTuple):
    """What a mutation did: whether the key was there; of an increment the number. None: not told."""

    found: bool | None = None
    number: int | None = None


@dataclass(frozen=True)
class Answer:
    """What the client was told. `failed` is the check that did not hold, from 1; `etag` is of what was there then."""

    reads: tuple[Read, ...] = ()
    failed: int = 0
    etag: str | None = None
    #: not_a_number or number_overflow.
    error: str = ""
    did: tuple[Did, ...] | None = None
    #: 0: not told.
    revision: int = 0


@dataclass(frozen=True)
class Operation:
    """Times are of `time.monotonic`. Without an answer it may have happened, before `ended`, or not."""

    client: str
    request: Request
    called: float
    ended: float = math.inf
    answer: Answer | None = None

    @property
    def is_idle(self) -> bool:
        """Whether it has certainly changed nothing."""
        return self.answer is not None and bool(self.request.reads or self.answer.failed or self.answer.error)


class Cell(NamedTuple):
    """What is at a key: the value, and between when and when it expires."""

    value: bytes
    earliest: float = math.inf
    latest: float = math.inf


class State(NamedTuple):
    """What is at each key that has something, and the last revision that somebody was told."""

    cells: frozenset[tuple[str, Cell]] = frozenset()
    revision: int = 0


def etag_of(value: bytes) -> str:
    """As the contract says: the hex of BLAKE2b-128."""
    return blake2b(value, digest_size=16).hexdigest()


@dataclass(frozen=True)
class Model:
    """What may happen. Keys that `vanishing` are evicted whenever the server likes."""

    vanishing: frozenset[str] = frozenset()
    _etags: dict[bytes, str] = field(default_factory=dict, compare=False)

    def steps(self, state: State, operation: Operation) -> Iterator[State]:
        """What there may be after it, if that was there before; nothing, if it cannot have answered as it did."""
        answer, request = operation.answer, operation.request
        if answer is None:
            yield state
        elif answer.revision:
            if answer.revision <= state.revision:
                return
            state = state._replace(revision=answer.revision)
        cells = dict(state.cells)
        for there in self._alive(cells, request.keys, operation):
            expected, after = self._do(request, there, operation)
            if answer is None or _tells(answer, expected, there, operation):
                yield State(frozenset(after.items()), state.revision)

    def _alive(self, cells: Mapping[str, Cell], keys: set[str], operation: Operation) -> Iterator[dict[str, Cell]]:
        """What may be left of the cells at its moment: each key that may have expired, or not."""
        choices: list[list[Cell | None]] = []
        for key in cells:
            cell = cells[key]
            ways: list[Cell | None] = [cell]
            if key in keys:
                if operation.called >= cell.latest + TOLERANCE:
                    ways = [None]
                elif operation.ended >= cell.earliest - TOLERANCE or key in self.vanishing:
                    ways.append(None)
            choices.append(ways)
        for chosen in product(*choices):
            yield {key: cell for key, cell in zip(cells, chosen) if cell is not None}

    def _do(self, request: Request, there: Mapping[str, Cell], operation: Operation) -> tuple[Answer, dict[str, Cell]]:
        before = dict(there)
        for number, (key, condition) in enumerate(request.checks, 1):
            if not self._holds(condition, there.get(key)):
                cell = there.get(key)
                return Answer(failed=number, etag="" if cell is None else self._etag(cell.value)), before
        after, did = dict(there), []
        for mutation in request.mutations:
            error, done = self._mutate(mutation, after, operation)
            if error:
                return Answer(error=error), before
            did.append(done)
        return Answer(did=tuple(did)), after

    def _holds(self, condition: Condition, cell: Cell | None) -> bool:
        if cell is None or condition.kind == "absent":
            return cell is None and condition.kind == "absent"
        if condition.kind == "value":
            return cell.value == condition.value
        return condition.kind == "present" or self._etag(cell.value) == condition.etag

    def _mutate(self, mutation: Mutation, cells: dict[str, Cell], operation: Operation) -> tuple[str, Did]:
        """Change the cells; gives the error, if it cannot be done."""
        key, there = mutation.key, cells.get(mutation.key)
        found = there is not None
        if mutation.kind == "delete":
            cells.pop(key, None)
            return "", Did(found)
        ends = Cell(b"")
        if mutation.ttl:
            ends = Cell(b"", operation.called + mutation.ttl, operation.ended + mutation.ttl)
        if mutation.kind == "set":
            cells[key] = ends._replace(value=mutation.value)
            return "", Did(found)
        if mutation.kind == "touch":
            if there is not None:
                cells[key] = ends._replace(value=there.value)
            return "", Did(found)
        if there is None:
            number = mutation.delta
        else:
            text = there.value.decode("ascii", "replace")
            if not (text.removeprefix("-").isascii() and text.removeprefix("-").isdigit() and str(int(text)) == text):
                return "not_a_number", Did()
            if not _LOWEST <= int(text) <= _HIGHEST:
                return "not_a_number", Did()
            number, ends = int(text) + mutation.delta, there
            if not _LOWEST <= number <= _HIGHEST:
                return "number_overflow", Did()
        cells[key] = ends._replace(value=str(number).encode())
        return "", Did(found, number)

    def _etag(self, value: bytes) -> str:
        if value not in self._etags:
            self._etags[value] = etag_of(value)
        return self._etags[value]


def _tells(answer: Answer, expected: Answer, there: Mapping[str, Cell], operation: Operation) -> bool:
    """Whether the answer says nothing but what was expected."""
    if (answer.failed, answer.error) != (expected.failed, expected.error):
        return False
    if answer.failed:
        return answer.etag is None or answer.etag == expected.etag
    for did, should in zip(answer.did or (), expected.did or ()):
        if did.found not in (None, should.found) or did.number not in (None, should.number):
            return False
    return all(_reads(read, there.get(key), operation) for key, read in zip(operation.request.reads, answer.reads))


def _reads(read: Read, cell: Cell | None, operation: Operation) -> bool:
    if cell is None or read.value is None:
        return cell is read.value is None
    if read.value != cell.value:
        return False
    if read.ttl is None:
        return True
    if not read.ttl:
        return cell.earliest == math.inf
    least, most = cell.earliest - operation.ended - TOLERANCE, cell.latest - operation.called + 1 + TOLERANCE
    return cell.earliest != math.inf and least <= read.ttl <= most


class NotLinearizable(AssertionError):
    """No order explains what was told."""


class Undecided(Exception):
    """There are too many orders to look at."""


class _Explanation(NamedTuple):
    #: Operations under way that are done already.
    done: frozenset[int]
    state: State


def check(
    history: Iterable[Operation],
    model: Model = Model(),
    *,
    most: int = MOST,
) -> int:
    """Raise NotLinearizable unless one order explains every answer; gives how many explanations were looked at.

    What no operation joins is looked at apart. Raises Undecided when more than `most` explanations would have to be
    kept.
    """
    return sum(_check_joined(part, model, most) for part in _parts(history))


def check_revisions(history: Iterable[Operation]) -> int:
    """Raise NotLinearizable unless each revision that was told is above all that were told before its call.

    Over all keys, also where no operation joins them. Gives how many there are.
    """
    written = [one for one in history if one.answer is not None and one.answer.revision]
    answered = sorted(written, key=lambda one: one.ended)
    seen: dict[int, Operation] = {}
    at, last = 0, None
    for one in sorted(written, key=lambda one: one.called):
        while answered[at].ended < one.called:
            last = max([answered[at], *([last] if last else [])], key=_revision)
            at += 1
        other = seen.setdefault(_revision(one), one)
        if other is not one or (last is not None and _revision(last) >= _revision(one)):
            earlier = last if other is one else other
            raise NotLinearizable(f"a revision that is not above an earlier one:\n  {earlier}\n  {one}")
    return len(written)


def _revision(operation: Operation) -> int:
    return operation.answer.revision if operation.answer else 0


def _parts(history: Iterable[Operation]) -> list[list[Operation]]:
    """Operations by the keys that they are about: those that share some are in one part."""
    parts: dict[str, list[Operation]] = {}
    for operation in sorted(history, key=lambda one: one.called):
        keys = operation.request.keys
        met = {id(parts[key]): parts[key] for key in keys if key in parts}
        joined = max(met.values(), key=len) if met else []
        for other in met.values():
            if other is not joined:
                joined += other
        joined.append(operation)
        gone = {id(other) for other in met.values()}
        for key in [key for key, part in parts.items() if id(part) in gone] + [*keys]:
            parts[key] = joined
    return list({id(part): sorted(part, key=lambda one: one.called) for part in parts.values()}.values())


def _check_joined(operations: Sequence[Operation], model: Model, most: int) -> int:
    # Of reads that nobody heard the answer of nothing is known.
    asked = [one for one in operations if one.answer is not None or one.request.mutations]
    events = sorted(
        [(one.called, 0, at) for at, one in enumerate(asked)]
        + [(one.ended, 1, at) for at, one in enumerate(asked) if one.ended < math.inf]
    )
    under_way: set[int] = set()
    explanations = {_Explanation(frozenset(), State())}
    looked = 0
    for _, is_answer, at in events:
        if not is_answer:
            under_way.add(at)
            continue
        before = explanations
        explanations = set()
        tried = set(before)
        stack = list(before)
        while stack:
            explanation = stack.pop()
            looked += 1
            # What changes nothing is done as soon as it can be: that leaves open whatever doing it later would.
            idle = {
                other
                for other in under_way - explanation.done
                if asked[other].is_idle and explanation.state in model.steps(explanation.state, asked[other])
            }
            explanation = explanation._replace(done=explanation.done | idle)
            if at in explanation.done:
                explanations.add(explanation._replace(done=explanation.done - {at}))
                continue
            for other in under_way - explanation.done:
                for state in model.steps(explanation.state, asked[other]):
                    further = _Explanation(explanation.done | {other}, state)
                    if further not in tried:
                        tried.add(further)
                        stack.append(further)
            if len(tried) > most:
                raise Undecided(f"{len(tried)} explanations after {at} of {len(asked)} operations")
        under_way.discard(at)
        if not explanations:
            raise NotLinearizable(_told(asked, at, under_way, before))
    return looked


def _told(asked: Sequence[Operation], at: int, under_way: set[int], before: set[_Explanation]) -> str:
    failed = asked[at]
    lines = ["no order explains this answer:", f"  {shown(failed)}", "under way:"]
    lines += [f"  {shown(asked[other])}" for other in sorted(under_way)]
    lines.append("what may have been there before:")
    lines += [f"  {_shown_state(explanation)}" for explanation in list(before)[:10]]
    lines.append("what came before:")
    near = [one for one in asked if one.ended <= failed.ended and one is not failed]
    lines += [f"  {shown(one)}" for one in sorted(near, key=lambda one: one.ended)[-15:]]
    return "\n".join(lines)


def shown(operation: Operation) -> str:
    """For messages: large values by their beginning."""
    request, answer = operation.request, operation.answer
    parts = [f"{operation.called:.4f} to {operation.ended:.4f} {operation.client}:"]
    parts += [f"read {request.reads}"] * bool(request.reads)
    parts += [f"if {key} {c.kind} {_short(c.value) or c.etag}" for key, c in request.checks]
    parts += [f"{m.kind} {m.key} {_short(m.value)} ttl {m.ttl} delta {m.delta}" for m in request.mutations]
    if answer is None:
        return " ".join([*parts, "-> no answer"])
    told = replace(answer, reads=())
    return " ".join([*parts, "->", *(f"{_short(read.value)} ttl {read.ttl}" for read in answer.reads), repr(told)])


def _shown_state(explanation: _Explanation) -> str:
    cells = {key: (_short(cell.value), cell.earliest, cell.latest) for key, cell in explanation.state.cells}
    return f"{cells} revision {explanation.state.revision}, done: {sorted(explanation.done)}"


def _short(value: bytes | None) -> str:
    return "none" if value is None else f"{value[:24]!r}{f'({len(value)})' if len(value) > 24 else ''}" if value else ""
