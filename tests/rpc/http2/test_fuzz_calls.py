"""Calls in every form that HTTP/2 and gRPC allow: each gets its one right answer, however its bytes are cut up.

See `test_fuzz` for how to run more of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.limits import MAX_KEY_BYTES
from tests.support.properties import sampled

from ..support import CLASSES
from .frames_strategy import KEYS, good_settings, messages, sizes, valid_requests
from .observer import PREFACE
from .simulation import MAX_REQUEST_BYTES, Link, Simulation, simulation
from .wire import HEADERS, Request, settings, window_update

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

_calls = valid_requests(messages.map(lambda made: (f"/kv.v1.KeyValueService/{made[0]}", (made[1],))))
_small = _calls.filter(lambda request: len(request.body) < 30_000)
#: The server gives a large message as much window as it needs: frames that were cut before have no room for padding.
_fitting = _calls.map(lambda request: replace(request, padding=None) if len(request.body) > 50_000 else request).filter(
    lambda request: len(request.messages[0]) <= MAX_REQUEST_BYTES
)
_WRITES = ("Set", "Delete", "MSet", "MDelete")


def _method(request: Request) -> str:
    return request.path.rpartition("/")[2]


def _parsed(request: Request) -> Any:
    return CLASSES[_method(request)][0].FromString(request.messages[0])


# Segmentation.


@sampled(
    50,
    200,
    given(calls=st.lists(_small, min_size=1, max_size=8), greeting=good_settings, pieces=sizes, slow=st.booleans()),
)
def test_segmentation_does_not_matter(
    calls: list[Request], greeting: tuple[tuple[int, int], ...], pieces: tuple[int, ...], slow: bool
) -> None:
    """The same bytes get the same answers on each stream, whole, byte by byte, or cut up in any other way."""
    answers = [_answers(calls, greeting, cuts, slow) for cuts in ((), (1,), pieces)]
    assert answers[0] == answers[1] == answers[2]


def _answers(
    calls: list[Request], greeting: tuple[tuple[int, int], ...], pieces: tuple[int, ...], slow: bool
) -> dict[int, tuple[str | None, bytes, int | None, bool]]:
    with simulation(slow=slow) as sim:
        for key in KEYS:
            sim.store.set(key.encode(), b"before")
        link = sim.connect()
        link.sizes = pieces
        # Windows that hold nothing back, at last.
        link.send(PREFACE + settings(*greeting, (4, 1 << 20)) + window_update(0, 1 << 30), hold=True)
        for request in calls:
            link.send(b"".join(link.begin(request)[1]), hold=True)
        link.send(b"")
        assert not link.connection.control.failed
        sim.reactor.settle()
        seen = link.observer.streams
        assert all(one.ended for one in seen.values())
        assert len(seen) == len(calls)
        return {
            stream_id: (one.status, _canonical(calls[stream_id // 2], one.messages), one.reset, one.ended)
            for stream_id, one in sorted(seen.items())
        }


def _canonical(request: Request, answers: list[bytes]) -> bytes:
    # Maps have no order on the wire.
    response = CLASSES[_method(request)][1]
    return b"".join([response.FromString(answer).SerializeToString(deterministic=True) for answer in answers])


# Right answers.


@sampled(
    60,
    200,
    given(
        rounds=st.lists(st.lists(_fitting, max_size=8), min_size=1, max_size=4),
        greeting=good_settings,
        pieces=st.sampled_from(((), (9,), (1_000,), (50, 20_000))),
        order=st.lists(st.integers(0, 7), min_size=1, max_size=20),
        budget=st.sampled_from((None, 200_000)),
        slow=st.booleans(),
        eager=st.booleans(),
    ),
)
def test_each_call_gets_its_right_answer(
    rounds: list[list[Request]],
    greeting: tuple[tuple[int, int], ...],
    pieces: tuple[int, ...],
    order: list[int],
    budget: int | None,
    slow: bool,
    eager: bool,
) -> None:
    """As a dict would give it, once; frames of calls at the same time come in any order, windows in any size."""
    model: dict[str, str] = {}
    with simulation(budget=budget, slow=slow) as sim:
        link = sim.connect(eager=eager)
        link.sizes = pieces
        link.greet(*greeting)
        for calls in rounds:
            chosen = _independent(calls)
            streams = {link.next_id + 2 * number: request for number, request in enumerate(chosen)}
            for request in chosen:
                link.begin(request)
            _send_all(sim, link, order)
            _let_answer(sim, link, list(streams))
            for stream_id, request in streams.items():
                _check(model, link, stream_id, request)
            sim.check()
    assert not link.observer.goodbyes


def _independent(calls: list[Request]) -> list[Request]:
    """Those of the first one's kind, reads or writes, that touch none of each other's keys."""
    writes = bool(calls) and _method(calls[0]) in _WRITES
    chosen, keys = [], set()
    for request in calls:
        if (_method(request) in _WRITES) != writes:
            continue
        parsed = _parsed(request)
        touched = (
            {getattr(parsed, "key", "")} | set(getattr(parsed, "keys", ())) | set(getattr(parsed, "key_values", ()))
        )
        if not writes or not touched & keys:
            chosen.append(request)
            keys |= touched
    return chosen


def _send_all(sim: Simulation, link: Link, order: list[int]) -> None:
    """Send the frames of all calls, as far as the server's windows allow, streams in this order."""
    begun: list[tuple[int, deque[bytes]]] = []
    room = {stream_id: 65_535 for stream_id, _ in link.unsent}
    for turn in range(100_000):
        if not link.unsent:
            return
        call = link.unsent[order[turn % len(order)] % len(link.unsent)]
        if call[1][0][3] == HEADERS and call not in begun:
            # Streams begin in their order.
            call = next(call for call in link.unsent if call not in begun)
            begun.append(call)
        stream_id, frames = call
        data = frames[0]
        size = len(data) - 9 if data[3] == 0 else 0
        seen = link.observer.streams.get(stream_id)
        if size <= room[stream_id] + (seen.credit if seen is not None else 0):
            room[stream_id] -= size
            link.send(frames.popleft(), hold=turn % 3 == 0)
            if not frames:
                link.unsent.remove(call)
        else:
            link.send(b"")
            sim.reactor.settle()
            link.transport.carry()
    raise AssertionError("the server gives no more window")


