"""docs/grpc-api.md says what the server does, and its examples run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kvtwisted.config.schema import KEYS
from kvtwisted.core import limits
from kvtwisted.rpc import health, pipeline, reflection, streams
from kvtwisted.rpc import stream_slots as slots
from kvtwisted.rpc.errors import Code
from kvtwisted.rpc.grpcio import handlers as threaded_handlers
from kvtwisted.rpc.grpcio import server as threaded_server
from kvtwisted.rpc.http2 import (
    answering,
    flood_guard,
    header_blocks,
    header_turn,
    inbound,
    lifetime,
    outbound,
    pipelines,
    responder,
    server,
)
from kvtwisted.rpc.methods import SERVICES
from kvtwisted.rpc.rights import rpc_requirement

from .support import CLASSES, MIB, PATIENCE, NativeServer, World

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "grpc-api.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("method", CLASSES)
def test_every_method_and_field_is_in_the_table(method: str) -> None:
    """The row of a method names what it requires, and exactly the fields of its two messages."""
    (row,) = re.findall(rf"^\| `{method}` \|(.*)\|(.*)\|(.*)\|$", PAGE, re.MULTILINE)
    (required,), *documented = [re.findall(r"`(\w+)`", cell) for cell in row]
    assert required == rpc_requirement(f"/{SERVICES[0]}/{method}")
    assert documented == [[field.name for field in message.DESCRIPTOR.fields] for message in CLASSES[method]]


@pytest.mark.parametrize("code", Code)
def test_every_status_code_is_in_the_table(code: Code) -> None:
    """Each code that the server answers with has a row."""
    assert f"\n| `{code.name}` |" in PAGE


@pytest.mark.parametrize("name", [*health.KNOWN[1:], health.SERVICE, *(n.rpartition(".")[0] for n in reflection.NAMES)])
def test_every_service_is_named(name: str) -> None:
    """Services, health and reflection are there by their names; reflection's second one is shortened."""
    assert f"`{name}`" in PAGE or f"`{name.rpartition('.')[2]}`" in PAGE


def said(sentence: str) -> bool:
    """Whether the page says it, wherever its lines are broken."""
    return sentence in " ".join(PAGE.split())


def test_figures() -> None:
    """Limits of both transports have the figures that the code has."""
    for sentence in (
        f"1 to {limits.MAX_KEY_BYTES:,} bytes",
        f"0 to {limits.MAX_VALUE_BYTES:,} bytes",
        f"{limits.MAX_TTL_SECONDS:,}",
        f"| streams of one connection | {responder.MAX_STREAMS:,} |",
        f"| open Watch streams of the health service | `limits.max_watches` ({KEYS['limits.max_watches'].default:,}) |",
        f"| open Watches of keys | `limits.max_watchers` ({KEYS['limits.max_watchers'].default:,}, ",
        f"| open ScanStreams | `limits.max_scan_streams` ({KEYS['limits.max_scan_streams'].default:,}, ",
        f"| {answering.HIGH_WATER // 1024} KiB, and one part ({streams.PART_BYTES // 1024} KiB, or one entry) |",
        f"large ones are cut into messages of some {streams.PART_BYTES // 1024} KiB |",
        f"`limits.max_watch_history_bytes` ({KEYS['limits.max_watch_history_bytes'].default // MIB} MiB,",
        f"| open reflection streams | {slots.MAX_REFLECTION_STREAMS}, of {reflection.STREAM_SECONDS:.0f} s at most |",
    ):
        assert said(sentence), sentence


def test_figures_of_the_threaded_transport() -> None:
    """What grpcio is told, and what its handlers keep to."""
    options = dict(threaded_server.channel_options(0))
    for option, sentence in (
        ("grpc.max_concurrent_streams", "| streams of one connection | {:,} |"),
        ("grpc.server_handshake_timeout_ms", "handshake within {} s"),
        ("grpc.max_connection_idle_ms", "without calls for {} s"),
        ("grpc.keepalive_time_ms", "| every {} s of silence |"),
        ("grpc.keepalive_timeout_ms", "when none comes within {} s |"),
        ("grpc.http2.min_ping_interval_without_data_ms", "more often than every {} s"),
    ):
        figure = options[option] // (1000 if option.endswith("_ms") else 1)
        assert said(sentence.format(figure)), option
    assert said(f"`CANCELLED` after {threaded_handlers.SIDE_SECONDS:.0f} s |")
    assert said(f"`grpc.threads` ({KEYS['grpc.threads'].default}) |")
    assert said("| the same, and at most half of `grpc.threads` |")


