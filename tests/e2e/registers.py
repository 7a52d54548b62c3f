"""Clients of every interface that read and write a few keys under conditions, and keep the history of it.

What each operation means stands in `tests/support/linearizability.py`, which also judges the histories.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import math
import queue
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, Optional

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support.linearizability import Answer, Condition, Did, Mutation, Operation, Read, Request, etag_of
from .clients import TIMEOUT, Grpc
from .harness import PATIENCE, Server

#: Bytes of values: small, in a file where `value.disk_threshold` is 2,000, and more than a window of HTTP/2 has.
SIZES = (0, 0, 0, 0, 0, 0, 3000, 70_000)
SHORT, LONG = 1, 1000
#: Operations of a pipeline that are under way at once.
_AHEAD = 4

#: What a client does: asks, and gives the answer; raises Unheard when nobody knows what came of it.
Ask = Callable[[Request], Optional[Answer]]


class Unheard(Exception):
    """It may have happened, or not."""


# gRPC.


def condition_of(condition: Condition) -> kv.Condition:
    """As a message."""
    if condition.kind in ("absent", "present"):
        return kv.Condition(**{condition.kind: True})
    return kv.Condition(value=condition.value) if condition.kind == "value" else kv.Condition(etag=condition.etag)


def message_of(mutation: Mutation, condition: Condition | None = None) -> Any:
    """The request of a mutation."""
    more = {} if condition is None else {"condition": condition_of(condition)}
    if mutation.kind == "set":
        return kv.SetRequest(key=mutation.key, data=mutation.value, ttl=mutation.ttl, **more)
    if mutation.kind == "delete":
        return kv.DeleteRequest(key=mutation.key, **more)
    if mutation.kind == "touch":
        return kv.TouchRequest(key=mutation.key, ttl=mutation.ttl, **more)
    return kv.IncrementRequest(key=mutation.key, delta=mutation.delta, ttl=mutation.ttl)


_ERRORS = {"not a decimal number": "not_a_number", "beyond 64 bits": "number_overflow"}


def answer_of(kind: str, message: Any) -> Answer:
    """What the answer to one mutation, or a Get, tells."""
    if kind == "get":
        assert not message.error, message.error
        return Answer(reads=(Read(message.data, message.ttl) if message.found else Read(None),))
    if kind != "increment" and message.condition_failed:
        assert not message.success
        return Answer(failed=1, etag=message.etag)
    if not message.success:
        return _refused(message)
    did = {
        "touch": lambda: (Did(message.found),),
        "increment": lambda: (Did(not message.created, message.value),),
    }.get(kind, lambda: None)()
    return Answer(did=did, revision=message.revision)


def _refused(message: Any) -> Answer:
    return Answer(error=next(error for text, error in _ERRORS.items() if text in message.error))


def _conditions(request: Request) -> list[Condition] | None:
    """Those of a request of one mutation, if there is one at most and on the mutation's key; else None."""
    if len(request.mutations) != 1 or len(request.checks) > 1:
        return None
    conditions = [condition for key, condition in request.checks if key == request.mutations[0].key]
    return conditions if len(conditions) == len(request.checks) else None


def _operation_of(request: Request) -> dict[str, Any] | None:
    """The message of a request of one key, by the name of its field in a pipeline; None for what has none."""
    if len(request.reads) == 1:
        return {"get": kv.GetRequest(key=request.reads[0], as_data=True)}
    conditions = _conditions(request)
    if conditions is None or (conditions and request.mutations[0].kind == "increment"):
        return None
    (mutation,) = request.mutations
    return {mutation.kind: message_of(mutation, *conditions)}


def over_grpc(server: Server) -> tuple[Ask, Callable[[], object]]:
    """A client of its own connection, and what closes it."""
    client = Grpc(server.grpc_address, options=[("grpc.use_local_subchannel_pool", 1)])

    def ask(request: Request) -> Answer:
        try:
            return _ask_grpc(client, request)
        except grpc.RpcError as error:
            raise Unheard(error) from error

    return ask, client.channel.close


