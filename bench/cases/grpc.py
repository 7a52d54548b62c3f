"""gRPC under load by h2load, on both transports; all calls of a case are on one key among all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .. import h2load
from ..load import LoadError, Outcome
from ..plan import Group, Plan, start_servers
from ..rounds import Probe, Sample
from ..server import PATIENCE, SERVICE, Server, name

#: The forms of all cases, with the option that makes a server so; ratios are to the second.
TRANSPORTS = {"native": ("--grpc-transport", "native"), "threaded": ("--grpc-transport", "threaded")}
_SYNC = ("--rocksdb-options-sync", "true")
#: Calls of the first warm-up, which finds out how many make the next long enough.
_FIRST_CALLS = 1000


class Case(NamedTuple):
    """A method, on so many connections with so many calls at once on each, and whether writes wait for the disk."""

    method: str
    connections: int
    streams: int
    sync: bool = False


CASES = {
    "Get, 4 x 16": Case("Get", 4, 16),
    "Set, 4 x 16": Case("Set", 4, 16),
    "Get, one at a time": Case("Get", 1, 1),
    "Set, one at a time": Case("Set", 1, 1),
    "Set with sync, 4 x 16": Case("Set", 4, 16, sync=True),
}


def make_call(case: Case, keys: int, value: str) -> h2load.Call:
    """The call of a case, on a key in the middle of all."""
    key = name(keys // 2)
    get, put = kv.GetRequest(key=key), kv.SetRequest(key=key, value=value)
    got, done = kv.GetResponse(value=value, found=True), kv.SetResponse(success=True)
    message, answer = (get, got) if case.method == "Get" else (put, done)
    path = SERVICE + case.method
    return h2load.Call(path, message.SerializeToString(), answer.SerializeToString(), case.connections, case.streams)


def check(address: str, call: h2load.Call, headers: Mapping[str, str]) -> None:
    """Make one call with another client. Raises LoadError, or grpc.RpcError, unless the answer is the call's own."""
    with grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(call.path, bytes, bytes)
        answer: bytes = method(call.message, timeout=PATIENCE, metadata=tuple(headers.items()))
    if answer != call.answer:
        raise LoadError(f"{call.path} answers {answer!r} and not {call.answer!r}")


class Load:
    """A call on a server, again and again: what a probe of gRPC runs."""

    def __init__(self, server: Server, call: h2load.Call, seconds: float) -> None:
        """`seconds` is about how long one turn is to last."""
        self._server = server
        self._call = call
        self._seconds = seconds
        self._calls = max(_FIRST_CALLS, 10 * call.connections)
        #: What metrics call the operation.
        self._operation = call.path.rsplit("/", 1)[1].lower()
        self._folder = Path(server.folder)

    def warm_up(self) -> None:
        """Check the answer; then load the server for less than a turn, and find out how many calls make one."""
        check(self._server.grpc, self._call, self._server.headers)
        for seconds in (self._seconds / 2, self._seconds):
            self._calls = int(self._load().rate * seconds) + 1

    def run(self) -> Sample:
        """One turn."""
        outcome = self._load()
        return Sample(outcome.rate, outcome.p50, outcome.p99)

    def _load(self) -> Outcome:
        with self._server.served(self._operation) as served:
            outcome = h2load.run(self._server.grpc, self._call, self._folder, self._calls, self._server.headers)
        if served.calls < outcome.requests:
            raise LoadError(f"h2load saw {outcome.requests} answers, but the server counted {served.calls} calls")
        return outcome


def probe(group: str, case: str, key: tuple[str, str], load: Load) -> Probe:
    """The probe of a load; `key` is the transport and the tree."""
    form, tree = key
    against = "threaded" if form == "native" else None
    return Probe(group, case, form, tree, load.warm_up, load.run, "calls/s", against=against)


def open_grpc(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each transport, tree and kind of write that the cases need."""
    probes = []
    for sync in (False, True):
        chosen = [case for case in cases if CASES[case].sync is sync]
        if not chosen:
            continue
        forms = {form: (*options, *(_SYNC if sync else ())) for form, options in TRANSPORTS.items()}
        servers = start_servers(stack, plan, f"grpc{'-sync' * sync}", forms)
        for case in chosen:
            call = make_call(CASES[case], plan.keys, plan.value)
            probes += [probe("grpc", case, key, Load(server, call, plan.seconds)) for key, server in servers.items()]
    return probes


GROUP = Group("grpc", dict.fromkeys(CASES, h2load.PROGRAM), open_grpc)
