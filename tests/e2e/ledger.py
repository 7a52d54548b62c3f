"""Clients that write for as long as the server lives, and a book of what each key may hold afterwards."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional

import grpc

from .harness import Server

#: Characters of every fifth value.
LARGE = 2000
#: What is said of a group of keys: the one value that all of them hold, or None when all are missing.
State = Optional[str]
#: Applies a state to keys; returns once it was acknowledged, raises if it may not have happened.
Write = Callable[[Sequence[str], State], None]

_GROUPS = 8
_TTL = 3600


class Refused(Exception):
    """The server stops, and said that it did not do it."""


class Ledger:
    """What writers were told. One thread writes a group at a time."""

    def __init__(self) -> None:
        self._possible: dict[tuple[str, ...], set[State]] = {}
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._acknowledged = 0

    def write(self, keys: tuple[str, ...], state: State, apply: Write) -> None:
        """Let `apply` bring `keys` into `state`; keep book of it, whatever happens."""
        with self._lock:
            before = self._possible.get(keys, {None})
            self._possible[keys] = before | {state}
        try:
            apply(keys, state)
        except Refused:
            with self._lock:
                self._possible[keys] = before
            raise
        with self._lock:
            self._possible[keys] = {state}
            self._acknowledged += 1
            self._more.notify_all()

    def wait_for_more(self, writes: int, patience: float) -> None:
        """Return once that many more writes have been acknowledged."""
        with self._lock:
            wanted = self._acknowledged + writes
            assert self._more.wait_for(lambda: self._acknowledged >= wanted, patience), "the writers make no progress"

    def compare(self, server: Server) -> None:
        """Assert that each group of keys is, as one, in a state that it may be in, and take note of which one."""
        with server.grpc() as client:
            for keys, possible in self._possible.items():
                found = dict(client.call("MGet", keys=keys).key_values)
                states = {found.get(key) for key in keys}
                assert len(states) == 1, f"half-done: {keys} hold {states}"
                assert states <= possible, f"{keys} hold {states}, but were told {possible}"
                self._possible[keys] = states

    def __len__(self) -> int:
        """Writes acknowledged so far."""
        return self._acknowledged


class Writer(threading.Thread):
    """One client of one interface: sets, deletes, and sets and deletes in batches, until a call fails."""

    def __init__(self, ledger: Ledger, name: str, write: Write, close: Callable[[], None]) -> None:
        super().__init__(name=name, daemon=True)
        self._ledger = ledger
        self._write = write
        self._close = close
        #: What ended it.
        self.failure: Exception | None = None

    def run(self) -> None:
        """Write until a call fails."""
        try:
            for keys, state in self._work():
                self._ledger.write(keys, state, self._write)
        except Exception as error:
            self.failure = error
        finally:
            self._close()

    def _work(self) -> Iterator[tuple[tuple[str, ...], State]]:
        number = len(self._ledger)
        while True:
            for group in range(_GROUPS):
                number += 1
                size = 1 if group % 2 else 5
                keys = tuple(f"{self.name}/{group}/{position}" for position in range(size))
                yield keys, (None if number % 7 == 0 else f"value {number}".ljust(LARGE if number % 5 == 0 else 0, "."))


def _over_http(server: Server) -> tuple[Write, Callable[[], None]]:
    client = server.http()

    def write(keys: Sequence[str], state: State) -> None:
        if len(keys) > 1 and state is None:
            answer = client.post("/api/v1/mdelete", {"keys": keys})
        elif len(keys) > 1:
            answer = client.post("/api/v1/mset", {"key_values": dict.fromkeys(keys, state), "ttl": _TTL})
        elif state is None:
            answer = client.call("DELETE", f"/api/v1/delete/{keys[0]}")
        else:
            answer = client.post("/api/v1/set", {"key": keys[0], "value": state})
        if answer.status == 503:
            raise Refused(answer.body)
        assert answer.status == 200, answer

    return write, client.close


def _over_grpc(server: Server) -> tuple[Write, Callable[[], None]]:
    client = server.grpc()

    def write(keys: Sequence[str], state: State) -> None:
        try:
            answer = call(keys, state)
        except grpc.RpcError as error:
            # grpcio's core says this of a call that came in but was not yet given to a thread when the server stopped.
            # It must not have been carried out, to which the book holds it.
            if error.code() is grpc.StatusCode.CANCELLED:
                raise Refused(error) from error
            raise
        assert answer.success, answer.error

    def call(keys: Sequence[str], state: State) -> Any:
        if len(keys) > 1 and state is None:
            return client.call("MDelete", keys=keys)
        if len(keys) > 1:
            return client.call("MSet", key_values=dict.fromkeys(keys, state))
        if state is None:
            return client.call("Delete", key=keys[0])
        return client.call("Set", key=keys[0], value=state, ttl=_TTL)

    return write, client.channel.close


def start_writers(server: Server, ledger: Ledger, each: int = 2) -> list[Writer]:
    """Start that many writers on each interface."""
    writers = []
    for number in range(each):
        writers.append(Writer(ledger, f"http-{number}", *_over_http(server)))
        writers.append(Writer(ledger, f"grpc-{number}", *_over_grpc(server)))
    for writer in writers:
        writer.start()
    return writers
