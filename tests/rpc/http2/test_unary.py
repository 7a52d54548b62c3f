"""Unary calls without a connection: what is decided on the reactor thread, and what it costs."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import Any, Callable

import pytest

from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.rpc.calls import Terms
from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2.unary import INLINE_MESSAGE, UnaryCalls
from kvtwisted.sessions.admission import Admission
from kvtwisted.sessions.buckets import Limiter, Rate
from tests.sessions.support import ManualTime
from tests.support.doors import Doorway

#: Says that no test here is about a backend.
WITHOUT_BACKEND = True
#: The least message of a Set that is not small: its value, with the key and the prefixes of both.
VALUE = "v" * INLINE_MESSAGE
LARGE_SET = kv.SetRequest(key="k", value=VALUE).SerializeToString()


class Streams:
    """A connection: where calls come from, and what they were answered."""

    def __init__(self) -> None:
        self.answers: dict[int, bytes] = {}
        self.errors: dict[int, CallError] = {}
        self.promised: set[int] = set()
        self.expected = 0

    def promise(self, stream_id: int, /) -> None:
        """It comes later."""
        self.promised.add(stream_id)

    def awaited(self, stream_id: int, /) -> bool:
        """It is waited for."""
        return stream_id in self.promised

    def expect(self, size: int) -> None:
        """An answer is being made."""
        self.expected += size

    def answer(self, stream_id: int, message: bytes, /) -> None:
        """A good one."""
        self._end(stream_id)
        self.answers[stream_id] = message

    def answer_constant(self, stream_ids: Iterable[int], answer: Any, /) -> None:
        """Ones that were made ready."""
        for stream_id in stream_ids:
            self.answer(stream_id, b"constant")

    def fail(self, stream_id: int, error: CallError, /) -> None:
        """A status."""
        self._end(stream_id)
        self.errors[stream_id] = error

    def _end(self, stream_id: int) -> None:
        assert stream_id not in self.answers
        assert stream_id not in self.errors
        self.promised.discard(stream_id)


class Scene(Doorway):
    """Calls of a session that may have eight operations and 1 MiB at once: powers of two, whose parts are exact."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(10, 1 << 20)
        self.limiter = Limiter(Rate(8, 1 << 20))
        self.session = self.make_session(*self.session.principal.grants, limiter=self.limiter, seconds=ManualTime())
        terms = Terms(4 << 20, 4 << 20, 60.0, 3)
        reactor: Any = self.reactor
        pool: Any = self.pool
        self.unary = UnaryCalls(FairPool(reactor, pool), self.session, terms, lambda: None)
        self.streams = Streams()
        self._number = 0

    def call(self, method: str, message: bytes, *, compressed: bool = False, timeout: float | None = None) -> int:
        """Begin a call; returns its stream."""
        self._number += 1
        answer: Callable[..., None] = self.unary.methods()[method][compressed]
        answer(self.streams, self._number, message, timeout)
        return self._number

    @property
    def under_way(self) -> tuple[int, int, int]:
        """Requests and bytes that have not left, and bytes of answers that are expected."""
        return self.admission.in_flight, self.admission.bytes, self.streams.expected

    def left(self) -> tuple[int, int]:
        """Operations and KiB that are left of the rate. They are gone afterwards."""
        operations = kibibytes = 0
        while not self.limiter.take(1, 0, 1000.0):
            operations += 1
        while not self.limiter.take(0, 1024, 1000.0):
            kibibytes += 1
        return operations, kibibytes


@pytest.fixture
def scene() -> Scene:
    """A new one."""
    return Scene()


