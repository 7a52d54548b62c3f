"""Ends what takes too long while it waits for its peer and holds a thread."""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Callable

from twisted.logger import Logger

#: Seconds between two looks.
INTERVAL = 0.25

_log = Logger(namespace="kvtwisted.rpc")


class Watchdog:
    """Calls `cancel` for every block that runs past its limit. One thread of its own; `limit` may be used from any."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._watched: dict[object, tuple[float, Callable[[], object]]] = {}
        self._stop, self._stopped = -1, -1
        self._thread = threading.Thread(target=self._run, name="grpc-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to look, every INTERVAL seconds."""
        self._stopped, self._stop = os.pipe()
        self._thread.start()

    def stop(self) -> None:
        """Look no more. Returns when the thread has ended."""
        os.close(self._stop)
        self._thread.join()
        os.close(self._stopped)

    @contextmanager
    def limit(self, give_up_at: float, cancel: Callable[[], object]) -> Iterator[None]:
        """Call `cancel`, which must make the block end, on the watchdog's thread if it still runs at `give_up_at`."""
        token = object()
        self._watched[token] = give_up_at, cancel
        try:
            yield
        finally:
            self._watched.pop(token, None)

    def look(self) -> None:
        """Cancel what is past its limit."""
        now = self._monotonic()
        for token, (give_up_at, cancel) in self._watched.copy().items():
            if give_up_at <= now and self._watched.pop(token, None) is not None:
                try:
                    cancel()
                except Exception:
                    _log.failure("a call that took too long could not be cancelled")

    def _run(self) -> None:
        # Not an Event: Pythons before 3.11 wait for those by the wall clock, which may be set back.
        stopped = select.poll()
        stopped.register(self._stopped, 0)
        while not stopped.poll(INTERVAL * 1000):
            self.look()
