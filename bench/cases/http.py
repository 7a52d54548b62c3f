"""HTTP under load by wrk, on both lanes: 64 connections, random ones of all keys."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import NamedTuple

from .. import wrk
from ..load import LoadError, Outcome
from ..plan import Group, Plan, start_servers
from ..rounds import Probe, Sample
from ..server import PATIENCE, Server, name

#: The forms of all cases, with the option that makes a server so; ratios are to the second.
LANES = {"fast lane": ("--http-fast-lane", "true"), "Klein": ("--http-fast-lane", "false")}
CONNECTIONS = 64


class Request(NamedTuple):
    """A request; KEY stands for the key. `operation` is what metrics call it."""

    operation: str
    method: str
    path: str
    body: str


def get() -> Request:
    """GET of one key."""
    return Request("get", "GET", "/api/v1/get/KEY", "")


def put(value: str) -> Request:
    """POST of one key with its value."""
    return Request("set", "POST", "/api/v1/set", json.dumps({"key": "KEY", "value": value}))


def check(address: str, request: Request, key: str, headers: Mapping[str, str]) -> None:
    """Send one request with another client. Raises LoadError unless the answer is 200 and what it should be."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    try:
        headers = {**headers, **({"Content-Type": "application/json"} if request.body else {})}
        body = request.body.replace("KEY", key) or None
        connection.request(request.method, request.path.replace("KEY", key), body, headers)
        answer = connection.getresponse()
        content = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status != 200 or (content.get("key") != key if request.operation == "get" else not content["success"]):
        raise LoadError(f"{request.method} {request.path} answers {answer.status} {content}")


class Load:
    """A request on a server, again and again on random keys: what a probe of HTTP runs."""

    def __init__(self, server: Server, request: Request, keys: int, connections: int, seconds: int) -> None:
        self._server = server
        self._request = request
        self._keys = keys
        self._connections = connections
        self._seconds = seconds
        self._script = server.folder / f"{request.operation}-{connections}.lua"
        text = wrk.script(request.method, request.path, request.body, keys, server.headers)
        self._script.write_text(text, encoding="ascii")

    def warm_up(self) -> None:
        """Check an answer; then load the server for a second."""
        check(self._server.http, self._request, name(self._keys // 2), self._server.headers)
        self.load(1)

    def run(self) -> Sample:
        """One turn."""
        return self.load(self._seconds).sample()

    def load(self, seconds: int) -> Outcome:
        """Run wrk. Raises LoadError unless both ends agree that all went well."""
        with self._server.served(self._request.operation) as served:
            outcome = wrk.run(self._server.http, self._script, self._connections, seconds)
        if served.keys < outcome.requests:
            raise LoadError(f"wrk saw {outcome.requests} answers, but the server counted {served.keys} keys")
        return outcome._replace(server=served.seconds / outcome.requests * 1e6)


def probe(group: str, case: str, key: tuple[str, str], load: Load) -> Probe:
    """The probe of a load; `key` is the lane and the tree."""
    form, tree = key
    against = "Klein" if form == "fast lane" else None
    return Probe(group, case, form, tree, load.warm_up, load.run, "requests/s", against=against)


def open_http(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each lane and tree."""
    requests = {"GET": get(), "POST set": put(plan.value)}
    servers = start_servers(stack, plan, "http", LANES)
    return [
        probe("http", case, key, Load(server, requests[case], plan.keys, CONNECTIONS, plan.whole_seconds))
        for case in cases
        for key, server in servers.items()
    ]


GROUP = Group("http", dict.fromkeys(("GET", "POST set"), wrk.PROGRAM), open_http)