def _ask_grpc(client: Grpc, request: Request) -> Answer:
    if len(request.reads) > 1:
        data = client.call("MGet", keys=request.reads, as_data=True).data
        return Answer(reads=tuple(Read(data.get(key)) for key in request.reads))
    operation = _operation_of(request)
    if operation is not None:
        ((kind, message),) = operation.items()
        return answer_of(kind, client.send(kind.capitalize(), message))
    message = client.send(
        "Transact",
        kv.TransactRequest(
            checks=[kv.Check(key=key, condition=condition_of(condition)) for key, condition in request.checks],
            mutations=[kv.Mutation(**{mutation.kind: message_of(mutation)}) for mutation in request.mutations],
        ),
    )
    if message.failed_check:
        return Answer(failed=message.failed_check, etag=message.etag)
    if not message.success:
        return _refused(message)
    did = [
        Did(result.found, result.value if mutation.kind == "increment" else None)
        for result, mutation in zip(message.results, request.mutations)
    ]
    assert len(did) == len(request.mutations)
    return Answer(did=tuple(did), revision=message.revision)


# HTTP.


class _Json:
    """A keep-alive connection."""

    def __init__(self, server: Server) -> None:
        self.connection = http.client.HTTPConnection(server.http_address, timeout=TIMEOUT)

    def call(self, method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any, bytes]:
        """Status, headers and body; what may have happened or not is Unheard."""
        try:
            self.connection.request(
                method, path, body, {name.replace("_", "-"): text for name, text in headers.items()}
            )
            answer = self.connection.getresponse()
            read = answer.read()
        except (OSError, http.client.HTTPException) as error:
            raise Unheard(error) from error
        if answer.status >= 500:
            raise Unheard(read)
        return answer.status, answer.headers, read

    def post(self, path: str, document: object) -> tuple[int, Any]:
        """Status and document."""
        body = json.dumps(document).encode()
        status, _, read = self.call("POST", f"/api/v1/{path}", body, Content_Type="application/json")
        return status, json.loads(read)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _json_condition(condition: Condition) -> dict[str, object]:
    if condition.kind in ("absent", "present"):
        return {condition.kind: True}
    return {"value": _text(condition.value)} if condition.kind == "value" else {"etag": condition.etag}


def _json_mutation(mutation: Mutation) -> dict[str, object]:
    fields: dict[str, object] = {"key": mutation.key}
    if mutation.kind == "set":
        fields["value"] = _text(mutation.value)
    if mutation.kind == "increment":
        fields["delta"] = mutation.delta
    if mutation.kind != "delete" and mutation.ttl:
        fields["ttl"] = mutation.ttl
    return fields


def over_json(server: Server) -> tuple[Ask, Callable[[], object]]:
    """A client of the JSON routes; a Delete under a condition is a transaction of one."""
    client = _Json(server)

    def ask(request: Request) -> Answer:
        if request.reads:
            keys = request.reads
            status, document = client.post("mget", {"keys": keys, "encoding": "base64"})
            assert status == 200, document
            found = document["results"]
            return Answer(reads=tuple(Read(base64.b64decode(found[key]) if key in found else None) for key in keys))
        conditions = _conditions(request)
        if conditions is None or (conditions and request.mutations[0].kind in ("delete", "increment")):
            return _transact(client, request)
        (mutation,) = request.mutations
        if mutation.kind == "delete":
            status, _, read = client.call("DELETE", f"/api/v1/delete/{mutation.key}")
            assert status == 200, read
            return Answer()
        fields = _json_mutation(mutation)
        if mutation.kind == "set":
            fields["encoding"] = "base64"
        if conditions:
            fields["condition"], fields["encoding"] = _json_condition(conditions[0]), "base64"
        status, document = client.post(mutation.kind, fields)
        return _of_json(status, document, (mutation,))

    return ask, client.connection.close


def _transact(client: _Json, request: Request) -> Answer:
    document = {
        "checks": [{"key": key, "condition": _json_condition(condition)} for key, condition in request.checks],
        "mutations": [{mutation.kind: _json_mutation(mutation)} for mutation in request.mutations],
        "encoding": "base64",
    }
    return _of_json(*client.post("transact", document), request.mutations)


def _of_json(status: int, document: Any, mutations: Sequence[Mutation]) -> Answer:
    if status == 412:
        assert document["code"] == "condition_failed", document
        return Answer(failed=document.get("failed_check", 1), etag=document.get("etag") or "")
    if status == 409:
        return Answer(error=document["code"])
    assert status == 200, document
    results = document.get("results", [document])
    did = tuple(
        Did(
            not result["created"] if mutation.kind == "increment" else result.get("found"),
            result["value"] if mutation.kind == "increment" else None,
        )
        for result, mutation in zip(results, mutations)
    )
    return Answer(did=did, revision=document.get("revision", 0))