def test_a_large_set_pays_once(scene: Scene) -> None:
    """It is decided here and now: what it is charged before it is decoded is given back when it is good."""
    stream = scene.call("Set", LARGE_SET)
    assert scene.pool.waiting == 0
    assert (scene.admission.in_flight, scene.admission.bytes) == (1, INLINE_MESSAGE + 1)
    scene.run()
    assert scene.streams.answers == {stream: b"constant"}
    assert (scene.admission.in_flight, scene.admission.bytes) == (0, 0)
    assert scene.left() == (7, ((1 << 20) - INLINE_MESSAGE - 1) // 1024)


def test_a_large_set_over_the_rate_is_not_decoded(scene: Scene) -> None:
    """It is told so whatever it holds, and takes nothing."""
    scene.limiter.take(8, 0, 1000.0)
    for message in (LARGE_SET, b"\xff" * len(LARGE_SET)):
        stream = scene.call("Set", message)
        assert scene.streams.errors[stream].code is Code.RESOURCE_EXHAUSTED
        assert "is over its rate" in str(scene.streams.errors[stream])
    scene.run()
    assert (scene.admission.in_flight, scene.storage.data()) == (0, {})
    assert scene.left() == (0, 1024)


@pytest.mark.parametrize(
    ("message", "sentence"),
    [(b"\xff" * len(LARGE_SET), "not a kv.v1.SetRequest message"), (b"\x0a\x00" * 40_000, "over 1000 fields")],
    ids=["no message", "fields"],
)
def test_a_large_set_that_is_no_good_has_cost_its_bytes(scene: Scene, message: bytes, sentence: str) -> None:
    """It was work all the same."""
    stream = scene.call("Set", message)
    assert scene.streams.errors[stream].code is Code.INVALID_ARGUMENT
    assert sentence in str(scene.streams.errors[stream])
    assert scene.admission.in_flight == 0
    assert scene.left() == (7, ((1 << 20) - len(message)) // 1024)


@pytest.mark.parametrize("size", [1, INLINE_MESSAGE], ids=["small", "large"])
@pytest.mark.parametrize("method", ["Set", "MSet", "MGet", "ScanKeys"])
def test_what_finds_no_room_costs_nothing(scene: Scene, method: str, size: int) -> None:
    """Decided here or by the pool: it was not looked at."""
    requests: dict[str, Any] = {
        "Set": kv.SetRequest(key="k", value="v" * size),
        "MSet": kv.MSetRequest(key_values={"k": "v" * size}),
        "MGet": kv.MGetRequest(keys=["k" * size]),
        "ScanKeys": kv.ScanRequest(prefix="k" * size),
    }
    for _ in range(10):
        scene.admission.enter()
    for _ in range(20):
        stream = scene.call(method, requests[method].SerializeToString())
        assert "too many requests" in str(scene.streams.errors[stream])
    scene.run()
    assert (scene.admission.in_flight, scene.streams.expected) == (10, 0)
    assert scene.left() == (8, 1024)


def test_a_large_batch_pays_once(scene: Scene) -> None:
    """It is decoded in the pool; the same holds there."""
    message = kv.MSetRequest(key_values={"k": VALUE, "l": ""}).SerializeToString()
    stream = scene.call("MSet", message)
    assert scene.pool.waiting == 1
    scene.run()
    scene.run()
    assert stream in scene.streams.answers
    assert scene.under_way == (0, 0, 0)
    assert scene.left() == (6, ((1 << 20) - INLINE_MESSAGE - 2) // 1024)


def large_mget() -> bytes:
    """An MGet that is decoded in the pool, and has an answer for which room is kept."""
    return kv.MGetRequest(keys=["k" * INLINE_MESSAGE]).SerializeToString()


@pytest.mark.parametrize("looks", [0, 1])
def test_who_has_gone_pays_nothing(scene: Scene, looks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a thread has the message, or before its command is submitted: nothing is read, and no room is kept."""
    scene.call("MGet", large_mget())
    assert scene.under_way == (1, len(large_mget()), 4 << 20)
    waiting = [True] * looks
    monkeypatch.setattr(scene.streams, "awaited", lambda stream_id: bool(waiting and waiting.pop()))
    before = len(scene.storage.engine.calls)
    scene.run()
    assert len(scene.storage.engine.calls) == before
    assert (scene.under_way, scene.streams.answers, scene.streams.errors) == ((0, 0, 0), {}, {})
    assert scene.left() == (8, 1024)


@pytest.mark.parametrize(
    ("method", "message", "compressed", "code"),
    [
        ("MGet", b"\xff" * INLINE_MESSAGE * 2, False, Code.INVALID_ARGUMENT),
        ("Get", b"\xff" * 100, True, Code.INVALID_ARGUMENT),
        ("Get", gzip.compress(bytes((4 << 20) + 1)), True, Code.RESOURCE_EXHAUSTED),
    ],
    ids=["no message", "not compressed", "too large"],
)
def test_what_a_thread_cannot_decode(scene: Scene, method: str, message: bytes, compressed: bool, code: Code) -> None:
    """It is answered so, and nothing is kept of it."""
    stream = scene.call(method, message, compressed=compressed)
    scene.run()
    assert scene.streams.errors[stream].code is code
    assert scene.under_way == (0, 0, 0)
    assert scene.left()[0] == 7


def test_what_a_thread_decoded_is_refused_like_anything_else(scene: Scene) -> None:
    """Its key is too long, which the message of the answer says."""
    stream = scene.call("MGet", large_mget())
    scene.run()
    assert b"too long" in scene.streams.answers[stream]
    assert scene.under_way == (0, 0, 0)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("method", ["Set", "Get", "Delete", "MGet", "ScanKeys", "UpdateConfig"])
def test_a_call_without_time_left(scene: Scene, method: str, compressed: bool) -> None:
    """It is not begun, costs nothing, and is counted."""
    stream = scene.call(method, gzip.compress(b"") if compressed else b"", compressed=compressed, timeout=0.0)
    scene.run()
    assert scene.streams.errors[stream].code is Code.DEADLINE_EXCEEDED
    assert (scene.under_way, scene.admission.overdue.value) == ((0, 0, 0), 1)
    assert scene.left() == (8, 1024)
