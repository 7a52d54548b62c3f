"""Small messages of pipelines that expand to large ones: how many of them one turn of the reactor bears."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2 import expanding
from kvtwisted.rpc.messages import decompress

from ..test_pipeline import get, set_
from .simulation import Link, Simulation, simulation
from .wire import Request

#: An unknown field of protobuf.
_UNKNOWN = b"\xf8\x7f\x01"


class _Turns:
    """For each turn of the reactor, the bytes of every message that was expanded in it; what tests send is one too."""

    def __init__(self, sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
        self.expanded: list[list[int]] = [[]]
        later = sim.reactor.callLater

        def call_later(delay: float, function: Callable[..., object], *args: Any, **kw: Any) -> object:
            def run() -> None:
                self.expanded.append([])
                function(*args, **kw)

            return later(delay, run)

        def counted(message: bytes, limit: int) -> bytes:
            whole = decompress(message, limit)
            self.expanded[-1].append(len(whole))
            return whole

        monkeypatch.setattr(sim.reactor, "callLater", call_later)
        monkeypatch.setattr(expanding, "decompress", counted)

    @property
    def busy(self) -> list[list[int]]:
        """Those in which anything was expanded."""
        return [sizes for sizes in self.expanded if sizes]


def _padded(operation: kv.PipelineRequest, size: int) -> bytes:
    encoded = operation.SerializeToString()
    return encoded + _UNKNOWN * ((size - len(encoded)) // 3)


def _send(link: Link, *messages: bytes) -> int:
    """Send a whole pipeline at once, compressed; its stream."""
    link.greet()
    stream_id, frames = link.begin(Request("/kv.v1.KeyValueService/Pipeline", messages, gzip=True))
    link.unsent.clear()
    link.send(b"".join(frames))
    return stream_id


def _ids(link: Link, stream_id: int) -> list[int]:
    """Which operations were answered, in this order, once the pipeline has ended well."""
    seen = link.observer.streams[stream_id]
    assert (seen.ended, seen.status) == (True, "0")
    return [kv.PipelineResponse.FromString(message).id for message in seen.messages]


def test_large_ones_have_a_turn_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of many pipelines and connections too; all are answered in order in the end."""
    with simulation() as sim:
        turns = _Turns(sim, monkeypatch)
        links = [sim.connect() for _ in range(3)]
        messages = [_padded(get(number, "k"), 200_000) for number in range(10)]
        streams = [_send(link, *messages) for link in links]
        assert len(turns.busy) == 1
        sim.reactor.settle()
        assert [len(sizes) for sizes in turns.busy] == [1] * 30
        for link, stream_id in zip(links, streams):
            assert _ids(link, stream_id) == list(range(10))


def test_small_ones_share_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up to TURN_BYTES of them; a pipeline that is quick is not held up by one that is not."""
    with simulation() as sim:
        turns = _Turns(sim, monkeypatch)
        slow, quick = sim.connect(), sim.connect()
        slow_stream = _send(slow, *[_padded(get(number, "k"), 200_000) for number in range(20)])
        quick_stream = _send(quick, *[_padded(get(number, "k"), 2_000) for number in range(40)])
        sim.reactor.settle()
        for sizes in turns.busy:
            assert sum(sizes[:-1]) < expanding.TURN_BYTES
        small = [number for number, sizes in enumerate(turns.busy) if min(sizes) < 3_000]
        assert len(small) <= 3
        assert small[-1] < 6
        assert _ids(quick, quick_stream) == list(range(40))
        assert _ids(slow, slow_stream) == list(range(20))


def test_order_on_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Get sees the Set before it, whatever turns they were expanded in."""
    with simulation() as sim:
        turns = _Turns(sim, monkeypatch)
        link = sim.connect()
        operations = [(set_(number, "k", f"v{number}"), get(100 + number, "k")) for number in range(5)]
        stream_id = _send(link, *[_padded(one, 100_000) for pair in operations for one in pair])
        sim.reactor.settle()
        assert len(turns.busy) == 10
        _ids(link, stream_id)
        answers = [kv.PipelineResponse.FromString(one) for one in link.observer.streams[stream_id].messages]
        found = {answer.id: answer.get.value for answer in answers if answer.id >= 100}
        assert found == {100 + number: f"v{number}" for number in range(5)}


def test_one_that_goes_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of it is expanded any more, and those behind it have their turn."""
    with simulation() as sim:
        turns = _Turns(sim, monkeypatch)
        gone, other = sim.connect(), sim.connect()
        _send(gone, *[_padded(get(number, "k"), 200_000) for number in range(5)])
        stream_id = _send(other, _padded(get(7, "k"), 100_000))
        gone.transport.lose()
        sim.reactor.settle()
        assert [len(sizes) for sizes in turns.busy] == [1, 1]
        assert _ids(other, stream_id) == [7]


def test_what_is_kept_counts() -> None:
    """An operation that is under way counts with its key and value; fields that nobody knows are kept no longer."""
    with simulation() as sim:
        link = sim.connect()
        link.greet()
        message = _padded(set_(1, "k", "v"), 1_000_000)
        _, frames = link.begin(Request("/kv.v1.KeyValueService/Pipeline", (message,), gzip=True, end="nothing"))
        link.unsent.clear()
        link.send(b"".join(frames))
        (pipeline,) = sim.server._pipelines._open
        assert pipeline._bytes == len(b"k" + b"v")
        sim.reactor.settle()
        assert pipeline._bytes == 0
