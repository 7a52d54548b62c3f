"""Watches over HTTP: server-sent events that a browser can follow and resume."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from kvtwisted.backends.local import watches
from kvtwisted.commands.watch import Changes, Event, EventType
from kvtwisted.http.cors import Cors
from kvtwisted.http.event_stream import ENCODERS
from kvtwisted.sessions.audit import Audit
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.gate import Gate

from ..sessions.support import grant, made
from .slow import PATIENCE, SlowWire, pass_time, world_of
from .streams import streamed
from .support import Wire, World, problem, request_bytes

#: Says that these tests run over either backend at every change.
BACKENDS_DIFFER = True


class Message(NamedTuple):
    """What an EventSource gives to its page: the last id that it has seen, this message's included."""

    event: str
    data: Any
    last_id: str


@pytest.fixture(autouse=True)
def _no_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """However long telling takes here, time does not pass by itself."""
    monkeypatch.setattr(watches, "REST", 0)


def messages(body: bytes) -> list[Message]:
    """What an EventSource makes of a stream, by the algorithm of the HTML standard (section 9.2.6)."""
    found = []
    event, data, last_id = "", "", ""
    for line in body.decode().split("\n"):
        if not line:
            if data:
                found.append(Message(event or "message", json.loads(data.removesuffix("\n")), last_id))
            event = data = ""
            continue
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "event":
            event = value
        elif field == "data":
            data += value + "\n"
        elif field == "id":
            last_id = value
    return found


def watch(world: World, query: str = "", **headers: str) -> Wire:
    """A client that follows."""
    wire = world.wire()
    wire.send(request_bytes("GET", f"/api/v1/watch{query}", **headers))
    world.work()
    return wire


def seen(wire: Wire) -> list[Message]:
    """All that it was told."""
    return messages(streamed(wire.transport.value()).body)


def put(world: World, key: str, value: str = "v", ttl: int = 0) -> int:
    """A Set; gives its revision."""
    body = json.dumps({"key": key, "value": value, "ttl": ttl}).encode()
    assert world.request("POST", "/api/v1/set", body).status == 200
    world.work()
    return last_revision(world)


def last_revision(world: World) -> int:
    """That of the last commit."""
    log = getattr(world.storage, "log", None)
    return int(world.storage.store.revision if log is None else log.revision)


def nobody_watches(world: World) -> bool:
    """Whether no stream is open."""
    return not world.door.streams.slots["watch"].open


def test_what_happens_is_told() -> None:
    """First the revision that it begins at; then each change under the prefix, with the revision as the id."""
    world = World()
    began = put(world, "a1")
    wire = watch(world, "?prefix=a")
    first = put(world, "a2", "\n\u00fc")
    put(world, "b")
    world.request("DELETE", "/api/v1/delete/a1")
    world.work()
    last = last_revision(world)
    assert seen(wire) == [
        Message("revision", {"revision": began}, str(began)),
        Message("set", {"key": "a2", "revision": first}, str(first)),
        Message("delete", {"key": "a1", "revision": last}, str(last)),
    ]
    found = streamed(wire.transport.value())
    assert found.headers["content-type"] == "text/event-stream"
    assert found.headers["cache-control"] == "no-cache"
    assert found.headers["x-accel-buffering"] == "no"
    assert not found.is_whole


def test_values_are_told_if_asked_for() -> None:
    """As text, or in base64; and when they expire."""
    world = World()
    text = watch(world, "?key=k&with_values=true")
    in_base64 = watch(world, "?key=k&with_values=true&encoding=base64")
    revision = put(world, "k", "v", ttl=60)
    put(world, "k2")
    at = seen(text)[1].data["expires_at_ms"]
    assert seen(text)[1:] == [
        Message("set", {"key": "k", "value": "v", "expires_at_ms": at, "revision": revision}, str(revision))
    ]
    assert seen(in_base64)[1].data["data"] == "dg=="


def test_resuming() -> None:
    """After a revision; Last-Event-ID comes before the URL, which is the same when a browser comes again."""
    world = World()
    revisions = [put(world, f"k{number}") for number in range(4)]
    for query, headers, expected in (
        (f"?after_revision={revisions[1]}", {}, revisions[1:]),
        (f"?after_revision={revisions[0]}", {"last_event_id": str(revisions[2])}, revisions[2:]),
        ("", {"last_event_id": str(revisions[0])}, revisions),
        (f"?after_revision={revisions[1]}", {"last_event_id": ""}, revisions[1:]),
    ):
        assert [message.data["revision"] for message in seen(watch(world, query, **headers))] == expected


def test_what_is_no_longer_known_is_said() -> None:
    """The last message is `compacted`, without an id: nobody can go on from it. The answer ends well."""
    world = World()
    put(world, "k")
    wire = watch(world, "?after_revision=1000")
    found = streamed(wire.transport.value())
    assert found.is_whole
    (message,) = messages(found.body)
    assert (message.event, list(message.data), message.last_id) == ("compacted", ["revision"], "")
    assert wire.open


