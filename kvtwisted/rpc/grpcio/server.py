"""The gRPC server on grpcio's own threads. Its methods block; its calls need the reactor to turn, in another thread."""

from __future__ import annotations

import logging
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, cast

import grpc
from twisted.logger import Logger

from ...config.settings import Settings
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
from ..stream_slots import make_slots
from ..watchdog import Watchdog
from .calls import ThreadedCalls
from .handlers import SIDE_THREADS, Handlers
from .streams import ThreadedStreams

#: Seconds that stopping may take beside the grace period: to tell the watchers, and for grpcio to notice.
_STOP_SECONDS = 2.0

_log = Logger(namespace="kvtwisted.rpc")


class ThreadedGrpcServer:
    """grpcio's server with all services of this one. Started and stopped once, from any thread.

    Construction makes nothing of grpcio's, which would not survive twistd's fork.
    """

    def __init__(
        self,
        reactor: Any,
        gate: Gate,
        health: Health,
        settings: Settings,
        *,
        certificates: Certificates | None = None,
        checks: HealthChecks,
        terms: Terms,
    ) -> None:
        self._reactor = reactor
        self._gate = gate
        self._checks = checks
        self._health = health
        self._settings = settings
        self._certificates = certificates
        self._calls = ThreadedCalls(terms, FromThreads(reactor))
        #: Those of streams that stay open.
        self.slots = make_slots(settings.limits, settings.grpc.threads)
        self._stop: Callable[[float], None] | None = None

    def start(self) -> int:
        """Listen, and return the port. Raises Unavailable, naming host and port, when that is not possible."""
        host, port = self._settings.grpc.host, self._settings.grpc.port
        try:
            check_address(host, port)
        except Unavailable as error:
            if not 0 < port < FIRST_FREE_PORT or os.geteuid() == 0:
                raise
            raise Unavailable(
                f"{error} (ports below {FIRST_FREE_PORT} are for root, and grpcio binds by itself, when root's rights "
                "are given up already: take grpc.transport = native, or another port)"
            ) from None
        return self._serve(host, port)

    def stop(self, grace: float) -> None:
        """Stop: watchers hear NOT_SERVING, nothing new is accepted, running calls have `grace` seconds to finish.

        Calls that do not are cancelled. Blocks until no thread of the server has a call any longer; not to be called on
        the reactor thread, which they wait for.
        """
        stop, self._stop = self._stop, None
        if stop is not None:
            stop(grace)

    def _serve(self, host: str, port: int) -> int:
        _redirect_logging()
        watchdog = Watchdog()
        watches = Watches(self._health, watchdog, self.slots.watch)
        threads = ThreadPoolExecutor(self._settings.grpc.threads, "grpc")
        side_threads = ThreadPoolExecutor(SIDE_THREADS, "grpc-side")
        streams = ThreadedStreams(self._reactor, self._calls.terms, self._settings.grpc.threads)
        handlers = Handlers(
            self._gate, self._calls, self._checks, watches, watchdog, side_threads, self.slots, streams
        )  # fmt: skip
        server = grpc.server(
            threads,
            handlers=[handlers],
            options=channel_options(self._calls.terms.message_limit),
            # What comes on top is answered RESOURCE_EXHAUSTED instead of queueing without bound.
            maximum_concurrent_rpcs=self._settings.limits.max_in_flight,
        )
        address = joined(host, port)
        try:
            if self._certificates is not None:
                port = server.add_secure_port(address, server_credentials(self._certificates))
            else:
                port = server.add_insecure_port(address)
        except RuntimeError:
            raise cannot_listen(host, port, "grpcio could not bind to it") from None
        watchdog.start()
        watches.start()
        server.start()

        def stop(grace: float) -> None:
            watches.stop(_STOP_SECONDS)
            stopped = server.stop(grace)
            handlers.end_streams()
            stopped.wait(grace + _STOP_SECONDS)
            watchdog.stop()
            for pool in (threads, side_threads, streams.threads):
                pool.shutdown(wait=True, cancel_futures=True)

        self._stop = stop
        return port


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
