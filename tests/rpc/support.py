"""A gRPC server over an engine in memory, with everything around it within a test's reach, and clients for it."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from time import monotonic, sleep
from typing import Any, Callable

import grpc
from google.protobuf.message import Message
from twisted.logger import LogEvent, globalLogPublisher
from twisted.python.threadpool import ThreadPool

from kvtwisted.backends.server import ServerCommands
from kvtwisted.commands.command import Command
from kvtwisted.config.settings import GrpcSettings, LimitSettings, Settings
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.rpc.calls import Terms
from kvtwisted.rpc.generated import keyvalue_pb2
from kvtwisted.rpc.grpcio.server import ThreadedGrpcServer
from kvtwisted.rpc.http2.server import NativeGrpcServer
from kvtwisted.rpc.messages import message_limit
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.certificates import CertificateFiles
from kvtwisted.sessions.connections import Connections
from kvtwisted.sessions.door import Door
from kvtwisted.sessions.gate import Gate
from kvtwisted.tls.renewal import Certificates
from tests.support.backends import make_backend
from tests.support.configuration import FakeConfiguration
from tests.support.reactors import background_reactor, on
from tests.support.recorders import CountingRecorder

#: Seconds after which something that should have happened has not.
PATIENCE = 30.0

MIB = 1 << 20

_SERVICE = keyvalue_pb2.DESCRIPTOR.services_by_name["KeyValueService"]

#: Request and response class of each method.
CLASSES: dict[str, tuple[type[Message], type[Message]]] = {
    method.name: (getattr(keyvalue_pb2, method.input_type.name), getattr(keyvalue_pb2, method.output_type.name))
    for method in _SERVICE.methods
}
#: Those that are not unary.
STREAMS = {method.name for method in _SERVICE.methods if method.client_streaming or method.server_streaming}


class Client:
    """Calls the methods of one name of the service by their own names. For any thread."""

    def __init__(self, channel: grpc.Channel, service: str = "kv.v1.KeyValueService") -> None:
        self.channel = channel
        self._service = service

    def call(self, method: str, *, timeout: float = PATIENCE, compression: Any = None, **fields: Any) -> Any:
        """The response to a request with these fields."""
        return self.start(method, timeout=timeout, compression=compression, **fields).result()

    def scan(self, method: str, **fields: Any) -> Any:
        """What `call` gives, but for the revision of the snapshot, which is told beside."""
        answer = self.call(method, **fields)
        assert answer.error or answer.revision > 0
        answer.ClearField("revision")
        return answer

    def start(self, method: str, *, timeout: float = PATIENCE, compression: Any = None, **fields: Any) -> Any:
        """The same as a future."""
        request, response = CLASSES[method]
        stub = self.channel.unary_unary(
            self._path(method),
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return stub.future(request(**fields), timeout=timeout, compression=compression)

    def call_raw(self, method: str, message: bytes) -> bytes:
        """The encoded response to an encoded request."""
        answer: bytes = self.channel.unary_unary(self._path(method))(message, timeout=PATIENCE)
        return answer

    def error(self, method: str, **fields: Any) -> grpc.RpcError:
        """The error that the call fails with; it has `code()` and `details()`."""
        failure = self.start(method, **fields).exception()
        assert failure is not None, "the call succeeded"
        return failure

    def error_raw(self, method: str, message: bytes) -> grpc.RpcError:
        """The same for an encoded request."""
        failure = self.channel.unary_unary(self._path(method)).future(message, timeout=PATIENCE).exception()
        assert failure is not None, "the call succeeded"
        return failure

    def _path(self, method: str) -> str:
        return f"/{self._service}/{method}"


class Hold:
    """Stops a thread at a point until `release`."""

    def __init__(self) -> None:
        self._reached = threading.Event()
        self._released = threading.Event()

    def __call__(self) -> None:
        """Wait here."""
        self._reached.set()
        assert self._released.wait(PATIENCE), "nobody released the held call"

    def reached(self) -> None:
        """Return when a thread waits here."""
        assert self._reached.wait(PATIENCE), "no call came"

    def release(self) -> None:
        """Let it go on."""
        self._released.set()


class NativeServer:
    """The native server with the methods of the threaded one."""

    def __init__(self, reactor: Any, *arguments: Any, **limits: Any) -> None:
        self.reactor = reactor
        self.native = NativeGrpcServer(reactor, *arguments, **limits)

    def start(self) -> int:
        """Listen, and return the port."""
        port: int = on(self.reactor, self.native.start)
        return port

    def stop(self, grace: float) -> None:
        """Stop; blocks."""
        on(self.reactor, self.native.stop, grace)


class World:
    """A server and all that it is made of."""

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        threads: int = 4,
        max_in_flight: int = 64,
        max_request_bytes: int = 2 * MIB,
        max_bytes_in_flight: float = math.inf,
        max_unfinished_bytes: int | None = None,
        max_pipelines: int = 100,
        max_watches: int = 1000,
        transport: str = "threaded",
        certificate: str = "",
        private_key: str = "",
        client_ca: str = "",
        connections: Connections | None = None,
        make_gate: Callable[[Door, Admission], Gate] = Gate,
        reactor: Any = None,
    ) -> None:
        """`reactor` runs in a thread, at the latest when the server starts; None is one that does already."""
        self.reactor = reactor or background_reactor()
        self.health = Health()
        self.recorder = CountingRecorder()
        self.configuration = FakeConfiguration({"eviction": {"batch_size": 100}, "http": {}}, restart=("http",))
        self.admission = Admission(max_in_flight, max_bytes_in_flight)
        limits_of_store = Limits(max_request_bytes=max_request_bytes)
        #: Threads of requests.
        self.pool = ThreadPool(0, threads, name="requests")
        fair = FairPool(self.reactor, self.pool)
        self.storage, self.backend = make_backend(self.reactor, self.pool, self.health, limits=limits_of_store)
        self.store, self.engine, self.time = self.storage.store, self.storage.engine, self.storage.time
        self.engine.slow = transport == "native, by the pool"
        commands = ServerCommands(self.reactor, fair, self.configuration, self.recorder.config_update)
        self.door = Door(self.reactor, self.backend, commands, self.recorder, limits_of_store, self.health)
        self._holds: list[Hold] = []
        self._health_pool = ThreadPool(0, 1, name="health")
        #: None without TLS.
        self.certificates = (
            Certificates(CertificateFiles("grpc", certificate, private_key, client_ca), b"h2") if certificate else None
        )
        if max_unfinished_bytes is None:
            # Half of it is promised: to eight of the largest messages.
            max_unfinished_bytes = 16 * message_limit(max_request_bytes)
        of_limits = LimitSettings(
            max_in_flight=max_in_flight, max_unfinished_bytes=max_unfinished_bytes,
            max_pipelines=max_pipelines, max_watches=max_watches,
        )  # fmt: skip
        settings = Settings(grpc=GrpcSettings(host=host, port=port, threads=threads), limits=of_limits)
        #: What all calls go by; may be changed at any time.
        self.terms = Terms(message_limit(max_request_bytes), 4 * MIB, PATIENCE, limits_of_store.max_batch_keys)
        limits: Any = {
            "certificates": self.certificates,
            "terms": self.terms,
            "checks": HealthChecks(self.reactor, self._health_pool, self.door.health),
        }
        gate = self.gate = make_gate(self.door, self.admission)
        self.server: ThreadedGrpcServer | NativeServer
        if transport == "threaded":
            self.server = ThreadedGrpcServer(self.reactor, gate, self.health, settings, **limits)
        else:
            limits["connections"] = connections
            self.server = NativeServer(self.reactor, gate, self.door, fair, self.health, settings, **limits)
        self.slots = getattr(self.server, "native", self.server).slots
        self.host = f"[{host}]" if ":" in host else host

    def start(self) -> None:
        """Start the server and connect to it."""
        self._health_pool.start()
        self.pool.start()
        self.address = f"{self.host}:{self.server.start()}"
        self.channel = self.connect()
        self.client = Client(self.channel)

    def stop(self) -> None:
        """Let everything go and stop."""
        for hold in self._holds:
            hold.release()
        self.channel.close()
        self.server.stop(PATIENCE)
        for pool in (self.pool, self._health_pool):
            if pool.started:
                pool.stop()

    def connect(self, *options: tuple[str, Any]) -> grpc.Channel:
        """Another channel, with connections of its own."""
        own = ("grpc.use_local_subchannel_pool", 1)
        return grpc.insecure_channel(self.address, options=[own, ("grpc.enable_http_proxy", 0), *options])

    def hold(self, method: str) -> Hold:
        """Stop the next call that reaches this method of the engine."""
        self.engine.slow = True
        hold = Hold()
        self._holds.append(hold)
        self.engine.before(method, hold)
        return hold

    def fail(self, method: str, error: Any, times: float = float("inf")) -> None:
        """Let the next `times` calls of this method of the engine fail."""
        self.engine.slow = True
        self.engine.fail(method, error, times)

    def fill(self, keys: Iterable[str], value: str) -> None:
        """Store the same value at many keys, without the transport."""
        for key in keys:
            self.store.set(key.encode(), value.encode())

    def stored(self) -> dict[str, str]:
        """All keys and values, straight from the engine."""
        return {key.decode(): value.decode() for key, value in self.storage.data().items()}


def described(command: Command) -> tuple[object, ...]:
    """What a command asks for; two of them are equal if they ask for the same."""
    names = {name for cls in type(command).__mro__ for name in getattr(cls, "__slots__", ()) if name != "error"}
    values = {name: getattr(command, name, None) for name in names}
    return type(command), {name: str(value) if name == "_reason" else value for name, value in values.items()}


@contextmanager
def logged() -> Iterator[list[LogEvent]]:
    """What is logged within the block."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events.append)


def wait_until(condition: Callable[[], bool]) -> None:
    """Return when it holds: a client may hear of a stream's end before the server has done with it."""
    until = monotonic() + PATIENCE
    while not condition():
        assert monotonic() < until, "it never did"
        sleep(0.001)
