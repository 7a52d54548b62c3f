"""A bank: accounts between which clients move money by Transact, so that all of them together never have more or less.

Some accounts are numbers, which are incremented; the others are texts that are replaced if they are what was read, some
of them large. The bank's keys are under one prefix, and nothing else is.
"""

from __future__ import annotations

import base64
import http.client
import json
import random
import threading
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support.linearizability import Answer, Condition, Mutation, Request, etag_of
from .clients import Grpc
from .harness import PATIENCE, Server
from .registers import Ask, Unheard, over_grpc, over_json

PREFIX = "bank/"
NUMBERS = [f"{PREFIX}number/{number:02}" for number in range(8)]
TEXTS = [f"{PREFIX}text/{number:02}" for number in range(8)]
ACCOUNTS = [*NUMBERS, *TEXTS]
EACH = 1000
TOTAL = EACH * len(ACCOUNTS)
#: Bytes of some texts.
_LARGE = 70_000

#: Reads the accounts in one step.
Read = Callable[[], Mapping[str, bytes]]


def open_accounts(server: Server) -> None:
    """All with the same."""
    with server.grpc() as client:
        data = {key: str(EACH).encode().ljust(_size(key)) for key in ACCOUNTS}
        assert client.call("MSet", data=data).success


def total(accounts: Mapping[str, bytes]) -> int:
    """What is in them."""
    assert sorted(accounts) == ACCOUNTS, sorted(accounts)
    return sum(map(int, accounts.values()))


def _size(key: str) -> int:
    return _LARGE if key in TEXTS[::4] else 0


class Mover(threading.Thread):
    """Moves money until it is told to end, or hears nothing."""

    def __init__(self, name: str, ask: Ask, close: Callable[[], object], chance: random.Random) -> None:
        super().__init__(name=name, daemon=True)
        self._ask = ask
        self._close = close
        self._chance = chance
        self.over = threading.Event()
        self.moved = 0
        self.refused = 0
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Move."""
        try:
            while not self.over.is_set():
                answer = self._move(*self._chance.sample(ACCOUNTS, 2), self._chance.randint(1, 50))
                self.moved += not answer.failed
                self.refused += bool(answer.failed)
        except Unheard:
            pass
        except BaseException as failure:
            self.failure = failure
        finally:
            self._close()

    def _move(self, giver: str, taker: str, amount: int) -> Answer:
        texts = [key for key in (giver, taker) if key in TEXTS]
        found = self._ask(Request(reads=tuple(texts))) if texts else Answer()
        assert found is not None
        values = {key: read.value or b"" for key, read in zip(texts, found.reads)}
        changes = {giver: -amount, taker: amount}
        checks = [(key, self._as_read(value)) for key, value in values.items()]
        mutations = [
            Mutation("set", key, str(int(values[key]) + change).encode().ljust(_size(key)))
            if key in values
            else Mutation("increment", key, delta=change)
            for key, change in changes.items()
        ]
        answer = self._ask(Request((), tuple(checks), tuple(mutations)))
        assert answer is not None
        assert not answer.error, answer
        return answer

    def _as_read(self, value: bytes) -> Condition:
        if self._chance.random() < 0.5:
            return Condition("value", value)
        return Condition("etag", etag=etag_of(value))


def start_movers(server: Server, chance: random.Random, each: int = 2) -> list[Mover]:
    """So many on each interface."""
    movers = [
        Mover(f"{way}{number}", *make(server), random.Random(chance.random()))
        for number in range(each)
        for way, make in (("grpc", over_grpc), ("json", over_json))
    ]
    for mover in movers:
        mover.start()
    return movers


def end(movers: Iterable[Mover]) -> int:
    """Wait for their end; gives how often money was moved."""
    moved = 0
    for mover in movers:
        mover.over.set()
        mover.join(PATIENCE)
        assert not mover.is_alive()
        if mover.failure is not None:
            raise mover.failure
        moved += mover.moved
    return moved


# The ways in which all accounts can be read in one step.


def reads(server: Server, client: Grpc) -> dict[str, Read]:
    """By the names of what they read with."""

    def get(path: str) -> Any:
        with urllib.request.urlopen(f"http://{server.http_address}{path}", timeout=PATIENCE) as answer:
            return answer.read()

    def scanned(**more: Any) -> Read:
        def read() -> Mapping[str, bytes]:
            page = client.call("ScanKeyValues", prefix=PREFIX, **more)
            assert not page.error, page.error
            return {entry.key: entry.data for entry in page.entries}

        return read

    def streamed() -> Mapping[str, bytes]:
        stream = client.channel.unary_stream(
            "/kv.v1.KeyValueService/ScanStream", kv.ScanRequest.SerializeToString, kv.ScanKeyValuesResponse.FromString
        )
        messages = stream(kv.ScanRequest(prefix=PREFIX), timeout=PATIENCE)
        return {entry.key: entry.data for message in messages for entry in message.entries}

    def in_json(lines: Sequence[Mapping[str, str]]) -> Mapping[str, bytes]:
        return {
            line["key"]: line["value"].encode() if "value" in line else base64.b64decode(line["data"])
            for line in lines
            if "key" in line
        }

    def over_http() -> Mapping[str, bytes]:
        found = json.loads(get(f"/api/v1/scan?prefix={PREFIX}"))["results"]
        return {key: value.encode() for key, value in found.items()}

    return {
        "MGet": lambda: dict(client.call("MGet", keys=ACCOUNTS, as_data=True).data),
        "ScanKeyValues": lambda: {
            key: value.encode() for key, value in client.call("ScanKeyValues", prefix=PREFIX).key_values.items()
        },
        "scan over HTTP": over_http,
        "reverse": scanned(reverse=True),
        "as data": scanned(as_data=True),
        "ScanStream": streamed,
        "export": lambda: in_json([json.loads(line) for line in get(f"/api/v1/export?prefix={PREFIX}").splitlines()]),
    }


class Auditor(threading.Thread):
    """Adds the accounts up in one way, again and again, until a call fails or it is told to end."""

    def __init__(self, name: str, read: Read) -> None:
        super().__init__(name=name, daemon=True)
        self._read = read
        self.over = threading.Event()
        self.looked = 0
        #: What was found wrong.
        self.wrong: list[str] = []

    def run(self) -> None:
        """Add up."""
        try:
            while not self.over.is_set():
                accounts = self._read()
                if accounts.keys() != set(ACCOUNTS) or total(accounts) != TOTAL:
                    self.wrong.append(f"{self.name}: {len(accounts)} accounts with {sum(map(int, accounts.values()))}")
                self.looked += 1
        except (grpc.RpcError, OSError, ValueError, http.client.HTTPException):
            if self.over.is_set() or self.looked:
                return  # the server is gone
            self.wrong.append(f"{self.name} never came to its end")
