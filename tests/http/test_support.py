"""The in-memory HTTP client of these tests."""

from __future__ import annotations

import pytest

from .support import Reply, World, parse_replies


def test_replies_are_taken_apart_by_their_length() -> None:
    """Two answers in one piece are told apart, and header names are in lower case."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-A: b\r\n\r\nhiHTTP/1.1 404 Not Found\r\n\r\n"
    assert parse_replies(raw) == [Reply(200, {"content-length": "2", "x-a": "b"}, b"hi"), Reply(404, {}, b"")]


def test_replies_to_head_have_no_body() -> None:
    """A Content-Length without a body is what HEAD is answered with."""
    raw = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    assert parse_replies(raw, head=True) == [Reply(200, {"content-length": "2"}, b"")]


@pytest.mark.parametrize(
    "raw", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi"], ids=["head", "body"]
)
def test_cut_replies_are_noticed(raw: bytes) -> None:
    """An answer that is not whole fails the test that reads it."""
    with pytest.raises(AssertionError, match="cut"):
        parse_replies(raw)


def test_a_held_world_answers_later() -> None:
    """While held, a request stays in the threads' queue; running the queue answers it."""
    world = World()
    world.held = True
    wire = world.wire()
    wire.send(b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\n\r\n")
    assert wire.replies() == []
    world.pool.run_all()
    assert [reply.status for reply in wire.replies()] == [404]


def test_a_stalled_client_keeps_the_connection() -> None:
    """A connection whose client reads nothing closes only when it is aborted."""
    wire = World().wire()
    wire.transport.stalled = True
    wire.transport.loseConnection()
    assert wire.open
    wire.transport.abortConnection()
    assert (wire.open, wire.transport.aborted) == (False, True)
