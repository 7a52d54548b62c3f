"""The Pipeline method, as every transport must answer it."""

from __future__ import annotations

import queue
import random
from collections.abc import Iterable, Iterator
from typing import Any, Callable

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.core import errors
from kvtwisted.rpc import pipeline
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import SERVICES

from .support import MIB, PATIENCE, World, wait_until
from .test_server import stop_in_background

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True


def set_(number: int, key: str, value: str, ttl: int = 0) -> kv.PipelineRequest:
    """A Set."""
    return kv.PipelineRequest(id=number, set=kv.SetRequest(key=key, value=value, ttl=ttl))


def get(number: int, key: str) -> kv.PipelineRequest:
    """A Get."""
    return kv.PipelineRequest(id=number, get=kv.GetRequest(key=key))


def delete(number: int, key: str) -> kv.PipelineRequest:
    """A Delete."""
    return kv.PipelineRequest(id=number, delete=kv.DeleteRequest(key=key))


def run(
    channel: grpc.Channel, operations: Iterable[kv.PipelineRequest], service: str = SERVICES[0], **options: Any
) -> dict[int, kv.PipelineResponse]:
    """Send all operations at once; their answers by id, each of which must come once."""
    method = channel.stream_stream(
        f"/{service}/{pipeline.NAME}", kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString
    )
    answers: dict[int, kv.PipelineResponse] = {}
    for answer in method(iter(operations), timeout=PATIENCE, **options):
        assert answer.id not in answers
        answers[answer.id] = answer
    return answers


class Conversation:
    """A pipeline whose operations are sent one by one."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        method = channel.stream_stream(f"/{SERVICES[0]}/{pipeline.NAME}")
        self.call = method(iter(self._requests.get, None), timeout=PATIENCE)

    def send(self, *operations: kv.PipelineRequest) -> None:
        """Send operations."""
        for operation in operations:
            self._requests.put(operation.SerializeToString())

    def send_raw(self, message: bytes) -> None:
        """Send any message."""
        self._requests.put(message)

    def answer(self) -> kv.PipelineResponse:
        """The next answer."""
        return kv.PipelineResponse.FromString(next(self.call))

    def end(self) -> None:
        """Send no more."""
        self._requests.put(None)


@pytest.fixture
def talk(world: World) -> Iterator[Conversation]:
    """An open pipeline."""
    conversation = Conversation(world.channel)
    yield conversation
    conversation.end()


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_operations(world: World, service: str, compression: grpc.Compression) -> None:
    """Each operation is answered with what its own method answers, under the client's number."""
    answers = run(
        world.channel,
        [set_(7, "a", "1" * 1000, ttl=60), get(2**64 - 1, "a"), delete(0, "b"), get(3, "b"), set_(4, "ü/ ", "")],
        service,
        compression=compression,
    )
    assert answers == {
        7: kv.PipelineResponse(id=7, set=kv.SetResponse(success=True)),
        2**64 - 1: kv.PipelineResponse(id=2**64 - 1, get=kv.GetResponse(value="1" * 1000, found=True, ttl=60)),
        0: kv.PipelineResponse(id=0, delete=kv.DeleteResponse(success=True)),
        3: kv.PipelineResponse(id=3, get=kv.GetResponse()),
        4: kv.PipelineResponse(id=4, set=kv.SetResponse(success=True)),
    }
    assert world.client.call("Get", key="ü/ ").found


def test_an_empty_pipeline(world: World) -> None:
    """A client that sends nothing gets nothing, and status OK."""
    assert run(world.channel, []) == {}


@pytest.mark.parametrize("size", [1, 100_000])
def test_order_on_one_key(world: World, size: int) -> None:
    """Operations on a key take effect in the order sent, small ones and those that go to the pool."""
    operations: list[kv.PipelineRequest] = []
    for number in range(0, 100, 4):
        operations.append(set_(number, "k", f"{number}" + "x" * (size if number % 8 else 1)))
        operations.append(get(number + 1, "k"))
        operations.append(delete(number + 2, "k"))
        operations.append(get(number + 3, "k"))
    answers = run(world.channel, operations)
    assert len(answers) == 100
    for number in range(0, 100, 4):
        assert answers[number + 1].get.value.rstrip("x") == f"{number}"
        assert not answers[number + 3].get.found


@pytest.mark.parametrize("first", [b"\xff", b"\x00", b"a"])
def test_bytes(world: World, first: bytes) -> None:
    """Any bytes are stored and come back, also those that begin as no text does."""
    data = first + b"\xfe\x80"
    operations = [
        kv.PipelineRequest(id=1, set=kv.SetRequest(key="bytes", data=data)),
        kv.PipelineRequest(id=2, set=kv.SetRequest(key="bytes", data=data, ttl=100)),
        kv.PipelineRequest(id=3, get=kv.GetRequest(key="bytes", as_data=True)),
    ]
    answers = run(world.channel, operations)
    assert answers[1].set.success
    assert answers[2].set.success
    assert answers[3].get.data == data


def test_many_operations(world: World) -> None:
    """Thousands at once, far more than may be in flight, on few keys, give what a dictionary gives."""
    chance = random.Random(5)
    model: dict[str, str] = {}
    expected: dict[int, str | None] = {}
    operations = []
    for number in range(5000):
        key = f"key{chance.randrange(50)}"
        kind = chance.randrange(5)
        if kind < 2:
            model[key] = f"{number}"
            operations.append(set_(number, key, f"{number}"))
        elif kind < 4:
            expected[number] = model.get(key)
            operations.append(get(number, key))
        else:
            model.pop(key, None)
            operations.append(delete(number, key))
    answers = run(world.channel, operations)
    assert sorted(answers) == list(range(5000))
    found = {number: answers[number].get.value if answers[number].get.found else None for number in expected}
    assert found == expected
    assert world.stored() == model
    assert world.admission.in_flight == 0


