"""What is written by hand beside the library it replaces: `python -m bench.libraries` prints the figures.

docs/performance.md has them, and says why each part is there.

Each row does the same work both ways, in one process and thread, on the bytes that a client sends. A figure is the
fastest of ROUNDS rounds, in which both take turns: whatever else the machine does can only add to it. What is not
installed is left out: h2, httptools and msgspec are no dependencies of the server.
"""

from __future__ import annotations

import json
import os
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Callable, NamedTuple

from hpack import Decoder, Encoder
from prometheus_client import CollectorRegistry, Counter, Histogram
from twisted.internet.address import IPv4Address
from twisted.internet.testing import StringTransport

from kvtwisted.backends.local.backend import LocalBackend
from kvtwisted.backends.local.cache import HotCache
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.backends.local.recovery import Recovery
from kvtwisted.backends.local.store import Store
from kvtwisted.backends.local.writer import Writer
from kvtwisted.commands.command import GET
from kvtwisted.commands.get import Get
from kvtwisted.config.settings import GrpcSettings, Settings
from kvtwisted.core import strict_json
from kvtwisted.core.clock import Clock
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.core.options import MIB, EngineOptions
from kvtwisted.http import bodies, fast_requests
from kvtwisted.http.fast_requests import RequestReader
from kvtwisted.observability.health_checks import HealthChecks
from kvtwisted.observability.metrics import BUCKETS, Metrics
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.rpc.answers import encoded_pairs
from kvtwisted.rpc.calls import Terms
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2.header_blocks import HeaderBlocks
from kvtwisted.rpc.http2.hpack_decoder import HpackDecoder
from kvtwisted.rpc.http2.server import NativeGrpcServer
from kvtwisted.rpc.quick_messages import read_set
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.door import FOLD, Door
from kvtwisted.sessions.gate import Gate

from .calls import Turns

ROUNDS = 15
#: Calls that arrive in one chunk, and chunks of a round.
CALLS, CHUNKS = 16, 100

_HEADERS = (
    (":method", "POST"), (":scheme", "http"), (":path", "/kv.v1.KeyValueService/Get"),
    (":authority", "127.0.0.1:50051"), ("te", "trailers"), ("content-type", "application/grpc"),
    ("user-agent", "grpc-python/1.80.0 grpc-c/53.0.0 (linux)"),
    ("grpc-accept-encoding", "identity, deflate, gzip"), ("accept-encoding", "identity"),
)  # fmt: skip
_REQUEST = (
    b"POST /api/v1/set HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nUser-Agent: bench/1\r\nAccept: */*\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
)
_BODY = b'{"key": "user/12345", "value": "%b"}' % (b"x" * 100)


class Row(NamedTuple):
    """One comparison: what is done, and how many times in a round; ours, and the library."""

    what: str
    times: int
    ours: Callable[[], object]
    library: str
    theirs: Callable[[], object]


def measure(row: Row) -> tuple[float, float]:
    """Microseconds of one time, ours and theirs."""
    figures: tuple[list[float], list[float]] = ([], [])
    for number in range(ROUNDS):
        for which, run in ((0, row.ours), (1, row.theirs))[:: -1 if number % 2 else 1]:
            began = time.perf_counter()
            run()
            figures[which].append((time.perf_counter() - began) / row.times * 1e6)
    return min(figures[0]), min(figures[1])


def repeated(times: int, call: Callable[[], object]) -> Callable[[], None]:
    """A round of so many calls."""

    def run() -> None:
        for _ in range(times):
            call()

    return run


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """An HTTP/2 frame."""
    return struct.pack(">IBI", len(payload) << 8 | kind, flags, stream) + payload


def chunks() -> list[bytes]:
    """What a client sends for CHUNKS chunks of Gets, after its preface; each stream is a call."""
    encoder, stream = Encoder(), 1
    message = kv.GetRequest(key="k").SerializeToString()
    made = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        + frame(4, 0, 0, b"")
        + frame(8, 0, 0, struct.pack(">I", (1 << 31) - 65_536))
    ]
    for _ in range(CHUNKS):
        chunk = b""
        for _ in range(CALLS):
            chunk += frame(1, 4, stream, encoder.encode(_HEADERS))
            chunk += frame(0, 1, stream, b"\0" + struct.pack(">I", len(message)) + message)
            stream += 2
        made.append(chunk)
    return made