def over_raw(server: Server) -> tuple[Ask, Callable[[], object]]:
    """A client of the raw routes, with ETags; what they cannot say it does not do."""
    client = _Json(server)

    def ask(request: Request) -> Answer | None:
        if len(request.reads) == 1:
            status, headers, read = client.call("GET", f"/api/v1/raw/{request.reads[0]}")
            if status == 404:
                return Answer(reads=(Read(None),))
            assert status == 200, read
            assert headers["ETag"] == f'"{etag_of(read)}"'
            return Answer(reads=(Read(read),))
        fields = _preconditions(request)
        if fields is None:
            return None
        (mutation,) = request.mutations
        path = f"/api/v1/raw/{mutation.key}"
        if mutation.kind == "delete":
            status, headers, read = client.call("DELETE", path, **fields)
        else:
            ttl = f"?ttl={mutation.ttl}" if mutation.ttl else ""
            fields["Content_Type"] = "application/octet-stream"
            status, headers, read = client.call("PUT", path + ttl, mutation.value, **fields)
        if status == 412:
            return Answer(failed=1, etag=json.loads(read).get("etag") or "")
        assert status in (200, 201, 204), (status, read)
        return Answer()

    return ask, client.connection.close


def _preconditions(request: Request) -> dict[str, str] | None:
    """The header fields; None for what they cannot say."""
    conditions = _conditions(request)
    if conditions is None or request.mutations[0].kind not in ("set", "delete"):
        return None
    for condition in conditions:
        if condition.kind == "absent":
            return {"If_None_Match": "*"}
        etag = condition.etag or etag_of(condition.value)
        return {"If_Match": "*" if condition.kind == "present" else f'"{etag}"'}
    return {}


# Who asks.


class Chooser:
    """Chooses what a client asks next, by what it has last seen at each key."""

    def __init__(self, name: str, keys: Sequence[str], joined: Sequence[str], chance: random.Random) -> None:
        """`keys` are registers of their own; `joined` are changed and read together, too."""
        self._name = name
        self._keys = keys
        self._joined = joined
        self._chance = chance
        self._numbers = itertools.count()
        self._seen: dict[str, bytes | None] = {}

    def next(self) -> Request:
        """One request."""
        if self._joined and self._chance.random() < 0.3:
            return self._of_many()
        key = self._chance.choice([*self._keys, *self._joined])
        kind = self._chance.choices(
            ("read", "set", "swap", "create", "replace", "delete", "take", "add", "touch", "renew"),
            (25, 8, 20, 10, 4, 3, 7, 12, 4, 7),
        )[0]
        if kind == "read":
            return Request(reads=(key,))
        if kind in ("delete", "take"):
            mutation = Mutation("delete", key)
        elif kind == "add":
            mutation = Mutation("increment", key, delta=self._chance.randint(-3, 3), ttl=self._ttl())
        elif kind in ("touch", "renew"):
            mutation = Mutation("touch", key, ttl=self._ttl())
        else:
            mutation = Mutation("set", key, self._value(), self._ttl())
        if kind in ("swap", "take", "renew"):
            return Request((), ((key, self._as_seen(key)),), (mutation,))
        if kind in ("create", "replace"):
            return Request((), ((key, Condition("absent" if kind == "create" else "present")),), (mutation,))
        return Request((), (), (mutation,))

    def _of_many(self) -> Request:
        if self._chance.random() < 0.4:
            return Request(reads=tuple(self._joined))
        checks = [(key, self._as_seen(key)) for key in self._joined if self._chance.random() < 0.5]
        mutations = [
            self._chance.choice(
                (
                    Mutation("set", key, self._value(), self._ttl()),
                    Mutation("delete", key),
                    Mutation("increment", key, delta=1),
                    Mutation("touch", key, ttl=self._ttl()),
                )
            )
            for key in self._chance.choices(self._joined, k=self._chance.randint(1, 3))
        ]
        return Request((), tuple(checks), tuple(mutations))

    def learn(self, request: Request, answer: Answer) -> None:
        """What the client was told."""
        if answer.reads:
            self._seen.update((key, read.value) for key, read in zip(request.reads, answer.reads))
        elif not answer.failed and not answer.error:
            for mutation in request.mutations:
                if mutation.kind == "set":
                    self._seen[mutation.key] = mutation.value
                elif mutation.kind == "delete":
                    self._seen[mutation.key] = None

    def _as_seen(self, key: str) -> Condition:
        value = self._seen.get(key)
        if value is None:
            return Condition("absent")
        return Condition("value", value) if self._chance.random() < 0.5 else Condition("etag", etag=etag_of(value))

    def _value(self) -> bytes:
        """One that nobody else writes; some are numbers, some begin with bytes that no text has."""
        number = next(self._numbers)
        if self._chance.random() < 0.3:
            return b"%d" % (1000 * number + self._chance.randrange(1000))
        start = b"\xff" if number % 3 == 0 else b""
        return (start + f"{self._name} {number} ".encode()).ljust(self._chance.choice(SIZES), b"\xfe")

    def _ttl(self) -> int:
        return self._chance.choices((0, SHORT, LONG), (6, 2, 1))[0]


