"""Somebody who means no harm, on a server that is under attack."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

from kvtwisted.rpc.http2.server import NativeGrpcServer

from ..support import PATIENCE, World


class Skew:
    """The time, and what a test has added to it. Nobody's call is under way while it jumps."""

    def __init__(self) -> None:
        self.offset = 0.0
        #: While set, it is this time.
        self.stopped: float | None = None
        self.lock = threading.Lock()

    def __call__(self) -> float:
        """Seconds."""
        return time.monotonic() + self.offset if self.stopped is None else self.stopped

    def jump(self, seconds: float) -> None:
        """So many seconds pass at once."""
        with self.lock:
            self.offset += seconds

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """Within the block no time passes."""
        self.stopped = self()
        try:
            yield
        finally:
            self.stopped = None


class Attacked:
    """A native server whose time can be moved, with a good client, and what must be there again after an attack."""

    def __init__(self, world: World, clock: Skew) -> None:
        self.world = world
        self.clock = clock
        self.native: NativeGrpcServer = world.server.native  # type: ignore[union-attr]
        self.address = world.address

    @contextmanager
    def unharmed(self) -> Iterator[None]:
        """Within the block a good client makes one call after the other; all succeed, and nothing stays behind."""
        over = threading.Event()
        calls: list[int] = []
        failures: list[BaseException] = []

        def go_on() -> None:
            while not over.is_set() and not failures:
                try:
                    self.good_calls(len(calls))
                    calls.append(1)
                except BaseException as failure:
                    failures.append(failure)
                over.wait(0.005)

        good = threading.Thread(target=go_on, name="good-client")
        good.start()
        try:
            yield
            made = len(calls)
            eventually(lambda: len(calls) > made + 1 or failures)
        finally:
            over.set()
            good.join()
        assert not failures, failures
        self.good_calls(len(calls))
        self.restored()

    def good_calls(self, number: int) -> None:
        """A Set and a Get, and sometimes a Set that takes more than a stream's first window."""
        value = f"{number}" * (20_000 if number % 8 == 0 else 1)
        with self.clock.lock:
            assert self.world.client.call("Set", key="good", value=value, ttl=0).success
            assert self.world.client.call("Get", key="good").value == value

    def restored(self) -> None:
        """Nothing but the good client's connection is there any more."""
        native = self.native
        eventually(lambda: native.connections <= 1)
        eventually(lambda: native.calls == 0)
        eventually(lambda: (native.budget.used, native.budget.waiting, native.backlog.bytes) == (0, 0, 0))


def eventually(check: Callable[[], Any]) -> Any:
    """The first true answer of `check`, which is asked again and again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        answer = check()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r}"
        time.sleep(0.005)
