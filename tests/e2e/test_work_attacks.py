"""Requests that are small on the wire and large in work, from many at once; an honest client is served beside them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, HeadersFrame

from tests.rpc.http2.peer import Peer, request_fields

from .clients import TIMEOUT
from .harness import Launcher
from .siege import MIB, Siege, together
from .test_authentication import ALL, Tokens

GET, MGET, PIPELINE = (f"/kv.v1.KeyValueService/{name}" for name in ("Get", "MGet", "Pipeline"))
#: Seconds that a round of the honest client may take at most, where other tests run too: it is some hundredths alone.
WORST = 5.0
#: The most memory that an attack may take.
MOST = 400 * MIB
#: 20 KB on the wire, 20 MB of the smallest keys, gigabytes as objects.
TINY_KEYS = b"\x0a\x00" * 10_000_000


@pytest.fixture(scope="module", params=["native", pytest.param("threaded", marks=pytest.mark.long)])
def siege(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Siege]:
    """A process for each transport, and tokens for little."""
    launcher = Launcher(tmp_path_factory.mktemp("work"))
    tokens = Tokens(launcher.folder / "server")
    good, slow = tokens.create("good", ALL), tokens.run("create", "slow", f"--grant={ALL}", "--rate-operations=1")
    try:
        server = launcher("--security-tokens", str(tokens.path), "--grpc-transport", request.param)
        siege = Siege(server, good, slow)
        siege.others = {  # type: ignore[attr-defined]
            "full": tokens.create("full", ALL), "slow": slow, "config": tokens.create("config", "config_read"),
        }  # fmt: skip
        with siege.attack():
            pass
        yield siege
    finally:
        launcher.end()


def _bounded(siege: Siege, worst: float, record_property: Any) -> None:
    record_property("worst round, seconds", worst)
    record_property("memory, MiB", siege.most // MIB)
    print(f"worst round: {worst:.2f} s; memory: {siege.most // MIB} MiB")
    assert worst < WORST
    assert siege.most < MOST


def _squeezed_calls(siege: Siege, token: str, kind: str, number: int) -> None:
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    metadata = [("authorization", f"Bearer {token}")]
    more: Any = {"timeout": TIMEOUT, "metadata": metadata, "compression": grpc.Compression.Gzip}
    with grpc.insecure_channel(siege.server.grpc_address, options=options) as channel:
        for _ in range(number):
            with suppress(grpc.RpcError):
                if kind == "unary":
                    channel.unary_unary(MGET, bytes, bytes)(TINY_KEYS, **more)
                else:
                    list(channel.stream_stream(PIPELINE, bytes, bytes)(iter([TINY_KEYS] * 2), **more))


@pytest.mark.parametrize("calls", [1, pytest.param(10, marks=pytest.mark.long)])
def test_tiny_keys_in_gzip(siege: Siege, calls: int, record_property: Any) -> None:
    """From who has all rights, who has one operation a second, and who may only read the configuration."""
    attackers = list(itertools.product(siege.others.values(), ("unary", "pipeline")))  # type: ignore[attr-defined]
    with siege.attack() as good:
        together(lambda which: _squeezed_calls(siege, *attackers[which], calls), len(attackers))
    _bounded(siege, good.worst, record_property)


def _block(token: str | None, value: str) -> bytes:
    more = [] if token is None else [("authorization", f"Bearer {token}")]
    encoder = Encoder()
    encoder.header_table_size = 0
    return encoder.encode([*request_fields(GET, *more), ("x", value)])


def _frames(stream: int, block: bytes) -> bytes:
    pieces = [block[at : at + 16_000] for at in range(0, len(block), 16_000)]
    ends = [["END_HEADERS"] if piece is pieces[-1] else [] for piece in pieces]
    frames: list[Any] = [HeadersFrame(stream, pieces[0], flags=["END_STREAM", *ends[0]])]
    frames += [ContinuationFrame(stream, piece, flags=flags) for piece, flags in zip(pieces[1:], ends[1:])]
    return b"".join([frame.serialize() for frame in frames])


#: Values that make blocks of nearly 16 and 32 KB: of one that zlib reads, and of one with rare symbols.
VALUES = {"common": "y" * 20_000, "rare": "\\" * 6_300, "rare, large": "\\" * 13_000}


@pytest.mark.parametrize(
    ("connections", "rounds"), [(64, 2), pytest.param(500, 10, marks=pytest.mark.long)], ids=["64", "500"]
)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("siege", ["native"], indirect=True)  # grpcio's decoder is grpcio's
def test_huffman_coded_header_blocks(
    siege: Siege, connections: int, rounds: int, value: str, record_property: Any
) -> None:
    """With tokens and without, from many connections, in turn."""
    tokens = [None, *siege.others.values()]  # type: ignore[attr-defined]
    blocks = [_block(token, VALUES[value]) for token in tokens]
    with siege.attack() as good, ExitStack() as stack:
        peers = []
        for _ in range(connections):
            peers.append(stack.enter_context(Peer(siege.server.grpc_address)))
        for turn in range(rounds):
            for number, peer in enumerate(peers):
                with suppress(OSError):
                    peer.send(_frames(2 * turn + 1, blocks[number % len(blocks)]))
        good.goes_on()
    _bounded(siege, good.worst, record_property)
