"""Many keys under one prefix: scanned to the end, in order, without the process growing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from .clients import Grpc, Http
from .harness import Launcher, Server

COUNT = 100_000
BATCH = 10_000
MOST_GROWTH = 64 * 1024 * 1024

Pair = tuple[str, str]


def _pair(number: int) -> Pair:
    """Keys of 30 bytes and values of 100."""
    return f"many/keys/{number * 7:020}", f"{number:0100}"


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with COUNT keys under one prefix, written in no particular order, and neighbours on both sides."""
    launcher = Launcher(tmp_path_factory.mktemp("many"))
    server = launcher()
    with server.grpc() as client:
        stride = COUNT // BATCH
        for first in range(stride):
            assert client.call("MSet", key_values=dict(map(_pair, range(first, COUNT, stride)))).success
        assert client.call("MSet", key_values={"many/keyr": "before", "many/keyt": "after"}).success
    yield server
    launcher.end()


def _http_pairs(client: Http) -> Iterator[Pair]:
    cursor = ""
    while True:
        page = client.get(f"/api/v1/scan?prefix=many/keys/&limit=10000&cursor={quote(cursor)}").body
        yield from page["results"].items()
        cursor = page["next_cursor"]
        if not cursor:
            return


def _grpc_pairs(client: Grpc) -> Iterator[Pair]:
    cursor = ""
    while True:
        page = client.call("ScanKeyValues", prefix="many/keys/", limit=10_000, cursor=cursor)
        yield from sorted(page.key_values.items())
        cursor = page.next_cursor
        if not cursor:
            return


def _grpc_keys(client: Grpc) -> Iterator[str]:
    cursor = ""
    while True:
        page = client.call("ScanKeys", prefix="many/keys/", cursor=cursor, limit=9_999)
        yield from page.keys
        cursor = page.next_cursor
        if not cursor:
            return


@pytest.mark.long
def test_scanning_to_the_end(many: Server) -> None:
    """Both interfaces give every pair once and in order, and the server's resident memory hardly grows."""
    expected = [_pair(number) for number in range(COUNT)]
    with many.http() as http, many.grpc() as client:
        next(_http_pairs(http))
        next(_grpc_pairs(client))
        before = _resident(many)
        _forget_peak(many)
        assert list(_http_pairs(http)) == expected
        assert list(_grpc_pairs(client)) == expected
        assert list(_grpc_keys(client)) == [key for key, _ in expected]
        assert _peak(many) - before < MOST_GROWTH


def test_scanning_without_pages(many: Server) -> None:
    """Without a limit gRPC answers whole what fits, and says to page what does not; HTTP has its default limit."""
    with many.http() as http, many.grpc() as client:
        some = client.call("ScanKeyValues", prefix="many/keys/000000000000000")
        assert not some.next_cursor
        assert sorted(some.key_values) == [key for key, _ in map(_pair, range(100_000 // 7 + 1))]
        everything = client.call("ScanKeyValues", prefix="many/keys/")
        assert (len(everything.key_values), everything.next_cursor) == (0, "")
        assert "page with limit and cursor" in everything.error
        page = http.get("/api/v1/scan?prefix=many/").body
        assert (page["limit"], page["count"], next(iter(page["results"]))) == (100, 100, "many/keyr")
        assert page["next_cursor"] == list(page["results"])[-1]


def _memory(server: Server, field: str) -> int:
    status = Path(f"/proc/{server.pid}/status").read_text()
    match = re.search(rf"^{field}:\s+(\d+) kB$", status, re.MULTILINE)
    assert match, status
    return int(match[1]) * 1024


def _resident(server: Server) -> int:
    return _memory(server, "VmRSS")


def _peak(server: Server) -> int:
    return _memory(server, "VmHWM")


def _forget_peak(server: Server) -> None:
    """Let the peak start anew from what is resident now (see proc(5), clear_refs)."""
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")
