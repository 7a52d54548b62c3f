"""Imports: bodies of any length are stored while they come in, told of by and by, and held in bounded memory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtwisted.core.errors import Corruption, NearlyFull, StorageError
from kvtwisted.http.importing import HELD, ROOM
from kvtwisted.http.refusing import REASONS
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.buckets import Addresses, Rate
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.entries import TokenEntry
from kvtwisted.sessions.gate import Gate
from kvtwisted.sessions.quotas import Quota

from ..sessions.support import grant, made
from ..support.recorders import Recorded
from .slow import NONE_CUT_OFF, PATIENCE, SlowWire, pass_time, world_of
from .streams import LAST, Streamed, chunk, streamed
from .support import Wire, World, problem, request_bytes

NONE_REFUSED = dict.fromkeys(REASONS, 0)
GET = request_bytes("GET", "/api/v1/get/k00001")


def head(length: int | None, query: str = "", **headers: str) -> bytes:
    """The head of an import; without a length it comes in chunks."""
    framing = {"transfer_encoding": "chunked"} if length is None else {"content_length": str(length)}
    fields = {"content_type": "application/x-ndjson", **framing, **headers}
    return request_bytes("POST", f"/api/v1/import{query}", **fields)


def line(key: str, value: str = "v", **more: object) -> bytes:
    """One line."""
    return json.dumps({"key": key, "value": value, **more}).encode() + b"\n"


def lines_of(count: int, value: str = "v") -> bytes:
    """Lines of so many keys."""
    return b"".join(line(f"k{number:05}", value) for number in range(count))


def told(wire: Wire) -> Streamed:
    """The answer, as far as it has come."""
    return streamed(wire.transport.value())


def import_of(world: World, body: bytes, query: str = "", **headers: str) -> Streamed:
    """One whole import."""
    wire = world.wire()
    wire.send(head(len(body), query, **headers) + body)
    world.work()
    found = told(wire)
    assert found.is_whole
    return found


def nothing_left(world: World) -> bool:
    """Whether nothing is counted any more as being under way."""
    return not (world.admission.in_flight or world.admission.bytes or world.site.deadlines.unfinished)


def values(world: World) -> dict[bytes, bytes | None]:
    """What readers get."""
    return {key: world.storage.value(key) for key in world.stored()}


def test_lines_are_stored_and_told_of() -> None:
    """Text, bytes and deadlines; the last line says that all was read."""
    world = World()
    soon = 4_000_000_000_000
    body = line("a", "1") + b'{"key":"b","data":"/wA="}\n' + line("c", "3", expires_at_ms=soon) + b'{"end":true}\n'
    found = import_of(world, body)
    assert (found.status, found.headers["content-type"]) == (200, "application/x-ndjson")
    done = {"line": 4, "imported": 3, "skipped": 0, "failed": 0, "bytes": len(body)}
    assert found.lines == [done, {"end": True, **done}]
    assert values(world) == {b"a": b"1", b"b": b"\xff\x00", b"c": b"3"}
    assert nothing_left(world)
    assert Recorded("set", 3, False) in world.recorder.operations


@pytest.mark.local_backend
def test_deadlines_are_kept() -> None:
    """As they are: moving does not lengthen a ttl; what has expired is left out, and counted."""
    world = World()
    found = import_of(world, line("a", expires_at_ms=4_000_000_000_123) + line("b", expires_at_ms=1))
    assert found.lines[-1]["skipped"] == 1
    assert world.storage.index() == [(4_000_000_000_123, b"a")]


def test_an_empty_body_is_an_import() -> None:
    """Of nothing."""
    for wire_bytes in (head(0), head(None) + LAST):
        world = World()
        wire = world.wire()
        wire.send(wire_bytes)
        world.work()
        assert told(wire).lines == [{"end": True, "line": 0, "imported": 0, "skipped": 0, "failed": 0, "bytes": 0}]
        assert wire.open


@settings(max_examples=25, deadline=None)  # the machine may be busy
@given(st.lists(st.integers(1, 60), max_size=12), st.booleans(), st.booleans())
def test_however_it_comes(sizes: list[int], in_chunks: bool, ends: bool) -> None:
    """The pieces of a body do not matter, nor whether its last line ends; requests behind it are answered."""
    world = World()
    body = lines_of(8)[: None if ends else -1]
    wire = world.wire()
    wire.send(head(None if in_chunks else len(body)))
    rest = body
    while rest:
        size = sizes.pop() if sizes else len(rest)
        piece, rest = rest[:size], rest[size:]
        wire.send(chunk(piece) if in_chunks else piece)
    wire.send(LAST * in_chunks + GET)
    world.work()
    found = told(wire)
    assert found.is_whole
    assert found.lines[-1]["end"] is True
    assert found.lines[-1]["imported"] == len(world.stored()) == 8
    assert streamed(found.rest).status == 200
    assert wire.open


def test_http_1_0_has_no_chunks() -> None:
    """The connection's end is the answer's."""
    world = World()
    body = line("a")
    wire = world.wire()
    wire.send(head(len(body)).replace(b"HTTP/1.1", b"HTTP/1.0") + body)
    world.work()
    found = told(wire)
    assert found.headers["connection"] == "close"
    assert found.lines[-1]["end"] is True
    assert not wire.open


def test_progress_is_told_while_the_body_comes() -> None:
    """At most once a second; by line, count and bytes."""
    world = World()
    wire = world.wire()
    wire.send(head(None))
    for number in range(8):
        wire.send(chunk(line(f"a{number}")))
        world.work()
        world.reactor.advance(0.5)
    assert [found["line"] for found in told(wire).lines] == [1, 3, 5, 7]
    assert len(world.stored()) == 8
    wire.send(LAST)
    world.work()
    assert told(wire).lines[-1] == {
        "end": True, "line": 8, "imported": 8, "skipped": 0, "failed": 0, "bytes": 8 * len(line("a0")),
    }  # fmt: skip


def test_100_continue() -> None:
    """The body is asked for when it is wanted, and not when it is refused."""
    world = World()
    wire = world.wire()
    wire.send(head(5_000_000_000, expect="100-continue"))
    assert wire.transport.value() == b"HTTP/1.1 100 Continue\r\n\r\n"
    refused = world.wire()
    refused.send(head(5_000_000_000, "?on_error=no", expect="100-continue"))
    assert told(refused).status == 400


@pytest.mark.parametrize(
    ("query", "headers", "status", "code"),
    [
        ("?x=1", {}, 400, "invalid_request"),
        ("?skip_lines=-1", {}, 400, "invalid_request"),
        ("?on_error=ask", {}, 400, "invalid_request"),
        ("", {"content_type": "application/json"}, 415, "unsupported_media_type"),
        ("", {"content_type": "text/plain"}, 415, "unsupported_media_type"),
        ("", {"content_encoding": "gzip"}, 415, "unsupported_media_type"),
        ("", {"host": "a b"}, 400, "malformed_request"),
    ],
)
def test_what_is_refused_before_the_body(query: str, headers: dict[str, str], status: int, code: str) -> None:
    """Nothing of the body is read; it is no request either."""
    world = World()
    body = line("a")
    wire = world.wire()
    wire.send(head(len(body) + len(GET), query, **headers))
    assert problem(wire.replies()[0])[:2] == (status, code)
    wire.send(body + GET)
    assert not wire.replies()
    assert wire.transport.half_closed
    assert not world.stored()
    assert nothing_left(world)


def test_rights_come_before_the_body() -> None:
    """Who is unknown, or may store nothing, is told so at once."""
    reader, _reader = made("reader", grant("get"))
    authority = Authority()
    authority.replace([_reader])
    world = World(make_gate=lambda door, admission: Gate(door, admission, authority, Audit(lambda line: None)))
    for shown, status in (({}, 401), ({"authorization": reader.decode()}, 403)):
        wire = world.wire()
        wire.send(head(10**12, **shown))
        assert told(wire).status == status
        assert wire.transport.half_closed
    assert nothing_left(world)


def test_there_must_be_room() -> None:
    """An import is a request among those in flight, and counts with what it may hold."""
    world = World(capacity=2)
    wire = world.wire()
    wire.send(head(None))
    assert (world.admission.in_flight, world.admission.bytes) == (1, ROOM)
    world.admission.enter()
    assert problem(world.request("POST", "/api/v1/import", b"", content_type="application/x-ndjson"))[0] == 429


def test_bodies_of_any_length() -> None:
    """The limits of other bodies are not its own."""
    world = World(max_body_bytes=1_000)
    body = lines_of(2_000)
    assert import_of(world, body).lines[-1]["imported"] == 2_000
    assert world.site.refused == NONE_REFUSED
    assert problem(world.post("/api/v1/set", {"key": "k", "value": "v" * 1_000}))[0] == 413


BAD = line("a") + line("") + line("b") + b"nonsense\n" + line("c")


def test_it_stops_at_a_line_that_cannot_be_imported() -> None:
    """What is before it is stored; its number and the reason are told; the rest is not read."""
    world = World()
    wire = world.wire()
    wire.send(head(None) + chunk(BAD))
    world.work()
    found = told(wire)
    assert found.is_whole
    *_, bad, last = found.lines
    assert (bad["line"], bad["code"]) == (2, "invalid_key")
    assert last == {"end": False, "line": 1, "imported": 1, "skipped": 0, "failed": 1, "bytes": len(line("a"))}
    assert set(world.stored()) == {b"a"}
    wire.send(chunk(line("d")) + LAST + GET)
    assert told(wire) == found
    assert wire.transport.half_closed
    assert nothing_left(world)


def test_stopping_at_the_end_keeps_the_connection() -> None:
    """Where all of the body has come, the next request is answered."""
    world = World()
    wire = world.wire()
    wire.send(head(len(BAD)) + BAD + GET)
    world.work()
    assert told(wire).lines[-1]["end"] is False
    assert streamed(told(wire).rest).status == 404
    assert wire.open


def test_it_goes_on_behind_one_if_asked() -> None:
    """All others are stored."""
    world = World()
    found = import_of(world, BAD, "?on_error=skip")
    assert [(said["line"], said["code"]) for said in found.lines if "code" in said] == [
        (2, "invalid_key"), (4, "invalid_json"),
    ]  # fmt: skip
    assert found.lines[-1] == {
        "end": True, "line": 5, "imported": 3, "skipped": 0, "failed": 2, "bytes": len(BAD),
    }  # fmt: skip
    assert set(world.stored()) == {b"a", b"b", b"c"}


def test_going_on_where_it_stopped() -> None:
    """With the same body, and as many lines left out as the last answer has told."""
    world = World()
    stopped = import_of(world, BAD).lines[-1]
    found = import_of(world, BAD, f"?on_error=skip&skip_lines={stopped['line'] + 1}")
    assert [said["line"] for said in found.lines if "code" in said] == [4]
    assert found.lines[-1]["imported"] == 2
    assert set(world.stored()) == {b"a", b"b", b"c"}


def test_an_export_without_its_end_is_none() -> None:
    """What came of it is stored, but nobody is told that it was all."""
    found = import_of(World(), line("a") + b'{"next_cursor":"a","count":1,"revision":5}\n')
    assert found.lines[-2]["code"] == "incomplete_export"
    assert found.lines[-1]["end"] is False


def test_a_line_that_never_ends() -> None:
    """It is refused when it is longer than any line may be; no more of it is held."""
    world = World()
    wire = world.wire()
    wire.send(head(None) + chunk(line("a")))
    for _ in range(8):
        wire.send(chunk(b"x" * HELD))
        world.work()
    *_, bad, last = told(wire).lines
    assert (bad["line"], bad["code"]) == (2, "too_large")
    assert last["end"] is False
    assert (last["line"], last["imported"], last["failed"]) == (1, 1, 1)
    assert wire.transport.half_closed


@pytest.mark.parametrize("end", [b"\n" + line("c"), b"\n", b""])
@pytest.mark.parametrize("skip_lines", [0, 2])
def test_going_on_behind_a_line_that_is_too_long(skip_lines: int, end: bytes) -> None:
    """It is told of, unless it is left out; nothing of it is kept meanwhile, and what is behind it is stored."""
    world = World()
    wire = world.wire()
    wire.send(head(None, f"?on_error=skip&skip_lines={skip_lines}") + chunk(line("a")))
    size = 0
    for _ in range(10):
        wire.send(chunk(b"x" * HELD))
        size += HELD
        world.work()
    wire.send(chunk(b"xx" + end) + chunk(b""))
    world.work()
    *rest, last = told(wire).lines
    assert [(said["line"], said["code"]) for said in rest if "code" in said] == [(2, "too_large")] * (not skip_lines)
    stored = {key for key in (b"a" * (not skip_lines), b"c" * (b"c" in end)) if key}
    assert set(world.stored()) == stored
    assert last == {
        "end": True, "line": 3 if b"c" in end else 2, "imported": len(stored), "skipped": 0,
        "failed": int(not skip_lines), "bytes": len(line("a")) + size + 2 + len(end),
    }  # fmt: skip


@pytest.mark.local_backend
def test_no_more_is_read_than_is_stored() -> None:
    """While the storage is slow nothing is read from the connection; then all is."""
    world = world_of()
    body = lines_of(1_000, "x" * 4_000)
    wire = SlowWire(world)
    world.held = True
    wire.send(head(len(body)) + body)
    taken = len(body) - len(wire.sent)
    assert HELD <= taken <= HELD + 200_000
    assert wire.transport.producerState == "paused"
    pass_time(world, PATIENCE.body * 3)
    assert wire.open
    world.held = False
    world.work()
    wire.send(b"")
    while wire.sent:
        wire.send(b"")
        world.work()
    assert streamed(wire.read()).lines[-1]["imported"] == 1_000
    assert nothing_left(world)


@pytest.mark.local_backend
def test_what_is_refused_while_nothing_is_read_is_read_to_its_end() -> None:
    """A client that sends all before it reads comes to the answer; what it sends is thrown away."""
    world = world_of()
    wire = SlowWire(world)
    body = lines_of(1_000, "x" * 4_000)
    world.held = True
    wire.send(head(len(body)) + body)
    assert wire.transport.producerState == "paused"
    world.engine.fail("write", StorageError("broken"))
    world.held = False
    world.work()
    wire.send(b"")
    assert not wire.sent
    found = streamed(wire.read())
    assert found.is_whole
    assert found.lines[-1]["end"] is False
    assert nothing_left(world)


def test_only_silence_is_a_deadline() -> None:
    """A body may take as long as it likes, as long as something comes; then it is told what was stored."""
    world = world_of()
    wire = world.wire()
    wire.send(head(None))
    for number in range(30):
        pass_time(world, PATIENCE.body - 1)
        wire.send(chunk(line(f"a{number:02}")))
    assert wire.open
    assert not wire.transport.half_closed
    pass_time(world, PATIENCE.body + 1)
    found = told(wire)
    *_, bad, last = found.lines
    assert found.is_whole
    assert bad["code"] == "request_timeout"
    assert (last["end"], last["line"], last["imported"]) == (False, 30, 30)
    assert wire.transport.half_closed
    assert nothing_left(world)
    assert world.site.deadlines.cut_off == {**NONE_CUT_OFF, "slow_body": 1}


def test_silence_from_the_first_is_408() -> None:
    """Nothing was told yet."""
    world = world_of()
    wire = world.wire()
    wire.send(head(100))
    pass_time(world, PATIENCE.body + 1)
    assert problem(wire.replies()[0])[0] == 408
    assert nothing_left(world)


def test_a_body_that_is_no_http() -> None:
    """The answer that has begun ends, and says so."""
    world = World()
    wire = world.wire()
    wire.send(head(None) + chunk(line("a")))
    world.work()
    wire.send(b"xyz\r\n")
    found = told(wire)
    assert found.is_whole
    assert found.lines[-2]["code"] == "malformed_request"
    assert found.lines[-1]["end"] is False
    assert wire.transport.half_closed
    assert nothing_left(world)


def test_a_client_that_goes_leaves_nothing() -> None:
    """What was stored is; the rest is dropped."""
    world = World()
    wire = world.wire()
    wire.send(head(None) + chunk(line("a")))
    world.work()
    world.held = True
    wire.send(chunk(line("b")))
    wire.transport.disconnect()
    world.held = False
    world.work()
    assert b"a" in world.stored()
    assert nothing_left(world)


def test_a_client_that_does_not_read() -> None:
    """Nothing more is taken from it, and in the end it is cut off: what it is told does not pile up."""
    world = world_of()
    body = b"\n".join([b"no"] * 200_000)
    wire = SlowWire(world)
    wire.send(head(len(body), "?on_error=skip") + body)
    world.work()
    for _ in range(20):
        wire.send(b"")
        world.work()
    assert len(wire.transport.dataBuffer) < 200_000
    pass_time(world, PATIENCE.sending + 1)
    assert not wire.open
    assert nothing_left(world)


def test_a_stop_lets_it_go_on_for_a_while() -> None:
    """Until the grace is over it may come to its end; its connection is the last."""
    world = world_of()
    wire, late = world.wire(), world.wire()
    for one in (wire, late):
        one.send(head(None) + chunk(line("a")))
        world.work()
    drained = world.site.drain(5.0)
    world.reactor.advance(3)
    wire.send(chunk(line("b")) + LAST)
    world.work()
    assert told(wire).lines[-1]["imported"] == 2
    assert not wire.open
    world.reactor.advance(3)
    assert not told(late).is_whole
    assert drained.called
    assert nothing_left(world)


# What batches are refused for.


class Guarded:
    """A world behind a gate with one token."""

    def __init__(self, *grants: Any, rate: Rate | None = None, quota: Quota | None = None) -> None:
        self.token, entry = made("one", *grants)
        self.authority = Authority()
        self.entry: TokenEntry = entry._replace(quota=quota)
        self.authority.replace([self.entry])
        self.written: list[tuple[str, list[bytes]]] = []
        self._rate = rate
        self.world = World(make_gate=self._gate, idle_timeout=1000, patience=PATIENCE)

    def _gate(self, door: Door, admission: Admission) -> Gate:
        self.gate = Gate(
            door, admission, self.authority, Audit(lambda line: None),
            written=lambda who, right, keys: self.written.append((right, list(keys))),
            addresses=None if self._rate is None else Addresses(self._rate),
            seconds=lambda: self.world.reactor.seconds() if hasattr(self, "world") else 0.0,
        )  # fmt: skip
        return self.gate

    def begin(self, query: str = "") -> Wire:
        """An import that waits for its body."""
        wire = self.world.wire()
        wire.send(head(None, query, authorization=self.token.decode()))
        return wire

    def send(self, wire: Wire, body: bytes) -> None:
        """Some of it."""
        wire.send(chunk(body))
        self.world.work()


MIXED = b"".join(line(f"{'own' if number % 7 else 'other'}{number:02}") for number in range(40))


def test_each_key_must_be_permitted() -> None:
    """Lines of others' keys are told of, one by one."""
    guarded = Guarded(grant("set", b"own"))
    wire = guarded.begin("?on_error=skip")
    guarded.send(wire, MIXED)
    wire.send(LAST)
    guarded.world.work()
    found = told(wire).lines
    assert [said["line"] for said in found if said.get("code") == "permission_denied"] == [1, 8, 15, 22, 29, 36]
    assert found[-1]["imported"] == len(guarded.world.stored()) == 34
    assert all(key.startswith(b"own") for key in guarded.world.stored())