def test_figures_of_the_native_transport() -> None:
    """Its limits, and how long it waits for what."""
    for sentence in (
        f"`storage.threads` ({KEYS['storage.threads'].default}, ",
        f"| open pipelines | `limits.max_pipelines` ({KEYS['limits.max_pipelines'].default:,}) |",
        f"| one operation's message | {pipeline.MESSAGE_BYTES:,} bytes, decompressed |",
        f"| operations of a pipeline under way | {pipelines.MAX_UNANSWERED:,} |",
        f"no more window while {pipelines.MAX_UNANSWERED:,} operations or {pipelines.REQUEST_BYTES // MIB} MiB of them "
        "are under way, "
        f"{pipelines.QUEUED_BYTES // MIB} MiB of answers wait to be read, "
        f"or answers of up to {pipelines.EXPECTED_BYTES // MIB} MiB are being made",
        f"| {pipelines.QUEUED_BYTES // MIB} MiB, {pipelines.EXPECTED_BYTES // MIB} MiB |",
        f"| headers of a call | {header_blocks.MAX_LIST_BYTES:,} bytes, with 32 for each header |",
        f"| a header block as it is sent | {header_blocks.MAX_BLOCK_BYTES:,} bytes; "
        f"{header_blocks.MAX_UNKNOWN_BLOCK_BYTES:,} until a call was let in that is not for everybody |",
        "an eighth of `limits.max_unsent_bytes` "
        f"({KEYS['limits.max_unsent_bytes'].default // outbound.SHARES // MIB} MiB) |",
        f"| answers that wait on all connections | `limits.max_unsent_bytes` "
        f"({KEYS['limits.max_unsent_bytes'].default // MIB} MiB) |",
        f"| to complete the HTTP/2 handshake, TLS included | {lifetime.HANDSHAKE_SECONDS:.0f} s, then it is cut off |",
        f"| without calls | closed when the last one ended {lifetime.IDLE_SECONDS:.0f} s ago |",
        f"| after {lifetime.KEEPALIVE_SECONDS:.0f} s of silence while calls run |",
        f"| when no answer comes within {lifetime.KEEPALIVE_ANSWER_SECONDS:.0f} s |",
        f"when fewer than {lifetime.STALL_BYTES:,} bytes go out in {lifetime.STALL_SECONDS:.0f} s |",
        f"Each connection has {flood_guard.TOKENS:,} tokens for them",
        f"{flood_guard.TOKENS_PER_SECOND} tokens come back each second, {flood_guard.TOKENS_PER_CALL} with each call",
        f"{header_turn.HEADERS_WORK:,} bytes of headers",
        f"of which each block counts for {header_turn.BLOCK_WORK:,} more",
        f"so that resetting does not get a client more than {responder.MAX_STREAMS:,} at once",
        f"count as open for up to {server.LOOK_SECONDS} s",
        f"once its PING is answered or after {lifetime.GOODBYE_SECONDS:.0f} s",
        f"so slowly that it would take more than about {inbound.PACE_SECONDS:.0f} s",
        "| `limits.max_unfinished_bytes` "
        f"({KEYS['limits.max_unfinished_bytes'].default // MIB} MiB): half of it announced, half of it come unasked |",
    ):
        assert said(sentence), sentence
    made = World(transport="native", max_unfinished_bytes=80 * MIB).server
    assert isinstance(made, NativeServer)
    assert made.native.budget.capacity == 40 * MIB
    assert outbound.SHARES == 8


def test_the_examples(world: World, tmp_path: Path) -> None:
    """A client is generated by the command on the page, and the Python examples run one after the other."""
    (command,) = re.findall(r"^\$ python (-m grpc_tools.*)$", PAGE, re.MULTILINE)
    (tmp_path / "proto").symlink_to(ROOT / "proto")
    subprocess.run([sys.executable, *shlex.split(command)], cwd=tmp_path, check=True, timeout=PATIENCE)
    examples = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert len(examples) == 13
    script = "\n".join(examples).replace("127.0.0.1:50051", world.address)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=PATIENCE)