@pytest.mark.parametrize(
    ("query", "headers", "field"),
    [
        ("?key=a&prefix=b", {}, "key"),
        ("?after_revision=-1", {}, "after_revision"),
        ("?after_revision=9999999999999999999", {}, "after_revision"),
        ("?with_values=yes", {}, "with_values"),
        ("?encoding=hex", {}, "encoding"),
        ("?limit=1", {}, "query"),
        ("", {"last_event_id": "x"}, "Last-Event-ID"),
        ("?key=" + "x" * 1025, {}, "key"),
    ],
)
def test_what_cannot_be_asked_for(query: str, headers: dict[str, str], field: str) -> None:
    """It is refused as any other request."""
    status, _, sentence = problem(World().request("GET", f"/api/v1/watch{query}", **headers))
    assert status == 400
    assert sentence.startswith(field)


def test_pages_of_other_origins_may_follow() -> None:
    """Those that the operator has listed; a page that sends Last-Event-ID itself asks before."""
    world = World(cors=Cors(["https://app.example"]))
    found = streamed(watch(world, origin="https://app.example").transport.value())
    assert found.headers["access-control-allow-origin"] == "https://app.example"
    asked = world.request(
        "OPTIONS", "/api/v1/watch", origin="https://app.example", access_control_request_method="GET",
        access_control_request_headers="last-event-id",
    )  # fmt: skip
    assert "last-event-id" in asked.headers["access-control-allow-headers"]


def test_a_client_that_goes_is_forgotten() -> None:
    """Also one of which only the end of its input is seen: one that has gone resets the comment that it is sent."""
    world = World()
    wire = watch(world)
    before = wire.transport.value()
    wire.channel.readConnectionLost()
    assert wire.open
    assert streamed(wire.transport.value()).body.endswith(b"\n:\n\n")
    assert wire.transport.value().startswith(before)
    wire.transport.disconnect()
    world.work()
    assert nobody_watches(world)


def test_a_client_that_reads_nothing_is_cut_off() -> None:
    """It holds up nobody, and no more waits for it than a part."""
    world = world_of()
    wire = SlowWire(world)
    wire.send(request_bytes("GET", "/api/v1/watch?with_values=true"))
    world.work()
    for number in range(20):
        put(world, f"k{number}", "x" * 50_000)
    assert 0 < len(wire.transport.dataBuffer) < 200_000
    pass_time(world, PATIENCE.sending + 1)
    assert not wire.open
    world.work()
    assert nobody_watches(world)


def test_a_token_that_is_revoked_ends_it() -> None:
    """The last message says so."""
    token, entry = made("one", grant("scan", b"a"))
    authority = Authority()
    authority.replace([entry])
    gates: list[Gate] = []

    def gate(door: Any, admission: Any) -> Gate:
        gates.append(Gate(door, admission, authority, Audit(lambda line: None)))
        return gates[0]

    world = World(make_gate=gate)
    shown = {"authorization": token.decode()}
    assert streamed(watch(world, "?prefix=b", **shown).transport.value()).status == 403
    assert streamed(watch(world, "?prefix=a&with_values=true", **shown).transport.value()).status == 403
    assert streamed(watch(world, "?prefix=a").transport.value()).status == 401
    wire = watch(world, "?prefix=a", **shown)
    authority.replace([])
    gates[0].look()
    world.work()
    found = streamed(wire.transport.value())
    assert found.is_whole
    assert messages(found.body)[-1].event == "failed"
    assert messages(found.body)[-1].data["code"] == "unauthenticated"


def test_a_stop_ends_it() -> None:
    """At once; the connection is not used again."""
    world = World()
    wire = watch(world)
    world.door.streams.stop()
    world.work()
    found = streamed(wire.transport.value())
    assert found.is_whole
    assert messages(found.body)[-1].data["code"] == "unavailable"
    assert problem(world.request("GET", "/api/v1/watch"))[0] == 503


# How changes are written.


def test_ids_stand_where_it_can_be_resumed() -> None:
    """On the last event of a commit alone, wherever a commit is cut into parts."""
    encode = ENCODERS[False, False]
    events = [Event(EventType.SET, b"a"), Event(EventType.EXPIRE, b"b")]
    later = Changes(9, [Event(EventType.EVICT, b"c")])
    body = encode([Changes(7, events, end=False)]) + encode([Changes(7, events), later])
    assert [(message.event, message.last_id) for message in messages(body)] == [
        ("set", ""), ("expire", ""), ("set", ""), ("expire", "7"), ("evict", "9"),
    ]  # fmt: skip


def test_ranges_and_bytes() -> None:
    """A range has both its ends; bytes that are no text come as base64."""
    changes = Changes(3, [Event(EventType.DELETE_RANGE, b"a", b"b"), Event(EventType.SET, b"k", value=b"\xff")])
    assert [message.data for message in messages(ENCODERS[True, False]([changes]))] == [
        {"key": "a", "end": "b", "revision": 3},
        {"key": "k", "data": "/w==", "revision": 3},
    ]


def test_those_who_watch_the_same_share_what_is_written() -> None:
    """By having the same function."""
    assert len({id(ENCODERS[way]) for way in ENCODERS}) == 4