def test_stopping_within_a_batch() -> None:
    """All before the line is stored, and nothing behind it: the number tells where to go on."""
    guarded = Guarded(grant("set", b"own"))
    wire = guarded.begin("?skip_lines=1")
    guarded.send(wire, MIXED)
    *_, bad, last = told(wire).lines
    assert (bad["line"], bad["code"]) == (8, "permission_denied")
    assert (last["line"], last["imported"]) == (7, 6)
    assert sorted(guarded.world.stored()) == [b"own%02d" % number for number in range(1, 7)]


def test_writes_are_audited() -> None:
    """As Sets are."""
    guarded = Guarded()
    wire = guarded.begin()
    guarded.send(wire, line("a") + line("b"))
    assert guarded.written == [("set", [b"a", b"b"])]


def test_a_token_that_is_revoked_stores_nothing_more() -> None:
    """The answer ends with the reason."""
    guarded = Guarded()
    wire = guarded.begin()
    guarded.send(wire, line("a"))
    guarded.authority.replace([])
    guarded.gate.look()
    guarded.send(wire, line("b"))
    found = told(wire)
    assert found.is_whole
    assert found.lines[-2]["code"] == "unauthenticated"
    assert found.lines[-1]["end"] is False
    assert set(guarded.world.stored()) == {b"a"}
    assert nothing_left(guarded.world)


