"""The gRPC server on grpcio's own threads. Its methods block; its calls need the reactor to turn, in another thread."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, cast

import grpc
from twisted.logger import Logger

from ...core.errors import Unavailable
from ...core.health import Health
from ...observability.health_checks import HealthChecks
from ...sessions.certificates import Identity
from ...sessions.gate import Gate
from ...sessions.threads import FromThreads
from ...tls.renewal import Certificates
from ..calls import Terms
from ..health import Watches
from ..listening import FIRST_FREE_PORT, cannot_listen, check_address, joined
from ..messages import message_limit
from ..options import GrpcOptions
from ..stream_slots import StreamSlots, make_slots
from ..watchdog import Watchdog
from .access import Access
from .calls import ThreadedCalls
from .handlers import SIDE_THREADS, Handlers

#: Seconds that stopping may take beside the grace period: to tell the watchers, and for grpcio to notice.
_STOP_SECONDS = 2.0

_log = Logger(namespace="kvtwisted.rpc")


class ThreadedGrpcServer:
    """grpcio's server with all services of this one. Started and stopped once, from any thread.

    Construction makes nothing of grpcio's, which would not survive twistd's fork. `max_response_bytes` and
    `request_timeout` (seconds) are asked anew for each call.
    """

    def __init__(
        self,
        reactor: Any,
        gate: Gate,
        health: Health,
        options: GrpcOptions,
        *,
        checks: HealthChecks,
        max_response_bytes: Callable[[], int],
        request_timeout: Callable[[], float],
        max_batch_keys: Callable[[], int],
    ) -> None:
        self._checks = checks
        self._health = health
        self._options = options
        self._request_timeout = request_timeout
        #: Those of streams that stay open.
        self.slots = make_slots(options, options.threads)
        terms = Terms(message_limit(options.max_request_bytes), max_response_bytes, request_timeout, max_batch_keys)
        from_threads = FromThreads(reactor)
        self._access = Access(gate, lambda session: ThreadedCalls(session, terms, from_threads))
        self._running: _Running | None = None

    def start(self) -> int:
        """Listen, and return the port. Raises Unavailable, naming host and port, when that is not possible."""
        options = self._options
        try:
            check_address(options.host, options.port)
        except Unavailable as error:
            if not 0 < options.port < FIRST_FREE_PORT or os.geteuid() == 0:
                raise
            raise Unavailable(
                f"{error} (ports below {FIRST_FREE_PORT} are for root, and grpcio binds by itself, when root's rights "
                "are given up already: take grpc.transport = native, or another port)"
            ) from None
        self._running = _Running(
            self._access, self._request_timeout, self._checks, self._health, self._options, self.slots
        )
        return self._running.port

    def stop(self, grace: float) -> None:
        """Stop: watchers hear NOT_SERVING, nothing new is accepted, running calls have `grace` seconds to finish.

        Calls that do not are cancelled. Blocks until no thread of the server has a call any longer; not to be called on
        the reactor thread, which they wait for.
        """
        running, self._running = self._running, None
        if running is not None:
            running.stop(grace)


class _Running:
    """Everything that exists while the server runs."""

    def __init__(
        self,
        access: Access,
        request_timeout: Callable[[], float],
        checks: HealthChecks,
        health: Health,
        options: GrpcOptions,
        slots: StreamSlots,
    ) -> None:
        _redirect_logging()
        self._watchdog = Watchdog()
        self._watches = Watches(health, self._watchdog, slots.watch)
        self._threads = ThreadPoolExecutor(options.threads, "grpc")
        self._side_threads = ThreadPoolExecutor(SIDE_THREADS, "grpc-side")
        limit = message_limit(options.max_request_bytes)
        self._handlers = Handlers(
            access, request_timeout, checks, self._watches, self._watchdog, self._side_threads, limit, slots
        )
        self._server = grpc.server(
            self._threads,
            handlers=[self._handlers],
            options=channel_options(limit),
            # What comes on top is answered RESOURCE_EXHAUSTED instead of queueing without bound.
            maximum_concurrent_rpcs=options.max_in_flight,
        )
        address = joined(options.host, options.port)
        try:
            if options.certificates is not None:
                self.port = self._server.add_secure_port(address, server_credentials(options.certificates))
            else:
                self.port = self._server.add_insecure_port(address)
        except RuntimeError:
            raise cannot_listen(options.host, options.port, "grpcio could not bind to it") from None
        self._watchdog.start()
        self._watches.start()
        self._server.start()

    def stop(self, grace: float) -> None:
        self._watches.stop(_STOP_SECONDS)
        stopped = self._server.stop(grace)
        self._handlers.end_streams()
        stopped.wait(grace + _STOP_SECONDS)
        self._watchdog.stop()
        for threads in (self._threads, self._side_threads):
            threads.shutdown(wait=True, cancel_futures=True)


def channel_options(limit: int) -> list[tuple[str, int]]:
    """Channel options for grpcio; a message has at most `limit` bytes. The docs give the same figures."""
    return [
        # A taken port must be an error, not a second server that gets every other connection.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", limit),
        # Answers are bounded before they are made, by a limit that may change while the server runs.
        ("grpc.max_send_message_length", -1),
        # grpcio before 1.84 expands a compressed message whole before it looks at the limit. `messages` does it better.
        ("grpc.per_message_decompression", 0),
        # A connection that does not get as far as HTTP/2 settings is closed; grpcio would wait for two minutes.
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Peers that vanished without a word are found and their connections closed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may send pings this often, also without calls (grpcio's default of 5 minutes makes enemies of clients
        # with usual settings); those that ping more often are cut off.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
        # Connections without calls are given back; clients reconnect by themselves at their next call.
        ("grpc.max_connection_idle_ms", 600_000),
        # One connection cannot take everything.
        ("grpc.max_concurrent_streams", 1000),
    ]


def server_credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """What each handshake is to use; grpcio asks before every one, on a thread of its own."""
    given = certificates.identity

    def made(identity: Identity) -> grpc.ServerCertificateConfiguration:
        pairs = [(identity.private_key, identity.chain)]
        return grpc.ssl_server_certificate_configuration(pairs, identity.client_ca or None)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal given
        identity = certificates.identity
        if identity is given:
            return None
        given = identity
        return made(identity)

    # Its types do not say what its documentation does: None means that nothing has changed.
    fetch = cast("Callable[[], grpc.ServerCertificateConfiguration]", renewed)
    return grpc.dynamic_ssl_server_credentials(made(given), fetch, bool(given.client_ca))


class _ToTwisted(logging.Handler):
    """Carries what grpcio logs to Twisted's log, in one line each."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record`; without its traceback, since the errors of our own code are logged where they happen."""
        _log.warn("grpcio: {message}", message=record.getMessage())


def _redirect_logging() -> None:
    """Without a handler, Python would print what grpcio logs on stderr, tracebacks included."""
    logger = logging.getLogger("grpc")
    if not any(isinstance(handler, _ToTwisted) for handler in logger.handlers):
        logger.addHandler(_ToTwisted())
        logger.propagate = False