def native_server() -> NativeGrpcServer:
    """Our server over an engine in memory, with one key that is hot."""
    turns: Any = Turns()
    engine = open_engine("memory", "", EngineOptions())
    store = Store(engine, Writer(engine, HotCache(MIB)), Clock())
    engine.write([(DATA, b"k", b"v" * 100)])
    for _ in range(3):
        store.read(Get(b"k"))
    pool, health, metrics = FairPool(turns, turns), Health(), Metrics(CollectorRegistry())
    backend = LocalBackend(turns, pool, store, Recovery(store.metadata, health))
    door = Door(turns, backend, None, metrics, Limits(), health)  # type: ignore[arg-type]
    return NativeGrpcServer(
        turns, Gate(door, Admission(1024)), door, pool, health, Settings(grpc=GrpcSettings(port=0)),
        checks=HealthChecks(turns, turns, door.health), terms=Terms(16 * MIB, 4 * MIB, 30.0, 10_000),
    )  # fmt: skip


def http2() -> Row:
    """A hot Get, from its frames to those of its answer; h2 answers without asking anything what."""
    sent, server = chunks(), native_server()
    server._port = True  # it takes connections
    answer = kv.GetResponse(value="v" * 100, found=True).SerializeToString()
    answer = b"\0" + struct.pack(">I", len(answer)) + answer

    def ours() -> None:
        connection: Any = server.buildProtocol(IPv4Address("TCP", "127.0.0.1", 1))
        transport: Any = StringTransport()
        transport.setTcpNoDelay = lambda on: None
        connection.makeConnection(transport)
        for chunk in sent:
            connection.dataReceived(chunk)
        if transport.value().count(b"v" * 100) != CALLS * CHUNKS:
            raise RuntimeError("not every call was answered")
        connection.connectionLost(None)

    def theirs() -> None:
        from h2.config import H2Configuration
        from h2.connection import H2Connection
        from h2.events import DataReceived, StreamEnded

        connection = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        connection.initiate_connection()
        size = 0
        for chunk in sent:
            for event in connection.receive_data(chunk):
                if isinstance(event, DataReceived):
                    connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    stream = event.stream_id
                    connection.send_headers(stream, [(":status", "200"), ("content-type", "application/grpc")])
                    connection.send_data(stream, answer)
                    connection.send_headers(stream, [("grpc-status", "0")], end_stream=True)
            size += connection.data_to_send().count(b"v" * 100)
        if size != CALLS * CHUNKS:
            raise RuntimeError("not every call was answered")

    return Row("a gRPC Get, 16 in a chunk: frames in, frames out", CALLS * CHUNKS, ours, "h2", theirs)


def header_block() -> Row:
    """The block of a call that the connection has sent before."""
    encoder = Encoder()
    first, block = (encoder.encode(_HEADERS) for _ in range(2))
    blocks: HeaderBlocks[object] = HeaderBlocks(tuple)
    decoder = Decoder()
    for each in (first, block, block):
        blocks.meaning(each)
        decoder.decode(each, raw=True)
    ours, theirs = (
        repeated(2000, lambda: blocks.meaning(block)),
        repeated(2000, lambda: decoder.decode(block, raw=True)),
    )
    return Row("the header block of a call, seen before", 2000, ours, "hpack", theirs)


def huffman(strings: int) -> Row:
    """A hostile block: 30 KB of Huffman strings."""
    size = 48_000 // strings
    block = b"".join(Encoder().encode([(f"x-{number}", "a" * size)], huffman=True) for number in range(strings))
    ours = repeated(5, lambda: HpackDecoder(1 << 20).decode(block))
    theirs = repeated(5, lambda: Decoder(1 << 20).decode(block, raw=True))
    return Row(f"a header block of {len(block):,} bytes, Huffman strings: {strings}", 5, ours, "hpack", theirs)


def set_message() -> Row:
    """A SetRequest with a value of 100 bytes: key and value as bytes."""
    message = kv.SetRequest(key="user/12345", value="x" * 100).SerializeToString()

    def theirs() -> tuple[bytes, bytes, int]:
        request = kv.SetRequest.FromString(message)
        return request.key.encode(), request.value.encode(), request.ttl

    return Row(
        "the message of a Set", 2000, repeated(2000, lambda: read_set(message)), "protobuf", repeated(2000, theirs)
    )


def batch_answer() -> Row:
    """The answer of an MGet of 100 keys, with values of 100 bytes."""
    found = {b"user/%05d" % number: b"x" * 100 for number in range(100)}

    def theirs() -> bytes:
        pairs = {key.decode(): value.decode() for key, value in found.items()}
        return kv.MGetResponse(key_values=pairs).SerializeToString()

    ours = repeated(200, lambda: encoded_pairs(found.items())[0])
    return Row("the answer of an MGet of 100", 200, ours, "protobuf", repeated(200, theirs))