def test_the_rate_is_waited_for() -> None:
    """However long that is: keys are charged, and nothing is lost or refused."""
    guarded = Guarded(rate=Rate(operations=10))
    world = guarded.world
    wire = guarded.begin()
    for number in range(30):
        guarded.send(wire, line(f"a{number:02}"))
    wire.send(LAST)
    world.work()
    assert 0 < len(world.stored()) < 15
    for _ in range(60):
        world.reactor.advance(0.5)
        world.work()
    found = told(wire)
    assert found.lines[-1]["imported"] == len(world.stored()) == 30
    assert not any("error" in said for said in found.lines)


@pytest.mark.local_backend
def test_a_quota_is_told_of_by_line() -> None:
    """What fits in is stored."""
    guarded = Guarded(quota=Quota(0, 20))
    wire = guarded.begin()
    guarded.send(wire, lines_of(50))
    *_, bad, last = told(wire).lines
    assert (bad["line"], bad["code"]) == (21, "quota_exceeded")
    assert last["imported"] == len(guarded.world.stored()) == 20


@pytest.mark.local_backend
@pytest.mark.parametrize("error", [NearlyFull("full"), StorageError("broken"), Corruption("damaged")])
def test_what_fails_ends_it(error: StorageError) -> None:
    """Also where lines that are wrong would be left out."""
    world = World()
    world.engine.fail("write", error)
    found = import_of(world, lines_of(3), "?on_error=skip")
    assert found.lines[-2]["code"] == error.code
    assert found.lines[-1] == {"end": False, "line": 0, "imported": 0, "skipped": 0, "failed": 0, "bytes": 0}
    assert nothing_left(world)


@pytest.mark.local_backend
def test_stalls_are_waited_for() -> None:
    """As long as a client has for its next bytes."""
    world = world_of()
    wire = world.wire()
    world.admission._capacity, capacity = 1, world.admission._capacity
    wire.send(head(None) + chunk(line("a")))
    world.work()
    assert not world.stored()
    pass_time(world, PATIENCE.body - 1)
    world.admission._capacity = capacity
    pass_time(world, 2)
    world.work()
    assert set(world.stored()) == {b"a"}
    world.admission._capacity = 1
    wire.send(chunk(line("b")))
    world.work()
    pass_time(world, PATIENCE.body + 2)
    assert [said["code"] for said in told(wire).lines if "code" in said] == ["overloaded"]
    assert nothing_left(world)
