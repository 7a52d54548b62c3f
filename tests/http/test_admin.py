"""The operator's routes: what they pass on, what they answer, and that they do not stand in anybody's way."""

from __future__ import annotations

import pytest

from kvtwisted.core.errors import NoRoomForBackup, Overloaded, StorageError

from ..support.administration import ENGINE
from .support import World, problem

BACKUP = "/api/v1/admin/backup"
BACKUPS = "/api/v1/admin/backups"
EVICTION = "/api/v1/admin/eviction"
ORPHANS = "/api/v1/admin/orphans"


def test_backup_with_a_name() -> None:
    """All that is known of it, once it is made."""
    world = World()
    reply = world.post(BACKUP, {"name": "monday"})
    assert (reply.status, reply.json()) == (
        200,
        {
            "success": True,
            "name": "monday",
            "path": "/srv/kv/backups/monday",
            "time": "2026-11-22T23:06:21Z",
            "engine": ENGINE,
            "files": 7,
            "bytes": 12345,
            "seconds": 0.25,
        },
    )


def test_backup_without_a_name() -> None:
    """It gets one."""
    assert World().post(BACKUP, {}).json()["name"] == "20261122T230621Z"


def test_list_of_backups() -> None:
    """Each as it was answered when it was made; none at first."""
    world = World()
    assert world.request("GET", BACKUPS).json() == {"backups": []}
    made = world.post(BACKUP, {"name": "monday"}).json()
    del made["success"]
    assert world.request("GET", BACKUPS).json() == {"backups": [made]}


def test_dry_run_of_eviction() -> None:
    """The plan with its victims by reason."""
    assert World().request("GET", EVICTION).json() == {
        "disk_percent": 83.5,
        "threshold": 80,
        "policy": "lru",
        "needed": 4096,
        "own_bytes": 70_000,
        "futile": False,
        "victims": {"expired": {"keys": 1, "bytes": 96}, "lru": {"keys": 40, "bytes": 4000}},
    }


def test_collection_of_orphans() -> None:
    """What was removed."""
    assert World().post(ORPHANS, {}).json() == {"success": True, "files": 2, "bytes": 3_000_000}


def test_all_of_it_is_audited() -> None:
    """What was done and came of it, under the name of who asked for it; lists change nothing."""
    world = World()
    world.post(BACKUP, {"name": "monday"})
    world.request("GET", BACKUPS)
    world.request("GET", EVICTION)
    world.post(ORPHANS, {})
    world.post(BACKUP, {"name": "monday"})
    assert world.audited == [
        ("administration", "anonymous", {"operation": "backup", "name": "monday", "bytes": 12345}),
        ("administration", "anonymous", {"operation": "eviction", "needed": 4096}),
        ("administration", "anonymous", {"operation": "orphans", "files": 2, "bytes": 3_000_000}),
        ("administration", "anonymous",
         {"operation": "backup", "error": "name: there is a backup monday already"}),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "body", "code", "sentence"),
    [
        (BACKUP, b"", "invalid_json", ""),
        (BACKUP, b"[]", "invalid_request", "body: must be an object"),
        (BACKUP, b'{"name":null}', "invalid_request", "name: must be a string, but null was sent"),
        (BACKUP, b'{"name":7}', "invalid_request", "name: must be a string, but a number was sent"),
        (BACKUP, b'{"path":"/etc"}', "invalid_request", '"path": is not a field; backup takes name'),
        (BACKUP, b'{"name":"../x"}', "invalid_request", "name: must be 1 to 64 of the characters"),
        (ORPHANS, b'{"x":1}', "invalid_request", '"x": is not a field; orphans takes none'),
    ],
)
def test_bad_bodies(target: str, body: bytes, code: str, sentence: str) -> None:
    """400, and nothing is done."""
    world = World()
    status, given, said = problem(world.request("POST", target, body))
    assert (status, given) == (400, code)
    assert said.startswith(sentence)
    assert world.tasks.made == []


@pytest.mark.parametrize("target", [BACKUP, ORPHANS])
def test_bodies_must_be_json(target: str) -> None:
    """So that no web page can make a browser send one."""
    assert problem(World().request("POST", target, b"{}", content_type="text/plain"))[0] == 415


def test_second_backup_is_refused_while_one_is_made() -> None:
    """429; other work goes on, and afterwards another backup may be made."""
    world = World()
    world.held = True
    first = world.wire()
    first.send(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
               % BACKUP.encode())  # fmt: skip
    assert first.replies() == []
    reply = world.post(BACKUP, {"name": "second"})
    assert problem(reply) == (429, "overloaded", "backup: one is under way; try again when it is done")
    assert reply.headers["retry-after"] == "1"
    world.held = False
    assert world.request("GET", "/api/v1/health").status == 200
    assert [answer.status for answer in first.replies()] == [200]
    assert world.post(BACKUP, {"name": "second"}).status == 200


