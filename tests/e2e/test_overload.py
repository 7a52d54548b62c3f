"""More than the server can do at once: what is refused, and who is served all the same."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from .clients import Grpc
from .harness import PATIENCE, Launcher
from .test_authentication import Tokens

GREEDY = 24
ENOUGH = 20


@pytest.fixture
def tokens(launch: Launcher) -> Tokens:
    """Of the server that is launched."""
    return Tokens(launch.folder / "server")


def test_one_token_cannot_shut_out_another(launch: Launcher, tokens: Tokens) -> None:
    """While one has more scans under way than its share, each call of another one is served.

    On the native transport: grpcio, which refuses calls by their number, knows no tokens.
    """
    greedy, modest = tokens.create("greedy", "scan,set"), tokens.create("modest", "get,set,metrics")
    server = launch("--security-tokens", str(tokens.path), "--limits-max-in-flight", "8", "--grpc-transport", "native")
    with server.grpc(greedy) as client:
        client.call("MSet", key_values={f"k{number:04}": "v" for number in range(5000)})
    ended = threading.Event()
    refusals: list[tuple[grpc.StatusCode, str | None]] = []

    def take_all(_: int) -> int:
        served = 0
        with server.grpc(greedy) as client:
            while not ended.is_set():
                try:
                    served += len(client.call("ScanKeys", limit=5000).keys) == 5000
                except grpc.RpcError as error:
                    refusals.append((error.code(), error.details()))
        return served

    with ThreadPoolExecutor(GREEDY) as threads:
        scans = threads.map(take_all, range(GREEDY))
        try:
            deadline = time.monotonic() + PATIENCE
            with server.grpc(modest) as client, server.http(modest) as http:
                calls = 0
                while calls < ENOUGH or len(refusals) < ENOUGH:
                    assert time.monotonic() < deadline, (calls, len(refusals))
                    assert client.call("Set", key="m", value=str(calls)).success
                    assert client.call("Get", key="m").value == str(calls)
                    assert http.get("/api/v1/get/m").body["value"] == str(calls)
                    calls += 1
        finally:
            ended.set()
        assert sum(scans) > 0
    sentence = "too many requests: limits.max_in_flight_per_principal is 6; try again"
    assert set(refusals) == {(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)}
    with server.http(modest) as http:
        assert http.metric("kv_overloaded_total") == len(refusals)
        assert http.metric("kv_in_flight_requests") == 0


def test_the_bytes_of_large_requests_are_bounded(launch: Launcher) -> None:
    """Those that have no room are refused with the limit's name, and done when they come again; none is lost."""
    server = launch("--limits-max-bytes-in-flight", str(8 << 20), "--storage-threads", "1")
    values = {f"k{number}": str(number % 10) * (1 << 20) for number in range(3)}
    refusals: list[tuple[grpc.StatusCode, str | None]] = []
    deadline = time.monotonic() + PATIENCE

    def store(number: int) -> int:
        """Until one of them all has been refused, and this one's last was not."""
        with server.grpc() as client:
            return _store(client, number)

    def _store(client: Grpc, number: int) -> int:
        done = 0
        while not done or not refusals:
            assert time.monotonic() < deadline, done
            try:
                answer = client.call("MSet", key_values={f"{number}/{key}": value for key, value in values.items()})
                assert answer.success
                done += 1
            except grpc.RpcError as error:
                refusals.append((error.code(), error.details()))
        return done

    with ThreadPoolExecutor(8) as threads:
        done: list[Any] = list(threads.map(store, range(8)))
    assert min(done) >= 1
    sentence = f"too many bytes in requests: limits.max_bytes_in_flight is {8 << 20}; try again"
    assert set(refusals) == {(grpc.StatusCode.RESOURCE_EXHAUSTED, sentence)}
    with server.grpc() as client, server.http() as http:
        for number in range(8):
            assert client.call("Get", key=f"{number}/k2").value == values["k2"]
        assert http.metric("kv_overloaded_total") == len(refusals)
        assert http.metric("kv_in_flight_bytes") == 0
