"""What a refused call keeps: nothing, also where Python's cyclic collector never comes by.

See Note [Errors that are kept hold no frames] in `kvtwisted.core.errors`.
"""

from __future__ import annotations

import gc
from typing import Any, Callable

import grpc
import pytest

from kvtwisted.core.errors import KvError, StorageError
from kvtwisted.rpc.errors import CallError
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from tests.sessions.support import grant, made
from tests.support.collector import without_collector

from .support import CLASSES, MIB, PATIENCE, World, wait_until
from .test_access import PIPELINE, SERVICES, Guarded, metadata
from .test_work_before_rights import _READER, EMPTY_KEYS, READER

#: Calls of each kind, and bytes of each one's message.
CALLS, SIZE = 6, 1_000_000

#: A method, and the message of a call of it that is refused in some way.
REFUSED: dict[str, tuple[str, bytes]] = {
    "not the message it should be": ("Get", b"\xff" * SIZE),
    "text that is none": ("MGet", b"\x0a\x04\xff\xff\xff\xff\xfa\x7f\xc0\x84\x3d" + bytes(SIZE)),
    "too many keys": ("MGet", EMPTY_KEYS * (SIZE // 2)),
    "too many fields": ("Set", EMPTY_KEYS * (SIZE // 2)),
    "an empty key": ("Set", kv.SetRequest(value="v" * SIZE).SerializeToString()),
    "too large a key": ("Get", kv.GetRequest(key="k" * SIZE).SerializeToString()),
    "a key that is not allowed": ("Set", kv.SetRequest(key="b/", value="v" * SIZE).SerializeToString()),
    "failing storage": ("Set", kv.SetRequest(key="a/", value="v" * SIZE).SerializeToString()),
    "a failing read": ("Get", kv.GetRequest(key="a/" + "k" * 1000).SerializeToString()),
    "a bad configuration": ("UpdateConfig", kv.UpdateConfigRequest(config="{" + " " * SIZE).SerializeToString()),
}


def errors() -> list[BaseException]:
    """Errors of ours that are somewhere with their frames, or other errors' frames: what has those has the messages.

    Without them they may stay, as in what was logged before logging has begun.
    """
    ours = [found for found in gc.get_objects() if isinstance(found, (KvError, CallError))]
    return [found for found in ours if found.__traceback__ or found.__context__ or found.__cause__]


@pytest.fixture
def guarded(make_world: Callable[..., World]) -> Guarded:
    """A server with a token for some keys, and one for none."""
    guarded = Guarded(make_world)
    token, entry = made("some", grant("get,set,delete", b"a/"), grant("config_write"))
    guarded.authority.replace([entry, _READER])
    guarded.token = token  # type: ignore[attr-defined]
    return guarded


@pytest.mark.parametrize(
    "compression", [None, pytest.param(grpc.Compression.Gzip, marks=pytest.mark.long)], ids=["plain", "gzip"]
)
@pytest.mark.parametrize("kind", REFUSED)
def test_a_refused_call_keeps_nothing(guarded: Guarded, kind: str, compression: Any) -> None:
    """Its message is free as soon as it is answered."""
    method, message = REFUSED[kind]
    for failing in ("write", "put", "get"):
        guarded.world.fail(failing, lambda: StorageError("it fails"))
    stub = guarded.channel.unary_unary(f"/{SERVICES[0]}/{method}")
    token: bytes = guarded.token  # type: ignore[attr-defined]

    def call() -> None:
        future = stub.future(message, timeout=PATIENCE, metadata=metadata(token), compression=compression)
        if future.exception() is None:
            assert CLASSES[method][1].FromString(future.result()).error  # type: ignore[attr-defined]

    call()
    with without_collector():
        before = len(errors())  # of other tests of this process
        for _ in range(CALLS):
            call()
        # The last ones may still be on their way out of a thread.
        wait_until(lambda: len(errors()) <= before + 2)


def test_refused_operations_of_a_pipeline_keep_nothing(guarded: Guarded) -> None:
    """Whatever is wrong with them."""
    operations = [
        kv.PipelineRequest(id=1, set=kv.SetRequest(value="v" * SIZE)),
        kv.PipelineRequest(id=2, set=kv.SetRequest(key="b/", value="v" * SIZE)),
        kv.PipelineRequest(id=3, get=kv.GetRequest(key="k" * SIZE)),
    ]
    messages = [operation.SerializeToString() for operation in operations]
    messages.append(b"\x08\x04\x12\x04\x0a\x02\xff\xff" + b"\xfa\x7f\xc0\x84\x3d" + bytes(SIZE))
    token: bytes = guarded.token  # type: ignore[attr-defined]
    stub = guarded.channel.stream_stream(PIPELINE)

    def run(times: int) -> None:
        answers = list(stub(iter(messages * times), timeout=PATIENCE, metadata=metadata(token)))
        assert len(answers) == times * len(messages)

    run(1)
    with without_collector():
        before = len(errors())
        run(CALLS // 2)
        wait_until(lambda: len(errors()) <= before + 2)


def test_who_may_do_nothing_keeps_nothing(guarded: Guarded) -> None:
    """Those refused for their rights have their message taken, and thrown away."""
    stub = guarded.channel.unary_unary(f"/{SERVICES[0]}/MGet")
    with without_collector():
        before = len(errors())
        for _ in range(CALLS):
            future = stub.future(bytes(MIB), timeout=PATIENCE, metadata=metadata(READER))
            assert future.exception().code() is grpc.StatusCode.PERMISSION_DENIED
        wait_until(lambda: len(errors()) <= before + 2)
