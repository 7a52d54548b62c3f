"""Attacks on one running server with tokens; a client with a good one is served all the time, and nothing stays behind.

Slow heads, bodies and readers, and few descriptors, are in test_slow_clients.py; unfinished TLS handshakes in
test_tls.py; every flood of HTTP/2 frames in tests/rpc/http2/test_hostile.py.
"""

from __future__ import annotations

import gzip
import itertools
import resource
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame

from tests.rpc.http2.peer import PREFACE, Frame, Peer, enveloped, request_fields
from tests.rpc.support import CLASSES

from .clients import TIMEOUT, Grpc
from .harness import Launcher, connect, eventually
from .siege import FEW_BYTES, MIB, Siege, problem, received, together
from .test_authentication import ALL, Tokens

#: The smallest limits of a request there are, so that what is over them is quickly made.
LIMITS = ("--limits-max-request-bytes", str(8 * MIB), "--security-failed-logins", "20")
#: Idle connections that a test would like to have, and descriptors that it needs besides.
MANY, BESIDES = 5000, 400
SETTINGS = bytes(3) + b"\x04" + bytes(5)
SET = "/kv.v1.KeyValueService/Set"
ENHANCE_YOUR_CALM = 11


@pytest.fixture(scope="module")
def siege(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """The one process of this module."""
    launcher = Launcher(tmp_path_factory.mktemp("siege"))
    tokens = Tokens(launcher.folder / "server")
    token = tokens.create("good", ALL)
    limited = tokens.run("create", "limited", "--grant=set", "--rate-operations=100")
    try:
        server = launcher("--security-tokens", str(tokens.path), "--grpc-transport", "native", *LIMITS)
        siege = Siege(server, token, limited)
        # What is loaded or made at the first use is no attack's.
        with siege.attack():
            pass
        siege.first = siege.server.resident
        yield siege
    finally:
        launcher.end()


@pytest.mark.long
def test_idle_connections(siege: Siege, record_property: Any) -> None:
    """5,000, some with a first word, or three quarters of what this machine has descriptors for."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(MANY, (soft - BESIDES) * 3 // 4)
    record_property("idle connections", many)
    first = [
        (siege.server.http_address, b""),
        (siege.server.grpc_address, b""),
        (siege.server.http_address, siege.head("GET /api/v1/get/good")),
        (siege.server.grpc_address, PREFACE + SETTINGS),
    ]
    with siege.attack() as good, ExitStack() as stack:
        before = siege.server.descriptors
        for address, word in itertools.islice(itertools.cycle(first), many):
            connection = stack.enter_context(connect(address))
            if word:
                connection.sendall(word)
        # But for those that wait to be accepted or were accepted and cut off meanwhile, on a slow machine.
        eventually(lambda: siege.server.descriptors > before + many // 2)
        good.goes_on()
    assert siege.most < 128 * MIB


BODIES = {
    "deep": (b"[" * MIB, 400),
    "deep and closed": (b'{"key":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "many names": (b"{" + b",".join(b'"k%d":1' % number for number in range(100_000)) + b"}", 400),
    "one name many times": (b'{"key":"a",' + b'"key":"a",' * 100_000 + b'"value":"v"}', 400),
    "objects by the million": (b'[{"":0}' + b',{"":0}' * (MIB - 100) + b"]", 400),
    "a long number": (b'{"key":"a","value":"v","ttl":' + b"9" * MIB + b"}", 400),
    "escapes": (b'{"key":"a","value":"' + b"\\u0041" * 1_400_000 + b'"}', 413),
    "a large value": (b'{"key":"a","value":"' + b"v" * (8 * MIB) + b'"}', 413),
}


@pytest.mark.parametrize("kind", BODIES)
def test_json_that_is_too_much(siege: Siege, kind: str) -> None:
    """It is refused, from several clients at once."""
    body, status = BODIES[kind]

    def attack(_: int) -> list[int]:
        statuses = []
        for _ in range(3):
            with connect(siege.server.http_address) as connection:
                connection.sendall(siege.post(body))
                statuses.append(problem(received(connection))[0])
        return statuses

    with siege.attack():
        assert together(attack, 4) == [[status] * 3] * 4
    assert siege.most < 192 * MIB


def test_bodies_that_are_over_the_limit(siege: Siege) -> None:
    """Announced or not, the first byte too many ends it; nobody reads the rest."""
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    json_body = "Content-Type: application/json"
    announced = siege.head("POST /api/v1/set", json_body, f"Content-Length: {1 << 40}")
    chunked = siege.head("POST /api/v1/set", json_body, "Transfer-Encoding: chunked")

    def attack(number: int) -> tuple[int, str]:
        with connect(siege.server.http_address) as connection:
            try:
                connection.sendall(chunked if number % 2 else announced)
                for _ in range(400):
                    connection.sendall(chunk)
            except ConnectionError:
                pass
            return problem(received(connection))

    with siege.attack():
        # It gets to read why: the server reads on for a while, but keeps nothing of it.
        assert together(attack, 8) == [(413, "too_large")] * 8
    assert siege.most < 160 * MIB


@pytest.mark.long
def test_gzip_bombs(siege: Siege) -> None:
    """HTTP knows no compressed bodies; compressed messages of gRPC are not expanded beyond the limit."""
    small = gzip.compress(bytes(64 * MIB))
    assert len(small) < MIB
    value = gzip.compress(b'{"key":"bomb","value":"v"}')

    def over_http(body: bytes) -> tuple[int, str]:
        with connect(siege.server.http_address) as connection:
            connection.sendall(siege.post(body, "Content-Encoding: gzip"))
            return problem(received(connection))

    def over_grpc() -> list[Any]:
        """One after the other: of two at once the server may hold the limit of a message twice, and zlib as much."""
        codes = []
        for _ in range(6):
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            with Grpc(siege.server.grpc_address, siege.token, options) as client:
                call = client.channel.unary_unary(SET).future(
                    bytes(64 * MIB),
                    timeout=TIMEOUT,
                    compression=grpc.Compression.Gzip,
                    metadata=[("authorization", f"Bearer {siege.token}")],
                )
                codes.append(call.code())
        return codes

    with siege.attack():
        for body in (small, value):
            assert over_http(body) == (415, "unsupported_media_type")
        assert over_grpc() == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 6
    assert siege.most < 64 * MIB
    with siege.http() as http:
        assert http.get("/api/v1/get/bomb").status == 404


def test_failed_logins(siege: Siege) -> None:
    """Over both interfaces together an address may fail so often; a good token from it is served all the same."""
    wrong = "kv1_good_" + "A" * 43

    def over_http(_: int) -> list[int]:
        with siege.server.http(wrong) as http:
            answers = [http.get("/api/v1/get/good") for _ in range(100)]
        for answer in answers:
            if answer.status == 429:
                assert int(answer.headers["retry-after"]) > 0
        return [answer.status for answer in answers]

    def over_grpc(_: int) -> list[Any]:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        with Grpc(siege.server.grpc_address, wrong, options) as client:
            return [client.start("Get", key="good").code() for _ in range(100)]

    with siege.attack() as good:
        statuses = [status for some in together(over_http, 4) for status in some]
        codes = [code for some in together(over_grpc, 2) for code in some]
        good.goes_on()
    assert set(statuses) == {401, 429}
    # 20 at once, and one more every 3 seconds.
    assert 20 <= statuses.count(401) < 60
    assert set(codes) <= {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert codes.count(grpc.StatusCode.RESOURCE_EXHAUSTED) > 100


@pytest.mark.long
def test_rapid_reset_with_a_token(siege: Siege) -> None:
    """Calls that would be served, reset as soon as they are sent (CVE-2023-44487): the connection is ended.

    The token has a rate. Without one a few connections may have all the requests under way that there may be.
    """
    message = enveloped(CLASSES["Set"][0](key="reset", value="v").SerializeToString())

    def calls(peer: Peer) -> Iterator[Frame]:
        while True:
            stream = peer.next_stream()
            yield peer.headers(stream, request_fields(SET, ("authorization", f"Bearer {siege.limited}")))
            yield DataFrame(stream, message, flags=["END_STREAM"])
            yield RstStreamFrame(stream, error_code=8)

    def attack(_: int) -> list[int]:
        codes = []
        for _ in range(4):
            with Peer(siege.server.grpc_address) as peer:
                frames = calls(peer)
                try:
                    for _ in range(60):
                        peer.send(*itertools.islice(frames, 600))
                except ConnectionError:
                    pass
                # Returns when the server has ended the connection. Who goes on sending then may lose what it was told.
                codes += [frame.error_code for frame in peer.read_all() if isinstance(frame, GoAwayFrame)]
                assert peer.ended
        return codes

    with siege.attack():
        told = [code for codes in together(attack, 3) for code in codes]
    # All may have been lost to resets of TCP; that each connection was ended is what counts.
    assert set(told) <= {ENHANCE_YOUR_CALM}
    assert siege.most < 64 * MIB


def test_huge_headers(siege: Siege) -> None:
    """One of a megabyte, many of a few kilobytes, and as many as anybody likes: none is kept."""
    heads = [
        siege.head("GET /api/v1/get/good", "X: " + "x" * MIB),
        siege.head("GET /api/v1/get/good", *[f"X-{number}: " + "x" * 15_000 for number in range(400)]),
        siege.head("GET /api/v1/get/good", *[f"X-{number}: x" for number in range(50_000)]),
        siege.head("GET /api/v1/get/" + "k" * MIB),
    ]
    path, token = "/kv.v1.KeyValueService/Get", ("authorization", f"Bearer {siege.token}")

    def over_http(number: int) -> tuple[int, str]:
        with connect(siege.server.http_address) as connection:
            with suppress(ConnectionError):
                connection.sendall(heads[number % len(heads)])
            return problem(received(connection))

    def over_grpc(size: int) -> Any:
        with Peer(siege.server.grpc_address) as peer:
            stream = peer.start(path, b"\n\4good", token, ("x", "x" * size))
            return peer.answer(stream).status

    with siege.attack():
        assert set(together(over_http, 16)) == {(400, "malformed_request")}
        # Over SETTINGS_MAX_HEADER_LIST_SIZE: the call is refused, the connection goes on.
        assert {over_grpc(size) for size in [16_500] * 20} == {"8"}
    assert siege.most < 96 * MIB


def test_many_pipelined_requests(siege: Siege) -> None:
    """10,000 on a connection at once: all are answered, and others have their turns."""
    request = siege.head("GET /api/v1/get/good")

    def attack(_: int) -> int:
        with connect(siege.server.http_address) as connection:
            connection.sendall(request * 10)
            answers = 0
            unsent = 10_000 - 10
            data = b""
            while answers < 10_000:
                # Not so many at once that both sides wait for the other to read.
                now = min(unsent, 500)
                connection.sendall(request * now)
                unsent -= now
                data += connection.recv(1 << 20)
                answers += data.count(b"HTTP/1.1 200 ")
                data = data[-12:] if not data.endswith(b"}") else b""
            return answers

    with siege.attack() as good:
        assert together(attack, 3) == [10_000] * 3
        good.goes_on()
    assert siege.most < 64 * MIB


def test_what_stays_of_all(siege: Siege) -> None:
    """After all of it the process has what it had, but for some pieces of memory."""
    assert siege.server.resident <= siege.first + 2 * FEW_BYTES
    assert siege.server.process.poll() is None
    assert "Traceback" not in siege.server.output
    with siege.http() as http:
        assert http.get("/api/v1/health").body == {"status": "ok"}