def test_large_values(world: World) -> None:
    """Values of the largest size, more than any window holds, both ways."""
    value = "v" * MIB
    answers = run(
        world.channel, [*(set_(n, f"k{n}", value) for n in range(8)), *(get(n + 8, f"k{n}") for n in range(8))]
    )
    assert [answers[n].get.value == value for n in range(8, 16)] == [True] * 8


def test_bad_operations(world: World, talk: Conversation) -> None:
    """What is wrong with an operation is its answer; the others, and the pipeline, go on."""
    talk.send(set_(1, "", "x"))
    assert talk.answer() == kv.PipelineResponse(
        id=1, set=kv.SetResponse(error="key: must not be empty (1 to 1024 bytes)")
    )
    talk.send(kv.PipelineRequest(id=2))
    no_operation = talk.answer()
    assert (no_operation.id, no_operation.code) == (2, StatusCode.INVALID_ARGUMENT.value[0])
    assert no_operation.message == "operation: must be one of set, get, delete, increment, touch"
    talk.send_raw(b"\x08\x03\x1a\x03\x0a\x01\xff")
    not_text = talk.answer()
    assert (not_text.id, not_text.code) == (3, StatusCode.INVALID_ARGUMENT.value[0])
    assert "UTF-8" in not_text.message
    talk.send(set_(4, "a", "1"))
    assert talk.answer().set.success
    assert world.stored() == {"a": "1"}


@pytest.mark.parametrize("message", [b"\x07", b"\x08", b"\x1a\x05a"])
def test_messages_that_cannot_be_parsed(talk: Conversation, message: bytes) -> None:
    """A message that is none ends the pipeline: nobody knows which operation it was."""
    talk.send_raw(message)
    assert talk.call.code() is StatusCode.INVALID_ARGUMENT
    assert "kv.v1.PipelineRequest" in talk.call.details()


def test_a_message_that_is_too_large(talk: Conversation) -> None:
    """A message beyond what any operation needs ends the pipeline."""
    talk.send(set_(1, "a", "x" * (3 * MIB)))
    assert talk.call.code() is StatusCode.RESOURCE_EXHAUSTED


def test_conditions_around_an_operation(world: World, talk: Conversation) -> None:
    """A failing storage is a code of the operations that it keeps from being done."""
    world.fail("write", errors.StorageFull("/secret is full"), times=1)
    talk.send(set_(1, "a", "1"))
    full = talk.answer()
    assert (full.id, full.code, full.WhichOneof("result")) == (1, StatusCode.RESOURCE_EXHAUSTED.value[0], None)
    assert full.message.startswith("the disk is full")
    world.admission.close()
    talk.send(get(2, "a"))
    assert talk.answer().code == StatusCode.UNAVAILABLE.value[0]


def test_a_client_that_goes_away(world: World, talk: Conversation) -> None:
    """What a cancelled pipeline had begun is done, and counts until it is."""
    hold = world.hold("write")
    talk.send(set_(1, "a", "1"), set_(2, "a", "2"))
    hold.reached()
    talk.call.cancel()
    hold.release()
    while not world.client.call("Get", key="a").found:
        pass
    assert world.client.call("Set", key="b", value="1").success
    assert world.admission.in_flight == 0


def test_too_many_pipelines(make_world: Callable[..., World]) -> None:
    """One pipeline more than there may be is refused, and works when another has ended."""
    world = make_world(threads=8, max_pipelines=2)
    slots = world.slots.pipeline
    first, second = Conversation(world.channel), Conversation(world.channel)
    for conversation in (first, second):
        conversation.send(get(1, "a"))
        assert conversation.answer().id == 1
    third = Conversation(world.channel)
    assert third.call.code() is StatusCode.RESOURCE_EXHAUSTED
    assert third.call.details() == "too many pipelines: limits.max_pipelines is 2; try again"
    assert (slots.open, slots.refused) == (2, 1)
    first.end()
    assert first.call.code() is StatusCode.OK
    assert run(world.channel, [get(1, "a")])[1].code == 0
    second.end()
    assert second.call.code() is StatusCode.OK
    wait_until(lambda: slots.open == 0)


def test_pipelines_leave_threads_for_others(make_world: Callable[..., World], transport: str) -> None:
    """With the threaded transport they have half of them, whatever the limit is, and the refusal says so."""
    if transport != "threaded":
        pytest.skip("a native pipeline has no thread")
    world = make_world(threads=2)
    only = Conversation(world.channel)
    only.send(get(1, "a"))
    assert only.answer().id == 1
    assert Conversation(world.channel).call.details() == "too many pipelines: half of grpc.threads is 1; try again"
    only.end()


def test_a_stopping_server(world: World, talk: Conversation) -> None:
    """A pipeline does not hold the shutdown up."""
    talk.send(set_(1, "a", "1"))
    assert talk.answer().set.success
    stopping = stop_in_background(world, PATIENCE)
    assert talk.call.code() in (StatusCode.CANCELLED, StatusCode.UNAVAILABLE)
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