class Client(threading.Thread):
    """Asks for one thing after the other until it is told to end, or hears nothing; keeps the history."""

    def __init__(self, chooser: Chooser, name: str, ask: Ask, close: Callable[[], object]) -> None:
        super().__init__(name=name, daemon=True)
        self._chooser = chooser
        self._ask = ask
        self._close = close
        self._over = threading.Event()
        self.history: list[Operation] = []
        #: What was wrong, other than that nothing was heard.
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Ask."""
        try:
            while not self._over.is_set():
                request = self._chooser.next()
                called = time.monotonic()
                try:
                    answer = self._ask(request)
                except Unheard:
                    self.history.append(Operation(self.name, request, called))
                    return
                if answer is not None:
                    self._chooser.learn(request, answer)
                    self.history.append(Operation(self.name, request, called, time.monotonic(), answer))
        except BaseException as failure:
            self.failure = failure
        finally:
            self._close()

    def end(self) -> None:
        """Wait for its end, which must be a good one."""
        self._over.set()
        self.join(PATIENCE)
        assert not self.is_alive(), self.name
        if self.failure is not None:
            raise self.failure


class Pipeline(Client):
    """The same on one stream, with some operations under way at once."""

    def __init__(self, chooser: Chooser, name: str, server: Server) -> None:
        channel = grpc.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)])
        super().__init__(chooser, name, lambda request: None, channel.close)
        self._call = channel.stream_stream(
            "/kv.v1.KeyValueService/Pipeline", kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString
        )

    def run(self) -> None:
        """Ask."""
        sent: queue.SimpleQueue[kv.PipelineRequest | None] = queue.SimpleQueue()
        under_way: dict[int, tuple[float, Request]] = {}
        numbers = itertools.count(1)
        try:
            answers = self._call(iter(sent.get, None), timeout=2 * PATIENCE)
            while not self._over.is_set() or under_way:
                while not self._over.is_set() and len(under_way) < _AHEAD:
                    request = self._chooser.next()
                    number, operation = next(numbers), _operation_of(request)
                    if operation is not None:
                        under_way[number] = time.monotonic(), request
                        sent.put(kv.PipelineRequest(id=number, **operation))
                message = next(answers)
                called, request = under_way.pop(message.id)
                assert not message.code, message
                kind = message.WhichOneof("result")
                answer = answer_of(kind, getattr(message, kind))
                self._chooser.learn(request, answer)
                self.history.append(Operation(self.name, request, called, time.monotonic(), answer))
        except grpc.RpcError:
            pass
        except BaseException as failure:
            self.failure = failure
        finally:
            sent.put(None)
            self._close()
        self.history += [Operation(self.name, request, called) for called, request in under_way.values()]


WAYS: dict[str, Callable[[Server], tuple[Ask, Callable[[], object]]]] = {
    "grpc": over_grpc, "json": over_json, "raw": over_raw,
}  # fmt: skip


def start(
    server: Server, keys: Sequence[str], joined: Sequence[str], chance: random.Random, each: int = 2
) -> list[Client]:
    """So many clients of each interface, which work on the same keys."""
    clients: list[Client] = []
    for number in range(each):
        for way, make in WAYS.items():
            name = f"{way}{number}-{chance.randrange(1_000_000)}"
            clients.append(Client(Chooser(name, keys, joined, random.Random(chance.random())), name, *make(server)))
        name = f"pipeline{number}-{chance.randrange(1_000_000)}"
        clients.append(Pipeline(Chooser(name, keys, joined, random.Random(chance.random())), name, server))
    for client in clients:
        client.start()
    return clients


def collect(clients: Sequence[Client], dead: float = math.inf) -> Iterator[Operation]:
    """The history of clients that have ended; what was not heard can have happened until the server was dead."""
    for client in clients:
        client.end()
        for operation in client.history:
            yield operation if operation.answer is not None else replace(operation, ended=dead)
