"""Messages of a pipeline that are made by hand are what protobuf makes, and both ways of reading are one."""

from __future__ import annotations

from typing import Any, Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from kvtwisted.commands.get import Found
from kvtwisted.core.errors import ValueNotText
from kvtwisted.rpc import pipeline
from kvtwisted.rpc.errors import CallError, Code
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.http2.responses import MESSAGE_PREFIX
from kvtwisted.rpc.methods import METHODS, Call
from kvtwisted.rpc.quick_operations import BY_CHANGE, BY_COMMAND, DELETE, GET, INCREMENT, SET, TOUCH

from .support import described
from .test_quick_messages import harmed, hostile_operation, id_

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_value = st.text(max_size=300) | st.sampled_from(["", "v" * 127, "v" * 128, "v" * 16_384, "\u0436" * 100])
_found = st.none() | st.builds(Found, _value.map(str.encode), st.sampled_from([0, 0, 1, 3_155_760_000]))


def _id_field(number: int) -> bytes:
    """The id as it comes in a message."""
    operation = pipeline.read(kv.PipelineRequest(id=number, get=kv.GetRequest(key="k")).SerializeToString())
    assert not isinstance(operation, bytes)
    return operation[0]


def _message(answers: bytearray) -> kv.PipelineResponse:
    """The one answer."""
    compressed, length = MESSAGE_PREFIX.unpack_from(answers)
    assert (compressed, length) == (0, len(answers) - MESSAGE_PREFIX.size)
    return kv.PipelineResponse.FromString(bytes(answers[MESSAGE_PREFIX.size :]))


@given(id_, _found)
def test_answers_to_gets(number: int, found: Found | None) -> None:
    """Values of any size and text, with and without a ttl, and none."""
    answers = bytearray()
    pipeline.append_found(answers, _id_field(number), found)
    got = kv.GetResponse() if found is None else kv.GetResponse(value=found.value.decode(), found=True, ttl=found.ttl)
    assert _message(answers) == kv.PipelineResponse(id=number, get=got)


@given(id_, st.sampled_from([SET, DELETE]))
def test_answers_to_writes(number: int, kind: int) -> None:
    """Those that were done."""
    answers = bytearray()
    pipeline.append_done(answers, _id_field(number), kind)
    done = {"set": kv.SetResponse(success=True)} if kind == SET else {"delete": kv.DeleteResponse(success=True)}
    assert _message(answers) == kv.PipelineResponse(id=number, **done)


@given(id_)
def test_answers_with_a_status(number: int) -> None:
    """They have a code and a sentence."""
    answer = pipeline.failed(_id_field(number), CallError(Code.INTERNAL, "why"))
    assert kv.PipelineResponse.FromString(answer) == kv.PipelineResponse(id=number, code=Code.INTERNAL, message="why")


def test_a_value_that_is_no_text() -> None:
    """Nothing of an answer that cannot be made is left."""
    answers = bytearray(b"before")
    with pytest.raises(ValueNotText):
        pipeline.append_found(answers, _id_field(1), Found(b"\xff", 0))
    assert answers == b"before"


def _outcome(read: Callable[[bytes], Any], message: bytes) -> Any:
    try:
        outcome = read(message)
    except CallError as error:
        return error.code, str(error)
    if isinstance(outcome, bytes) or not outcome[1] & BY_COMMAND:
        return outcome
    *plain, command = outcome
    return plain, described(command)


@given(harmed(hostile_operation))
@example(b"\x08\x03\x1a\x03\x0a\x01\xff")
@example(b"\x1a\x00")
def test_both_ways_of_reading(message: bytes) -> None:
    """Whatever a message is, it has one outcome: an operation, an answer to what cannot be begun, or an error."""
    assert _outcome(pipeline.read, message) == _outcome(pipeline._read, message)


_condition = st.sampled_from([{}, {"condition": kv.Condition()}, {"condition": kv.Condition(value=b"x")}])
_data = st.sampled_from(
    [{}, {"data": b""}, {"data": b"\xff"}, {"data": b"d"}, {"value": "v"}, {"value": "", "data": b"d"}]
)
_asked = st.one_of(
    st.builds(lambda data, condition: {"set": kv.SetRequest(key="k", ttl=3, **data, **condition)}, _data, _condition),
    st.builds(lambda a, b: {"get": kv.GetRequest(key="k", as_data=a, with_etag=b)}, st.booleans(), st.booleans()),
    st.builds(lambda condition: {"delete": kv.DeleteRequest(key="k", **condition)}, _condition),
    st.builds(lambda delta: {"increment": kv.IncrementRequest(key="k", delta=delta, ttl=3)}, st.integers(-200, 200)),
    st.builds(lambda condition: {"touch": kv.TouchRequest(key="k", ttl=3, **condition)}, _condition),
)


@given(id_, _asked)
def test_requests_of_their_own(number: int, asked: dict[str, Any]) -> None:
    """An operation is what its method is asked, whatever is in it; its key and its size are known before."""
    operation = pipeline.read(kv.PipelineRequest(id=number, **asked).SerializeToString())
    assert not isinstance(operation, bytes)
    ((name, request),) = asked.items()
    method = METHODS[name.capitalize()]
    command = method.read(request.SerializeToString(), Call(7.0, 100))
    assert operation[2] == b"k"
    assert pipeline.method_of(operation[1]) is method
    assert described(pipeline.command_of(operation, 7.0)) == described(command)
    assert pipeline.size_of(operation) == command.size


@given(id_, st.sampled_from([0, BY_COMMAND, BY_CHANGE]))
def test_each_answer_is_in_its_field(number: int, how: int) -> None:
    """However the operation was read."""
    for kind, name, done in (
        (SET, "set", kv.SetResponse(success=True, revision=5)),
        (GET, "get", kv.GetResponse(found=True, data=b"\xff")),
        (DELETE, "delete", kv.DeleteResponse(success=True)),
        (INCREMENT, "increment", kv.IncrementResponse(success=True, value=3)),
        (TOUCH, "touch", kv.TouchResponse(success=True, found=True)),
    ):
        fields: Any = {name: done}
        answer = pipeline.answered(_id_field(number), kind | how, done.SerializeToString())
        assert kv.PipelineResponse.FromString(answer) == kv.PipelineResponse(id=number, **fields)