def test_backup_has_no_time_limit() -> None:
    """Neither the request's time nor the idle connection's ends it."""
    world = World(idle_timeout=60)
    world.held = True
    wire = world.wire()
    wire.send(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
              % BACKUP.encode())  # fmt: skip
    for _ in range(60):
        world.reactor.advance(60)
    assert wire.open
    assert wire.replies() == []
    world.pool.run_all()
    assert [reply.status for reply in wire.replies()] == [200]


def test_the_limits_of_requests_do_not_hold_for_tasks() -> None:
    """Where no other request is let in, an operator still is; and a backup keeps nobody out."""
    busy = World(capacity=0)
    assert problem(busy.post("/api/v1/set", {"key": "k", "value": "v"}))[0] == 429
    assert busy.post(BACKUP, {}).status == 200
    world = World(capacity=1)
    world.held = True
    wire = world.wire()
    wire.send(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % BACKUPS.encode())
    world.held = False
    assert world.admission.in_flight == 0
    assert world.post("/api/v1/set", {"key": "k", "value": "v"}).status == 200


def test_client_that_goes_away_does_not_end_a_backup() -> None:
    """It is finished and listed, and the next one is not refused."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n"
              b'{"name":"mine"}' % BACKUP.encode())  # fmt: skip
    wire.transport.disconnect()
    assert problem(world.post(BACKUP, {"name": "other"}))[0] == 429
    world.held = False
    world.pool.run_all()
    assert world.audited[-1][2] == {"operation": "backup", "name": "mine", "bytes": 12345}
    assert [backup["name"] for backup in world.request("GET", BACKUPS).json()["backups"]] == ["mine"]
    assert world.post(BACKUP, {"name": "other"}).status == 200


def test_only_so_many_lists_at_once() -> None:
    """What waits for a thread is bounded."""
    world = World()
    world.held = True
    wires = [world.wire() for _ in range(9)]
    for wire in wires:
        wire.send(b"GET %s HTTP/1.1\r\nhost: x\r\n\r\n" % BACKUPS.encode())
    assert [problem(reply)[0] for wire in wires for reply in wire.replies()] == [429]
    world.pool.run_all()
    assert [reply.status for wire in wires for reply in wire.replies()] == [200] * 8


def test_no_room_for_a_backup() -> None:
    """507, in words that are about the backup and not about writes."""
    world = World()
    world.tasks.error = NoRoomForBackup("a backup needs 5 bytes in /b, where 4 are free")
    answer = problem(world.post(BACKUP, {}))
    assert answer == (507, "storage_full", "a backup needs 5 bytes in /b, where 4 are free")


def test_failing_storage_is_an_incident() -> None:
    """500 with an incident id; the cause is in the log alone."""
    world = World()
    world.tasks.error = StorageError("the secret inside")
    reply = world.post(BACKUP, {})
    assert problem(reply)[:2] == (500, "storage_error")
    assert "secret" not in reply.body.decode()
    assert reply.json()["incident"]


def test_another_servers_backup_in_the_same_folder() -> None:
    """What the backups themselves find out is answered too."""
    world = World()
    world.tasks.error = Overloaded("another backup is being made; try again when it is done")
    assert problem(world.post(BACKUP, {}))[0] == 429


@pytest.mark.parametrize(
    ("method", "target"), [("POST", BACKUP), ("GET", BACKUPS), ("GET", EVICTION), ("POST", ORPHANS)]
)
def test_memory_has_nothing_to_administer(method: str, target: str) -> None:
    """400 that says why."""
    reply = World(on_disk=False).request(method, target, b"{}" if method == "POST" else None)
    assert problem(reply)[:2] == (400, "invalid_request")
    assert "storage.engine is memory" in problem(reply)[2]


def test_stopping() -> None:
    """A backup that runs is told; the stop waits for it, and later calls are refused."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(b"POST %s HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
              % BACKUP.encode())  # fmt: skip
    stopped: list[None] = []
    world.server.stop().addCallback(stopped.append)
    assert stopped == []
    assert problem(world.request("GET", EVICTION))[:2] == (503, "unavailable")
    world.pool.run_all()
    (reply,) = wire.replies()
    assert problem(reply) == (503, "unavailable", "the server is stopping; no backup was made")
    assert stopped == [None]
    assert world.tasks.made == []
