"""Conditions, data, numbers and ttls in pipelines: each operation is what its method would be, in order by key."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.commands.conditions import etag_of
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .support import MIB, World
from .test_pipeline import Conversation, get, run, set_

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

ABSENT = kv.Condition(absent=True)
FAILED = "the condition does not hold"


def asked(number: int, **operation: Any) -> kv.PipelineRequest:
    """An operation."""
    return kv.PipelineRequest(id=number, **operation)


def without_revision(answer: kv.PipelineResponse) -> kv.PipelineResponse:
    """The same, but for what a test cannot know."""
    result = getattr(answer, answer.WhichOneof("result") or "", None)
    if result is not None and "revision" in result.DESCRIPTOR.fields_by_name:
        result.ClearField("revision")
    return answer


@pytest.mark.parametrize("compression", [grpc.Compression.NoCompression, grpc.Compression.Gzip])
def test_operations_of_every_kind(world: World, compression: grpc.Compression) -> None:
    """Sent all at once: those on one key see each other in order."""
    answers = run(
        world.channel,
        [
            asked(1, set=kv.SetRequest(key="a", data=b"\xff", condition=ABSENT)),
            asked(2, set=kv.SetRequest(key="a", value="x", condition=ABSENT)),
            get(3, "a"),
            asked(4, get=kv.GetRequest(key="a", as_data=True, with_etag=True)),
            asked(5, set=kv.SetRequest(key="a", data=b"\xff\x01", ttl=60)),
            asked(6, touch=kv.TouchRequest(key="a", ttl=90)),
            asked(7, get=kv.GetRequest(key="a", as_data=True)),
            asked(8, delete=kv.DeleteRequest(key="a", condition=kv.Condition(value=b"other"))),
            asked(9, delete=kv.DeleteRequest(key="a", condition=kv.Condition(etag=etag_of(b"\xff\x01")))),
            asked(10, get=kv.GetRequest(key="a", as_data=True)),
            asked(11, increment=kv.IncrementRequest(key="n", delta=5, ttl=60)),
            asked(12, increment=kv.IncrementRequest(key="n", delta=-7)),
            get(13, "n"),
            asked(14, touch=kv.TouchRequest(key="missing", ttl=5)),
            set_(15, "n", "many"),
            asked(16, increment=kv.IncrementRequest(key="n", delta=1)),
        ],
        compression=compression,
    )
    done: Any = {"success": True}
    expected = [
        kv.PipelineResponse(id=1, set=kv.SetResponse(**done)),
        kv.PipelineResponse(id=2, set=kv.SetResponse(error=FAILED, condition_failed=True, etag=etag_of(b"\xff"))),
        kv.PipelineResponse(
            id=3, code=StatusCode.FAILED_PRECONDITION.value[0],
            message="key: the value is not UTF-8 text; it can be had as data, with as_data",
        ),
        kv.PipelineResponse(id=4, get=kv.GetResponse(data=b"\xff", found=True, etag=etag_of(b"\xff"))),
        kv.PipelineResponse(id=5, set=kv.SetResponse(**done)),
        kv.PipelineResponse(id=6, touch=kv.TouchResponse(found=True, **done)),
        kv.PipelineResponse(id=7, get=kv.GetResponse(data=b"\xff\x01", found=True, ttl=90)),
        kv.PipelineResponse(
            id=8, delete=kv.DeleteResponse(error=FAILED, condition_failed=True, etag=etag_of(b"\xff\x01"))
        ),
        kv.PipelineResponse(id=9, delete=kv.DeleteResponse(**done)),
        kv.PipelineResponse(id=10, get=kv.GetResponse()),
        kv.PipelineResponse(id=11, increment=kv.IncrementResponse(value=5, created=True, **done)),
        kv.PipelineResponse(id=12, increment=kv.IncrementResponse(value=-2, **done)),
        kv.PipelineResponse(id=13, get=kv.GetResponse(value="-2", found=True, ttl=60)),
        kv.PipelineResponse(id=14, touch=kv.TouchResponse(**done)),
        kv.PipelineResponse(id=15, set=kv.SetResponse(**done)),
        kv.PipelineResponse(
            id=16,
            increment=kv.IncrementResponse(
                error="key: the value is not a decimal number of 64 bits, such as -12; it can be set, not incremented"
            ),
        ),
    ]  # fmt: skip
    for answer in (answers[1].set, answers[6].touch, answers[9].delete, answers[11].increment, answers[12].increment):
        assert answer.revision > 0
    assert answers[12].increment.revision > answers[11].increment.revision
    assert [without_revision(answers[number]) for number in range(1, 17)] == expected


def test_what_is_wrong_is_the_answer(world: World) -> None:
    """In the field of the operation, and the pipeline goes on."""
    talk = Conversation(world.channel)
    for number, operation, sentence in (
        (1, {"set": kv.SetRequest(key="a", value="1", data=b"1")}, "value and data: both were sent"),
        (2, {"set": kv.SetRequest(key="a", condition=kv.Condition())}, "condition: must have one of"),
        (3, {"delete": kv.DeleteRequest(key="a", condition=kv.Condition(absent=False))}, "condition.absent: must be"),
        (4, {"increment": kv.IncrementRequest(delta=1)}, "key: must not be empty"),
        (5, {"touch": kv.TouchRequest(key="a", ttl=-1)}, "ttl: must not be negative"),
        (6, {"get": kv.GetRequest(as_data=True)}, "key: must not be empty"),
        (7, {"set": kv.SetRequest(key="k" * 1025, data=b"\xff")}, "key: too long"),
    ):
        talk.send(asked(number, **operation))
        answer = talk.answer()
        assert (answer.id, answer.code, answer.WhichOneof("result")) == (number, 0, next(iter(operation)))
        assert getattr(answer, next(iter(operation))).error.startswith(sentence)
    talk.send(asked(8, set=kv.SetRequest(key="a", value="1", condition=ABSENT)))
    assert talk.answer().set.success
    talk.end()
    assert world.stored() == {"a": "1"}


def test_the_largest_operation(world: World) -> None:
    """A value, and a condition of another one."""
    world.client.call("Set", key="a", data=b"\xff" * MIB)
    largest = kv.SetRequest(key="a", data=b"\xfe" * MIB, ttl=1, condition=kv.Condition(value=b"\xff" * MIB))
    again = kv.SetRequest(key="a", data=b"", condition=kv.Condition(value=b"\xff" * MIB))
    answers = run(
        world.channel,
        [asked(1, set=largest), asked(2, get=kv.GetRequest(key="a", as_data=True)), asked(3, set=again)],
    )
    assert answers[1].set.success
    assert answers[2].get.data == b"\xfe" * MIB
    assert answers[3].set.etag == etag_of(b"\xfe" * MIB)


def test_many_on_few_keys(world: World) -> None:
    """Whatever comes: each sees all before it on its key, and the counters come out right."""
    dice = random.Random(16)
    operations: list[kv.PipelineRequest] = []
    meant: dict[int, tuple[str, Any]] = {}
    numbers: dict[str, int] = {}
    for number in range(600):
        key = dice.choice("abcde")
        kind = dice.choice(["add", "add", "get", "data", "if", "touch", "gone"])
        now = numbers.get(key)
        if kind == "add":
            operations.append(asked(number, increment=kv.IncrementRequest(key=key, delta=number)))
            numbers[key] = (now or 0) + number
            meant[number] = ("increment", numbers[key])
        elif kind == "get":
            operations.append(get(number, key))
            meant[number] = ("text", "" if now is None else str(now))
        elif kind == "data":
            operations.append(asked(number, get=kv.GetRequest(key=key, as_data=True)))
            meant[number] = ("data", b"" if now is None else b"%d" % now)
        elif kind == "if":
            right = dice.random() < 0.5 and now is not None
            condition = kv.Condition(value=b"%d" % now if right and now is not None else b"no")
            operations.append(asked(number, set=kv.SetRequest(key=key, value=str(number), condition=condition)))
            meant[number] = ("set", right)
            if right:
                numbers[key] = number
        elif kind == "touch":
            operations.append(asked(number, touch=kv.TouchRequest(key=key, ttl=1000)))
            meant[number] = ("touch", now is not None)
        else:
            operations.append(asked(number, delete=kv.DeleteRequest(key=key, condition=kv.Condition(present=True))))
            meant[number] = ("delete", now is not None)
            numbers.pop(key, None)
    answers = run(world.channel, operations)
    told = {
        "increment": lambda answer: answer.increment.value,
        "text": lambda answer: answer.get.value,
        "data": lambda answer: answer.get.data,
        "set": lambda answer: answer.set.success,
        "touch": lambda answer: answer.touch.found,
        "delete": lambda answer: answer.delete.success,
    }
    assert {number: (kind, told[kind](answers[number])) for number, (kind, _) in meant.items()} == meant
    assert world.admission.in_flight == 0
