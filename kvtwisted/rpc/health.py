"""The standard health service, grpc.health.v1: Check asks the storage, Watch follows the server's known conditions."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Callable

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from twisted.logger import Logger

from ..core.health import Health
from ..observability.health_checks import Fault
from ..sessions.buckets import network_of
from ..sessions.slots import Slots
from .errors import CallError, Code, stopping
from .messages import parse
from .methods import SERVICES
from .watchdog import Watchdog

SERVICE = "grpc.health.v1.Health"

#: The services whose health is known: the server as a whole, and each name of its service. They are unhealthy together.
KNOWN = ("", *SERVICES)

#: Seconds that one client may take to accept one status before its stream is cancelled.
SEND_SECONDS = 5.0

SERVING = HealthCheckResponse.SERVING
NOT_SERVING = HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = HealthCheckResponse.SERVICE_UNKNOWN

_log = Logger(namespace="kvtwisted.rpc")


def check_service(message: bytes) -> None:
    """Raise CallError, NOT_FOUND, unless this request of Check asks for a service that is KNOWN."""
    if parse(HealthCheckRequest, message).service not in KNOWN:
        raise CallError(Code.NOT_FOUND, "service: unknown; ask for the empty name, or " + " or ".join(SERVICES))


def checked(reason: str | None) -> bytes:
    """The answer to Check; `reason` None is healthy. Raises CallError, INTERNAL, when the check itself broke."""
    if isinstance(reason, Fault):
        raise CallError(Code.INTERNAL, reason)
    return encoded(SERVING if reason is None else NOT_SERVING)


def encoded(status: int) -> bytes:
    """The response message with this status."""
    return HealthCheckResponse(status=status).SerializeToString()


@dataclass(eq=False)
class _Watch:
    """One open Watch stream. `send` blocks until the connection has taken the message; None ends the stream."""

    known: bool
    network: str
    stream: grpc.ServicerContext
    send: Callable[[bytes | None], None]
    sent: int | None = None


class Watches:
    """All open Watch streams, served by one thread, so that an open stream costs no thread.

    A client that does not read holds the others up for SEND_SECONDS at most, and never the thread that changed the
    health.
    """

    def __init__(self, health: Health, watchdog: Watchdog, slots: Slots) -> None:
        self._health = health
        self._watchdog = watchdog
        self._slots = slots
        self._lock = threading.Lock()
        self._watches: set[_Watch] = set()
        self._status: int = NOT_SERVING
        self._stopping = False
        self._changed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="grpc-health-watch", daemon=True)

    def start(self) -> None:
        """Begin to follow the health."""
        self._health.on_change(self._follow)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Tell all watchers NOT_SERVING and end their streams; those left over after `seconds` are cancelled."""
        self._stopping = True
        self._changed.set()
        self._thread.join(seconds)
        if self._thread.is_alive():
            for watch in self._open():
                watch.stream.cancel()

    def add(
        self, message: bytes, address: str, stream: grpc.ServicerContext, send: Callable[[bytes | None], None]
    ) -> None:
        """Serve one stream, whose client has this address, until that ends it. Returns at once.

        Raises CallError: RESOURCE_EXHAUSTED when there is no slot, UNAVAILABLE while the server stops.
        """
        watch = _Watch(parse(HealthCheckRequest, message).service in KNOWN, network_of(address), stream, send)
        with self._lock:
            if self._stopping:
                raise stopping()
            self._slots.enter(watch.network)
            self._watches.add(watch)
        if stream.add_callback(lambda: self._forget(watch)):
            self._changed.set()
        else:
            self._forget(watch)

    def _forget(self, watch: _Watch) -> None:
        with self._lock:
            if watch in self._watches:
                self._watches.discard(watch)
                self._slots.leave(watch.network)

    def _open(self) -> tuple[_Watch, ...]:
        with self._lock:
            return tuple(self._watches)

    def _follow(self, reason: str | None) -> None:
        # Called under the health's own lock, by whoever changed it: must not wait for any client.
        self._status = SERVING if reason is None else NOT_SERVING
        self._changed.set()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            self._changed.wait()
            self._changed.clear()
            stopping = self._stopping
            status = NOT_SERVING if stopping else self._status
            for watch in self._open():
                self._tell(watch, status if watch.known else SERVICE_UNKNOWN, last=stopping)

    def _tell(self, watch: _Watch, status: int, *, last: bool) -> None:
        if watch.sent == status and not last:
            return
        try:
            with self._watchdog.limit(time.monotonic() + SEND_SECONDS, watch.stream.cancel):
                if watch.sent != status:
                    watch.send(encoded(status))
                    watch.sent = status
                if last:
                    watch.stream.set_code(grpc.StatusCode.UNAVAILABLE)
                    watch.stream.set_details("the server is stopping")
                    watch.send(None)
        except Exception:
            # The thread must go on for the other streams.
            _log.failure("a health status could not be sent")
            self._forget(watch)
            watch.stream.cancel()
