"""What clients are told when the server or its storage fails, by the operations and by the health check."""

from __future__ import annotations

from typing import Any

import pytest

from kvtwisted.core.errors import Overloaded, StorageError, StorageFull

from .support import World, problem, request_bytes

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True


def test_overload_is_429() -> None:
    """A request over capacity is refused at once and says when to come back."""
    world = World(capacity=1)
    world.held = True
    world.wire().send(b"GET /api/v1/get/a HTTP/1.1\r\nHost: a\r\n\r\n")
    reply = world.request("GET", "/api/v1/get/b")
    assert problem(reply)[:2] == (429, "overloaded")
    assert reply.headers["retry-after"] == "1"


def test_stopping_is_503() -> None:
    """Requests that come in while the server stops are turned away."""
    world = World()
    world.admission.close()
    assert problem(world.request("GET", "/api/v1/get/a"))[:2] == (503, "unavailable")


def test_a_full_disk_is_507_for_writes() -> None:
    """Reads go on."""
    world = World()
    world.engine.fail("write", StorageFull("No space left on device: /data/000012.log"))
    assert problem(world.post("/api/v1/set", {"key": "k", "value": "v"}))[:2] == (507, "storage_full")
    assert world.request("GET", "/api/v1/get/k").status == 404


def test_a_failing_storage_is_500_with_an_incident() -> None:
    """Nothing of the inside is shown."""
    world = World()
    world.engine.fail("get", StorageError("/data/000012.sst: checksum mismatch"))
    reply = world.request("GET", "/api/v1/get/k")
    assert problem(reply)[:2] == (500, "storage_error")
    assert "000012" not in reply.body.decode()
    assert len(reply.json()["incident"]) == 16


def test_stored_keys_that_are_no_text_are_corruption() -> None:
    """They can only come from outside of this interface; they are not passed off as text."""
    world = World()
    world.storage.store.set(b"\xc3(", b"v")
    assert problem(world.request("GET", "/api/v1/scan"))[:2] == (500, "corruption")


def test_failing_metrics_are_500() -> None:
    """A handler that raises at once is answered like one whose Deferred fails."""

    def fail(is_open: bool) -> tuple[str, bytes]:
        raise ZeroDivisionError("secret")

    reply = World(metrics_text=fail).request("GET", "/metrics")
    assert problem(reply)[:2] == (500, "internal_error")
    assert "secret" not in reply.body.decode()


def test_a_stuck_thread_does_not_hold_the_client_for_ever() -> None:
    """A second after the request's own time the client is told that its write may still happen."""
    world = World()
    world.request_timeout = 3
    world.held = True
    wire = world.wire()
    body = b'{"key":"k","value":"v"}'
    wire.send(
        b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 23\r\n\r\n" + body
    )
    world.reactor.advance(3.9)
    assert wire.replies() == []
    world.reactor.advance(0.1)
    assert [problem(reply)[:2] for reply in wire.replies()] == [(503, "deadline_exceeded")]
    assert world.admission.in_flight == 1


def test_each_request_has_its_deadline() -> None:
    """The time that a request may take goes with it to the storage."""
    world = World()
    world.request_timeout = -1
    assert problem(world.request("GET", "/api/v1/get/k"))[:2] == (503, "deadline_exceeded")


def health(world: World) -> tuple[int, Any]:
    """Status and document of the health check."""
    reply = world.request("GET", "/api/v1/health")
    return reply.status, reply.json()


def test_healthy() -> None:
    """The exact bytes, and the check is counted."""
    world = World()
    assert world.request("GET", "/api/v1/health").body == b'{"status":"ok"}'
    assert world.recorder.health_checks == 1


def test_unhealthy_by_a_known_condition() -> None:
    """The reason is the condition's."""
    world = World()
    world.health.fail("disk", "the disk is full")
    assert health(world) == (503, {"status": "unavailable", "reason": "the disk is full"})
    world.health.recover("disk")
    assert health(world) == (200, {"status": "ok"})


def test_unhealthy_by_a_read_that_fails() -> None:
    """The check really reads."""
    world = World()
    world.engine.fail("get", StorageError("cannot read"))
    assert health(world) == (503, {"status": "unavailable", "reason": "cannot read"})


def test_unhealthy_by_an_error_that_is_no_condition() -> None:
    """Any error of the check is a reason; one that is a defect is an incident."""
    world = World()
    world.engine.fail("get", Overloaded("too busy"))
    assert health(world) == (503, {"status": "unavailable", "reason": "too busy"})
    world.engine.fail("get", ZeroDivisionError("secret"))  # type: ignore[arg-type]
    status, document = health(world)
    assert (status, document["status"]) == (503, "unavailable")
    assert document["reason"].startswith("the health check failed; incident ")
    assert "secret" not in document["reason"]


def test_unhealthy_by_silence() -> None:
    """A storage that does not answer for 5 s is a reason, and its late answer is thrown away."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(request_bytes("GET", "/api/v1/health"))
    world.reactor.pump([0.25] * 19)
    assert wire.replies() == []
    world.reactor.advance(0.25)
    (reply,) = wire.replies()
    reason = "the storage does not answer: nothing for 5 s"
    assert (reply.status, reply.json()) == (503, {"status": "unavailable", "reason": reason})
    world.work()
    assert wire.replies() == []


def test_health_is_not_refused_under_load() -> None:
    """A server that is busy is not ill."""
    world = World(capacity=0)
    assert world.request("GET", "/api/v1/get/a").status == 429
    assert health(world) == (200, {"status": "ok"})


@pytest.mark.local_backend
def test_health_does_not_wait_for_requests() -> None:
    """While the pool of requests gets on with nothing, the check is answered."""
    world = World()
    world.held = True
    waiting = [world.wire() for _ in range(9)]
    for wire in waiting:
        wire.send(request_bytes("POST", "/api/v1/mget", b'{"keys":["k"]}'))
    checked = world.wire()
    checked.send(request_bytes("GET", "/api/v1/health"))
    world.health_pool.run_all()
    assert [reply.status for reply in checked.replies()] == [200]
    assert [wire.replies() for wire in waiting] == [[]] * 9
    assert (world.pool.waiting, world.admission.in_flight) == (9, 9)
    world.work()
    assert [wire.replies()[0].status for wire in waiting] == [200] * 9


def test_a_flood_of_checks_makes_few_reads() -> None:
    """All who ask while one check runs share the next; who goes away harms nobody."""
    world = World()
    world.held = True
    wires = [world.wire() for _ in range(100)]
    for wire in wires:
        wire.send(request_bytes("GET", "/api/v1/health"))
    for wire in wires[::2]:
        wire.transport.disconnect()
    world.work()
    assert [[reply.status for reply in wire.replies()] for wire in wires[1::2]] == [[200]] * 50
    assert world.recorder.health_checks == 2


def test_content_type_that_is_not_text() -> None:
    """Any byte in the header is a wrong type, not a failure of the server."""
    world = World()
    wire = world.wire()
    wire.send(b"POST /api/v1/set HTTP/1.1\r\nHost: a\r\nContent-Type: \xff\r\nContent-Length: 2\r\n\r\n{}")
    (reply,) = wire.replies()
    assert problem(reply)[:2] == (415, "unsupported_media_type")
