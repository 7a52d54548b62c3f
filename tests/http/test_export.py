"""Exports: all pairs in order as lines, as fast as the client takes them, and never an end that is none."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.commands.scan import Page
from kvtwisted.http import export
from kvtwisted.http.deadlines import Patience
from kvtwisted.http.export import PART_BYTES, ExportLines

from .slow import NONE_CUT_OFF, PATIENCE, SlowWire, pass_time, world_of
from .streams import Streamed, streamed
from .support import Wire, World, problem, request_bytes

pytestmark = pytest.mark.local_backend

EXPORT = request_bytes("GET", "/api/v1/export?prefix=k")


def fill(world: World, count: int, value: bytes = b"value") -> list[str]:
    """Set so many keys."""
    keys = [f"k{number:05}" for number in range(count)]
    world.engine.write([(DATA, key.encode(), value) for key in keys])
    return keys


def export_of(world: World, query: str = "", wire: Wire | None = None) -> Streamed:
    """One whole answer."""
    wire = wire or world.wire()
    wire.send(request_bytes("GET", f"/api/v1/export{query}"))
    return streamed(wire.transport.value())


def test_the_lines_of_an_export() -> None:
    """Text as text, other bytes as base64, deadlines where there are any; at last a line that says that it is whole."""
    world = World()
    store = world.storage.store
    values = {b"a": b"text", b"b": 'q"\\\n\u00fc'.encode(), b"c": b"\xff\x00", b"d": b"", "\u00e4".encode(): b"1"}
    for key, value in values.items():
        store.set(key, value)
    store.set(b"e", b"ends", 60)
    revision = store.revision
    found = export_of(world)
    assert found.status == 200
    assert found.headers["content-type"] == "application/x-ndjson"
    assert found.is_whole
    assert found.lines == [
        {"key": "a", "value": "text"},
        {"key": "b", "value": 'q"\\\n\u00fc'},
        {"key": "c", "data": "/wA="},
        {"key": "d", "value": ""},
        {"key": "e", "value": "ends", "expires_at_ms": world.storage.clock.now_ms() + 60_000},
        {"key": "\u00e4", "value": "1"},
        {"end": True, "count": 6, "revision": revision},
    ]
    in_base64 = export_of(world, "?encoding=base64&end=b").lines
    assert in_base64 == [{"key": "a", "data": "dGV4dA=="}, {"end": True, "count": 1, "revision": revision}]


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("?prefix=k0001", range(10, 20)),
        ("?start=k00003&end=k00006", range(3, 6)),
        ("?prefix=k&cursor=k00096", range(97, 100)),
        ("?prefix=k&limit=2", range(2)),
        ("?prefix=nothing", range(0)),
    ],
)
def test_what_is_asked_for(query: str, numbers: range) -> None:
    """Prefix, start, end, cursor and limit are as those of a scan."""
    world = World()
    keys = fill(world, 100)
    *lines, last = export_of(world, query).lines
    assert [line["key"] for line in lines] == [keys[number] for number in numbers]
    assert last["end"] is True
    assert last["count"] == len(numbers)


@pytest.mark.parametrize(
    ("query", "field"),
    [("?limit=-1", "limit"), ("?limit=x", "limit"), ("?encoding=hex", "encoding"), ("?x=1", "query"),
     ("?end=%ff", "end"), ("?prefix=a&prefix=b", "prefix"), ("?cursor=" + "x" * 1025, "cursor")],
)  # fmt: skip
def test_what_cannot_be_asked_for(query: str, field: str) -> None:
    """It is refused as any other request, in a whole answer, and the connection goes on."""
    wire = World().wire()
    for _ in range(2):
        status, code, sentence = problem(wire.request("GET", "/api/v1/export" + query))
        assert (status, code in ("invalid_request", "invalid_key")) == (400, True)
        assert sentence.startswith(field)


def test_connections_go_on_behind_it() -> None:
    """Requests before and behind an export, in one packet, are answered in order."""
    world = World()
    fill(world, 3)
    wire = world.wire()
    get = request_bytes("GET", "/api/v1/get/k00001")
    wire.send(get + EXPORT + EXPORT + get)
    first = streamed(wire.transport.value())
    second = streamed(first.rest)
    third = streamed(second.rest)
    last = streamed(third.rest)
    assert [len(found.body.splitlines()) for found in (first, second, third, last)] == [1, 4, 4, 1]
    assert all(found.is_whole for found in (first, second, third, last))
    assert not last.rest
    assert wire.open


def test_http_1_0_has_no_chunks() -> None:
    """The connection's end is the body's, whatever the client asks for."""
    world = World()
    fill(world, 3)
    wire = world.wire()
    wire.send(b"GET /api/v1/export HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
    found = streamed(wire.transport.value())
    assert found.headers["connection"] == "close"
    assert "transfer-encoding" not in found.headers
    assert len(found.lines) == 4
    assert not wire.open


def test_head_reads_nothing_on() -> None:
    """The head alone, and the stream is given up."""
    world = World()
    fill(world, 500, b"x" * 10_000)
    wire = world.wire()
    wire.send(EXPORT.replace(b"GET", b"HEAD"))
    wire.send(b"")
    head, _, rest = wire.transport.value().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK")
    assert not rest
    wire.transport.clear()
    assert wire.request("GET", "/api/v1/get/k00001").status == 200


def test_a_reader_that_takes_its_time_is_waited_for() -> None:
    """However long all takes: what waits for it is some parts, and it gets all."""
    world = world_of()
    keys = fill(world, 1_000, b"x" * 5_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    raw = b""
    while wire.transport.dataBuffer:
        assert len(wire.transport.dataBuffer) < 2 * PART_BYTES
        raw += wire.read(150_000)
        pass_time(world, PATIENCE.sending / 3)
    found = streamed(raw)
    assert found.is_whole
    assert [line["key"] for line in found.lines[:-1]] == keys
    assert found.lines[-1]["end"] is True
    assert world.site.deadlines.cut_off == NONE_CUT_OFF


def test_a_reader_that_takes_nothing_is_cut_off() -> None:
    """By the deadline of all answers; and then nothing is left of the stream."""
    world = world_of()
    fill(world, 500, b"x" * 10_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    pass_time(world, PATIENCE.sending - 1)
    assert wire.open
    pass_time(world, 2)
    assert not wire.open
    world.work()
    assert world.site.deadlines.cut_off == {**NONE_CUT_OFF, "slow_reader": 1}
    assert not world.reactor.getDelayedCalls()


def test_the_deadline_of_requests_does_not_end_it() -> None:
    """A stream may take longer than any request."""
    world = world_of()
    world.request_timeout = 1.0
    fill(world, 500, b"x" * 10_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    raw = b""
    while wire.transport.dataBuffer:
        pass_time(world, 2)
        raw += wire.read(1_000_000)
    assert streamed(raw).lines[-1]["end"] is True


def test_a_client_that_goes_ends_it() -> None:
    """At once: no part is read for it any more."""
    world = world_of()
    fill(world, 500, b"x" * 10_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    wire.transport.disconnect()
    world.work()
    assert not world.pool.waiting
    assert not world.reactor.getDelayedCalls()


def test_what_fails_midway_is_told_in_the_last_line() -> None:
    """It is no end; the chunks end well, and the cursor says where to go on."""
    world = World()
    keys = fill(world, 200, b"x" * 10_000)
    world.engine.write([(DATA, keys[150].encode(), b"\xff\x63")])
    found = export_of(world)
    assert found.is_whole
    *lines, last = found.lines
    assert last["code"] == "corruption"
    assert last["next_cursor"] == lines[-1]["key"]
    assert last["count"] == len(lines) < 150
    assert "end" not in last


def test_what_fails_at_first_is_an_answer() -> None:
    """With a status of its own."""
    world = World()
    world.engine.write([(DATA, b"a", b"\xff\x63")])
    assert problem(world.request("GET", "/api/v1/export"))[:2] == (500, "corruption")


def test_the_view_is_given_up_with_a_cursor() -> None:
    """After its time; the last line says where to go on, and does not say that it is the end."""
    world = World(idle_timeout=1000, patience=Patience(sending=10_000))
    keys = fill(world, 500, b"x" * 10_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    raw = b""
    for _ in range(4):
        raw += wire.read(300_000)
        pass_time(world, 1_000)
    while wire.transport.dataBuffer:
        raw += wire.read()
    found = streamed(raw)
    *lines, last = found.lines
    assert found.is_whole
    assert "end" not in last
    assert last["next_cursor"] == lines[-1]["key"] == keys[len(lines) - 1]
    assert last["count"] == len(lines) < len(keys)


def test_a_stop_lets_it_go_on_for_a_while() -> None:
    """Until the grace is over it is read; then it is cut, amid its chunks."""
    world = world_of()
    fill(world, 500, b"x" * 10_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    drained = world.site.drain(5.0)
    raw = wire.read(1_000_000)
    world.reactor.advance(4)
    raw += wire.read(1_000_000)
    assert wire.open
    world.reactor.advance(2)
    assert not wire.open
    assert drained.called
    found = streamed(raw)
    assert not found.is_whole
    assert found.lines[-1].keys() == {"key", "value"}


def test_one_that_is_ended_amid_it_goes_on_behind_what_was_sent() -> None:
    """What was read ahead, and is not sent, counts for neither the cursor nor the count."""
    world = world_of()
    keys = fill(world, 500, b"x" * 10_000)
    wire = SlowWire(world)
    wire.send(EXPORT)
    world.work()
    raw = wire.read(500_000)
    world.door.streams.stop()
    raw += wire.read()
    found = streamed(raw)
    *lines, last = found.lines
    assert found.is_whole
    assert last["code"] == "unavailable"
    assert [line["key"] for line in lines] == keys[: len(lines)]
    assert last["next_cursor"] == lines[-1]["key"]
    assert last["count"] == len(lines) < len(keys)


_text = st.text(max_size=10) | st.sampled_from(["", "\u00fc", '"', "\\", "\x00", "\x7f", "\u2028"])
_value = st.binary(max_size=10) | _text.map(str.encode)


@given(st.lists(st.tuples(_text, _value, st.sampled_from([0, 0, 5])), min_size=1, max_size=5), st.booleans())
@example([("k", b"v", 0), ("l", b"w", 0)], False)
@example([("k", b"\xc3", 0), ("l", b"\xbc", 0)], False)
def test_all_that_is_stored_is_in_the_lines(entries: list[tuple[str, bytes, int]], in_base64: bool) -> None:
    """The quick way and the plain one write the same, and nothing is lost on the way."""
    keys = [key.encode() for key, _, _ in entries]
    values = [value for _, value, _ in entries]
    ends = [at for _, _, at in entries]
    page = Page(keys, values, b"", ends if any(ends) else ())
    lines = ExportLines(base64=in_base64)
    written = lines(page)
    assert written == b"".join(lines._lines(page))
    read: list[Any] = [json.loads(line) for line in written.split(b"\n")[:-1]]
    assert [(line["key"], _bytes(line), line.get("expires_at_ms", 0)) for line in read] == entries
    if in_base64:
        assert not any("value" in line for line in read)


def _bytes(line: dict[str, Any]) -> bytes:
    if "data" in line:
        return base64.b64decode(line["data"])
    return str(line["value"]).encode()


def test_plain_pages_are_written_at_once() -> None:
    """So that the property above is about two ways."""
    assert export._plain_lines(Page([b"k"], [b"v"], b"")) == b'{"key":"k","value":"v"}\n'
    assert export._plain_lines(Page([b"k"], [b'"'], b"")) is None
