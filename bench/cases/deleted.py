"""What scans over deleted keys cost others: GETs of one hot key, alone and beside scanners of every kind, over HTTP.

A deleted key stays in RocksDB until it is compacted. Before each round beside scanners all keys are stored and deleted
again, so that they are there to be read over.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..load import LoadError
from ..plan import Group, Plan, each_tree, start_server
from ..rounds import Probe, Sample
from ..server import KEY, PATIENCE, SERVICE, Server, name
from ..trees import Tree

CASE = "GET of a hot key"
ALONE, BESIDE = "alone", "beside 8 scanners"
SCANNERS = 8
_BATCH = 10_000
_HOT = "hot"
#: Over all keys but the hot one, of which none lives.
_SCAN = "/api/v1/scan?prefix=key&limit=1"
#: What the scanners ask for, by form.
SCANS = {
    BESIDE: _SCAN,
    "beside 8 in reverse": _SCAN + "&reverse=true",
    "beside 8 that count": _SCAN + "&count_only=true",
    "beside 8 of folders": _SCAN + "&delimiter=/",
}


def delete(server: Server, keys: int, prefix: str = KEY) -> None:
    """Delete what `Server.fill` has stored. Raises LoadError when the server refuses."""
    with grpc.insecure_channel(server.grpc) as channel:
        mdelete = channel.unary_unary(
            SERVICE + "MDelete", kv.MDeleteRequest.SerializeToString, kv.MDeleteResponse.FromString
        )
        for first in range(0, keys, _BATCH):
            batch = range(first, min(first + _BATCH, keys))
            answer = mdelete(kv.MDeleteRequest(keys=[name(key, prefix) for key in batch]), timeout=PATIENCE)
            if not answer.success:
                raise LoadError(f"the keys could not be deleted: {answer.error}")


def ask(address: str, path: str, seconds: float) -> list[float]:
    """GET a path again and again, one at a time; how long each took. Raises LoadError for any answer but 200."""
    waits: list[float] = []
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        begun = now = time.perf_counter()
        while now - begun < seconds:
            connection.request("GET", path)
            answer = connection.getresponse()
            content = answer.read()
            if answer.status != 200:
                raise LoadError(f"GET {path} answers {answer.status} {content!r}")
            asked, now = now, time.perf_counter()
            waits.append(now - asked)
    finally:
        connection.close()
    return waits


def gets(address: str, seconds: float) -> Sample:
    """GET the hot key again and again, one at a time."""
    waits = sorted(ask(address, f"/api/v1/get/{_HOT}", seconds))
    return Sample(len(waits) / sum(waits), waits[len(waits) // 2] * 1e6, waits[len(waits) * 99 // 100] * 1e6)


def forms(address: str) -> list[str]:
    """What this server can do."""
    try:
        for path in SCANS.values():
            ask(address, path, 0.001)
    except LoadError:
        return [BESIDE, ALONE]
    return [*SCANS, ALONE]


class Load:
    """The GETs at a server, alone or beside the scanners."""

    def __init__(self, server: Server, plan: Plan, form: str) -> None:
        self._server = server
        self._keys = plan.keys
        self._value = plan.value
        self._seconds = plan.seconds
        self._form = form

    def warm_up(self) -> None:
        """Have the hot key in the cache."""
        with grpc.insecure_channel(self._server.grpc) as channel:
            mset = channel.unary_unary(SERVICE + "MSet", kv.MSetRequest.SerializeToString, kv.MSetResponse.FromString)
            mset(kv.MSetRequest(key_values={_HOT: self._value}), timeout=PATIENCE)
        gets(self._server.http, 0.1)

    def run(self) -> Sample:
        """One turn."""
        if self._form == ALONE:
            return gets(self._server.http, self._seconds)
        self._server.fill(self._keys, lambda _: self._value)
        delete(self._server, self._keys)
        failures: list[LoadError] = []

        def scan() -> None:
            try:
                ask(self._server.http, SCANS[self._form], self._seconds)
            except LoadError as error:
                failures.append(error)

        scanners = [threading.Thread(target=scan) for _ in range(SCANNERS)]
        for scanner in scanners:
            scanner.start()
        try:
            sample = gets(self._server.http, self._seconds)
        finally:
            for scanner in scanners:
                scanner.join()
        if failures:
            raise failures[0]
        return sample


def open_deleted(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each tree, for both forms."""
    probes: list[Probe] = []

    def add(tree: Tree) -> None:
        server = start_server(stack, plan, tree, "deleted", ())
        for case in cases:
            for form in forms(server.http):
                load = Load(server, plan, form)
                against = None if form == ALONE else ALONE
                probes.append(
                    Probe("deleted", case, form, tree.name, load.warm_up, load.run, "requests/s", against=against)
                )

    each_tree(plan, "scans over deleted keys", add)
    return probes


GROUP = Group("deleted", {CASE: None}, open_deleted)