def request() -> Row:
    """A request's head and body taken apart; the library's callbacks keep what a server needs."""
    import httptools

    data = _REQUEST % (len(_BODY), _BODY)
    reader = RequestReader(65_536)

    class Kept:
        def __init__(self) -> None:
            self.headers: list[tuple[bytes, bytes]] = []
            self.url = self.body = b""

        def on_url(self, url: bytes) -> None:
            self.url = url

        def on_header(self, name: bytes, value: bytes) -> None:
            self.headers.append((name, value))

        def on_body(self, body: bytes) -> None:
            self.body = body

    if reader.read(data, 0) is None:
        raise RuntimeError("the request is not plain")
    theirs = repeated(2000, lambda: httptools.HttpRequestParser(Kept()).feed_data(data))
    ours = repeated(2000, lambda: reader.read(data, 0))
    return Row("an HTTP/1.1 request: where it ends, and what its headers say", 2000, ours, "httptools", theirs)


def body_json() -> Row:
    """The body of a set, as the fast lane reads it."""
    ours, theirs = repeated(2000, lambda: fast_requests.set_arguments(_BODY)), repeated(2000, lambda: json.loads(_BODY))
    return Row("the JSON body of a set, plain", 2000, ours, "json", theirs)


def body_strict() -> Row:
    """The same by the parser that is used where a body is not plain."""
    ours, theirs = repeated(2000, lambda: bodies.set_arguments(_BODY)), repeated(2000, lambda: json.loads(_BODY))
    return Row("the same, by the strict parser, fields checked", 2000, ours, "json", theirs)


def body_msgspec() -> Row:
    """The same beside a typed decoder, which lets duplicate names through."""
    import msgspec

    kind = msgspec.defstruct("Set", [("key", str), ("value", str), ("ttl", int, 0)])
    decode = msgspec.json.Decoder(kind).decode
    if decode(b'{"key":"a","value":"1","value":"2"}').value != "2":  # type: ignore[attr-defined]
        raise RuntimeError("msgspec refuses duplicate names now: the page says that it does not")
    ours, theirs = repeated(2000, lambda: fast_requests.set_arguments(_BODY)), repeated(2000, lambda: decode(_BODY))
    return Row("the same beside a typed decoder", 2000, ours, "msgspec", theirs)


def config_json() -> Row:
    """A document of the configuration, strictly."""
    text = json.dumps({f"section{number}": {f"key{key}": key for key in range(10)} for number in range(10)}).encode()
    ours, theirs = repeated(200, lambda: strict_json.loads(text)), repeated(200, lambda: json.loads(text))
    return Row("a JSON document of 100 members, strictly", 200, ours, "json", theirs)


def counted() -> Row:
    """A Get counted and timed."""
    metrics, registry = Metrics(CollectorRegistry()), CollectorRegistry()
    durations = metrics.durations(GET)
    counter = Counter("c", "c", registry=registry)
    histogram = Histogram("h", "h", buckets=BUCKETS, registry=registry)

    def ours() -> None:
        for _ in range(10 * FOLD):
            durations.append(0.0001)
            if len(durations) >= FOLD:
                metrics.fold()

    def theirs() -> None:
        for _ in range(10 * FOLD):
            counter.inc()
            histogram.observe(0.0001)

    return Row("an operation counted and timed", 10 * FOLD, ours, "prometheus-client", theirs)


def group(folder: str) -> tuple[Row, Row]:
    """64 Sets of one turn in one batch, and each by itself; then with an fsync."""
    engine = open_engine("auto", os.path.join(folder, "group"), EngineOptions())
    keys, value = [b"key%d" % number for number in range(64)], b"x" * 100
    batch: Any = [("default", key, value) for key in keys]

    def together() -> None:
        engine.write(batch)

    def each() -> None:
        for key in keys:
            engine.put(key, value)

    def together_synced() -> None:
        engine.write(batch)
        engine.sync()

    def each_synced() -> None:
        for key in keys:
            engine.put(key, value)
            engine.sync()

    return (
        Row("a Set of 64 in a turn: one batch", 64 * 20, repeated(20, together), "a write each", repeated(20, each)),
        Row(
            "the same, on the disk before it is answered", 64, together_synced, "a write and an fsync each", each_synced
        ),
    )


def main(arguments: Sequence[str]) -> None:
    """Print the table. The argument is a folder on the disk whose fsyncs are measured; else that of temporary files."""
    print("| what | unit | ours | library | its figure | ratio |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(dir=arguments[0] if arguments else None) as folder:
        rows: list[Row] = []
        for make in (
            http2, header_block, lambda: huffman(1), lambda: huffman(50), set_message, batch_answer, request,
            body_json, body_msgspec, body_strict, config_json, counted,
        ):  # fmt: skip
            try:
                rows.append(make())
            except ImportError as error:
                print(f"left out: {error}", file=sys.stderr)
        for row in (*rows, *group(folder)):
            ours, theirs = measure(row)
            try:
                library = f"{row.library} {version(row.library)}"
            except PackageNotFoundError:
                library = row.library
            print(f"| {row.what} | us | {ours:.2f} | {library} | {theirs:.2f} | {theirs / ours:.1f} |")


if __name__ == "__main__":
    main(sys.argv[1:])