def _let_answer(sim: Simulation, link: Link, streams: list[int]) -> None:
    """Give windows, little by little, until all is answered."""
    link.send(b"")
    for _ in range(100):
        sim.reactor.settle()
        link.transport.carry()
        seen = link.observer.streams
        open_streams = [stream_id for stream_id in streams if stream_id not in seen or not seen[stream_id].ended]
        if not open_streams:
            return
        for stream_id in open_streams:
            link.send(window_update(stream_id, 30_000))
        link.send(window_update(0, 100_000))
    raise AssertionError(f"no answer on {open_streams}, {link.observer.goodbyes}")


def _check(model: dict[str, str], link: Link, stream_id: int, request: Request) -> None:
    seen = link.observer.streams[stream_id]
    parsed, method = _parsed(request), _method(request)
    assert (seen.status, seen.reset, len(seen.messages)) == ("0", None, 1), (request, seen.headers)
    answer = CLASSES[method][1].FromString(seen.messages[0])
    keys = [parsed.key] if method in ("Get", "Set", "Delete") else list(getattr(parsed, "keys", ()))
    keys += list(getattr(parsed, "key_values", ()))
    bad = any(not 1 <= len(key.encode()) <= MAX_KEY_BYTES for key in keys)
    bad = bad or len(getattr(parsed, "prefix", "").encode()) > MAX_KEY_BYTES
    bad = bad or getattr(parsed, "ttl", 0) < 0 or getattr(parsed, "limit", 0) < 0
    if bad:
        assert answer.error
        return
    if method == "UpdateConfig":
        assert bool(answer.error) == (parsed.config != "{}")
        return
    assert not getattr(answer, "error", ""), (request, answer)
    if method == "Set":
        model[parsed.key] = parsed.value
    elif method == "MSet":
        model.update(parsed.key_values)
    elif method in ("Delete", "MDelete"):
        for key in keys:
            model.pop(key, None)
    elif method == "Get":
        assert (answer.found, answer.value) == (parsed.key in model, model.get(parsed.key, ""))
    elif method == "MGet":
        assert dict(answer.key_values) == {key: model[key] for key in keys if key in model}
    elif method.startswith("Scan"):
        found = [key for key in sorted(model, key=str.encode) if key.startswith(parsed.prefix)]
        found = found[: parsed.limit] if parsed.limit else found
        if method == "ScanKeys":
            assert list(answer.keys) == found
        else:
            assert dict(answer.key_values) == {key: model[key] for key in found}
