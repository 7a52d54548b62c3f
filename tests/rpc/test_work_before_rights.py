"""What is known of a call comes before the work that it asks for, on every transport.

See Note [The order of admission] in `kvtwisted.sessions.session`.
"""

from __future__ import annotations

import gzip
import itertools
from typing import Any, Callable

import grpc
import pytest
from grpc import StatusCode
from hyperframe.frame import DataFrame

from kvtwisted.rpc import calls, messages, methods
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, SERVICES
from kvtwisted.sessions.entries import OwnRate
from tests.sessions.support import grant, made

from .http2.peer import Peer, request_fields
from .support import CLASSES, MIB, PATIENCE, World
from .test_access import PIPELINE, Guarded, metadata

READER, _READER = made("reader", grant("config_read"))
SLOW, _SLOW = made("slow", rate=OwnRate(operations=1))
#: A message of empty keys: two bytes each on the wire, a hundred and more as objects.
EMPTY_KEYS = b"\x0a\x00"
BATCHES = {"MGet": EMPTY_KEYS, "MDelete": EMPTY_KEYS, "MSet": EMPTY_KEYS}


@pytest.fixture
def guarded(make_world: Callable[..., World]) -> Guarded:
    """A server with a token that may read the configuration, and one that may do one operation a second."""
    guarded = Guarded(make_world)
    guarded.authority.replace([made("root")[1], _READER, _SLOW])
    return guarded


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Each piece of work on messages that is done, as it is done."""
    done: list[str] = []
    pieces = ((calls, "decompress"), (methods, "parse"), (methods, "read_keys"), (methods, "read_pairs"))
    for module, name in (*pieces, (messages, "parse")):
        work = getattr(module, name)

        def counted(*args: Any, name: str = name, work: Any = work) -> Any:
            done.append(name)
            return work(*args)

        monkeypatch.setattr(module, name, counted)
    return done


def compressed_call(world: World, method: str, message: bytes, token: bytes) -> tuple[str | None, str]:
    """The status and the sentence of a call whose message is compressed."""
    with Peer(world.address, patience=PATIENCE) as peer:
        stream = peer.next_stream()
        fields = request_fields(
            f"/{SERVICES[0]}/{method}", ("authorization", token.decode()), ("grpc-encoding", "gzip")
        )
        squeezed = gzip.compress(message)
        data = b"\x01" + len(squeezed).to_bytes(4, "big") + squeezed
        pieces = [data[start : start + 16_000] for start in range(0, len(data), 16_000)]
        frames = [DataFrame(stream, piece) for piece in pieces]
        frames[-1].flags.add("END_STREAM")
        peer.send(peer.headers(stream, fields), *frames)
        answer = peer.answer(stream)
        return answer.status, answer.headers.get("grpc-message", "")


@pytest.mark.parametrize("method", [name for name in METHODS if name != "GetConfig"])
def test_rights_come_first(guarded: Guarded, worked: list[str], method: str) -> None:
    """Who may never call a method is told so before its message is looked at, however often; each time is counted."""
    for attempt in range(2):
        status, sentence = compressed_call(guarded.world, method, EMPTY_KEYS * 500_000, READER)
        assert (status, sentence) == ("7", "the token does not allow this")
        assert guarded.counted == ["permission_denied"] * (attempt + 1)
    assert not worked


def test_no_pipeline_for_who_may_do_none_of_its_operations(guarded: Guarded, worked: list[str]) -> None:
    """Nor does it take a slot."""
    stream = guarded.channel.stream_stream(PIPELINE)(iter([]), timeout=PATIENCE, metadata=metadata(READER))
    assert stream.code() is StatusCode.PERMISSION_DENIED
    assert guarded.world.slots.pipeline.open == 0


@pytest.mark.parametrize("method", ["MGet", "MSet", "ScanKeys"])
def test_rates_come_next(guarded: Guarded, worked: list[str], method: str) -> None:
    """Who has nothing left of their rate is told so before the message is looked at."""
    assert not guarded.call("Get", SLOW, key="k").found
    worked.clear()
    status, sentence = compressed_call(guarded.world, method, EMPTY_KEYS * 500_000, SLOW)
    assert status == "8"
    assert "is over its rate" in sentence
    assert not worked


def test_refusals_for_rights_are_charged(make_world: Callable[..., World]) -> None:
    """One who may do nothing of the kind cannot ask without end."""
    guarded = Guarded(make_world)
    token, entry = made("poor", grant("config_read"), rate=OwnRate(operations=1))
    guarded.authority.replace([entry])
    codes = [guarded.code("MGet", token, keys=["k"]) for _ in range(20)]
    assert codes[0] is StatusCode.PERMISSION_DENIED
    assert StatusCode.RESOURCE_EXHAUSTED in codes


def test_requests_that_are_no_good_are_charged(guarded: Guarded) -> None:
    """A batch of too many keys costs an operation; a good call gets that back, and pays what it costs."""
    status, _ = compressed_call(guarded.world, "MGet", EMPTY_KEYS * 500_000, SLOW)
    assert status == "0"
    assert guarded.code("Get", SLOW, key="k") is StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("method", BATCHES)
def test_keys_are_counted_before_they_are_made(
    guarded: Guarded, worked: list[str], method: str, compressed: bool
) -> None:
    """A batch of too many is refused for their number, and nothing is parsed."""
    message = BATCHES[method] * 500_000
    stub = guarded.channel.unary_unary(
        f"/{SERVICES[0]}/{method}", lambda data: data, CLASSES[method][1].FromString
    )  # fmt: skip
    compression = grpc.Compression.Gzip if compressed else None
    root, entry = made("all")
    guarded.authority.replace([entry])
    answer = stub(message, timeout=PATIENCE, metadata=metadata(root), compression=compression)
    assert "too many: over 10000 keys were sent, limits.max_batch_keys is 10000" in answer.error
    assert set(worked) <= {"decompress"}


def test_a_batch_at_the_limit(guarded: Guarded) -> None:
    """10,000 keys and a ttl are not too many."""
    root, entry = made("all")
    guarded.authority.replace([entry])
    pairs = {f"k{number}": "" for number in range(10_000)}
    assert guarded.call("MSet", root, key_values=pairs, ttl=100).success
    assert len(guarded.call("MGet", root, keys=list(pairs)).key_values) == 10_000
    pairs["one more"] = ""
    assert "10001 keys were sent" in guarded.call("MSet", root, key_values=pairs).error


@pytest.mark.parametrize("method", ["Set", "Get", "ScanKeys", "UpdateConfig"])
def test_fields_without_end(guarded: Guarded, method: str) -> None:
    """What has no batch has no use for thousands of fields."""
    root, entry = made("all")
    guarded.authority.replace([entry])
    stub = guarded.channel.unary_unary(f"/{SERVICES[0]}/{method}")
    failure = stub.future(EMPTY_KEYS * 500_000, timeout=PATIENCE, metadata=metadata(root)).exception()
    assert (failure.code(), failure.details()) == (StatusCode.INVALID_ARGUMENT, "the request has over 1000 fields")


def test_room_is_counted_by_what_a_message_expands_to(make_world: Callable[..., World]) -> None:
    """A small compressed message that expands to a large one waits for the room of the large one."""
    world = make_world(max_bytes_in_flight=4 * MIB)
    hold = world.hold("write")
    message = CLASSES["Set"][0](key="a", value="v" * MIB)
    stub = world.channel.unary_unary(f"/{SERVICES[0]}/Set", lambda request: request.SerializeToString())
    futures = [stub.future(message, timeout=PATIENCE, compression=grpc.Compression.Gzip) for _ in range(8)]
    hold.reached()
    refused = next(future for future in itertools.cycle(futures) if future.done())
    assert refused.code() is StatusCode.RESOURCE_EXHAUSTED
    assert "limits.max_bytes_in_flight" in refused.details()
    assert world.admission.bytes <= 4 * MIB
    hold.release()
    for future in futures:
        future.exception()
    assert world.admission.bytes == 0


def test_large_operations_of_pipelines(make_world: Callable[..., World]) -> None:
    """An operation has the bytes of the largest Set at most, compressed or not."""
    world = make_world(max_request_bytes=8 * MIB)
    for compression in (None, grpc.Compression.Gzip):
        stub = world.channel.stream_stream(PIPELINE, lambda request: request.SerializeToString())
        operation = kv.PipelineRequest(id=1, set=kv.SetRequest(key="k", value="v" * 3 * MIB))
        stream = stub(iter([operation]), timeout=PATIENCE, compression=compression)
        assert stream.code() is StatusCode.RESOURCE_EXHAUSTED
