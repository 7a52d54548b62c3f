"""A range is deleted: whole, for good, and its space comes back while the server runs."""

from __future__ import annotations

import pytest

from .harness import Launcher, Server, engine, eventually

COUNT, BATCH = 30_000, 10_000


def _bytes(server: Server) -> int:
    """Of the data folder: tables and the log."""
    files = [file for suffix in ("sst", "log") for file in server.folder.rglob(f"*.{suffix}") if file.name[0].isdigit()]
    return sum(file.stat().st_size for file in files)


def _fill(server: Server) -> None:
    with server.grpc() as client:
        for first in range(0, COUNT, BATCH):
            keys = range(first, first + BATCH)
            assert client.call("MSet", key_values={f"range/{key:06}": f"{key * 7919:0400}" for key in keys}).success
        assert client.call("MSet", key_values={"before": "1", "range0": "2", "range/": "3"}).success


@pytest.mark.skipif(engine() == "lbry", reason="it deletes one by one, and not so many")
def test_space_comes_back_and_keys_do_not(launch: Launcher) -> None:
    """Without a restart the folder shrinks; after a crash the keys are still gone, and what was set since is there."""
    server = launch()
    _fill(server)
    before = _bytes(server)
    assert before > COUNT * 100
    with server.http() as http, server.grpc() as client:
        assert http.post("/api/v1/delete_range", {"prefix": "range/"}).body["deleted"] == COUNT + 1
        assert client.call("ScanKeys").keys == ["before", "range0"]
        assert client.call("Set", key="range/new", value="4").success
        eventually(lambda: _bytes(server) < before // 10)
        assert client.call("DeleteRange", start="before", end="before0").deleted == 1
    server.kill()
    with launch().grpc() as client:
        assert client.call("ScanKeys").keys == ["range/new", "range0"]
        assert not client.call("Get", key="range/000001").found
