"""What of a request says how keys are to be changed, and under which condition: from messages to parts of commands.

Pure functions; any thread. What is wrong with a request beyond what commands check raises InvalidRequest.
"""

from __future__ import annotations

from ..commands.conditions import Condition, Test
from ..commands.mutations import AddNumber, DeleteKey, Mutation, SetValue, TouchKey
from ..core.errors import InvalidRequest
from .generated import keyvalue_pb2 as kv

_VALUE = Test.VALUE
#: Makes a tuple in half the time that its class takes.
_make = tuple.__new__


def value_of(request: kv.SetRequest, where: str = "") -> bytes:
    """The value that is to be stored."""
    if not request.HasField("data"):
        return request.value.encode()
    if request.value:
        raise InvalidRequest(f"{where}value and data: both were sent; a value is one or the other")
    data: bytes = request.data
    return data


def condition_of(message: kv.Condition, field: str = "condition") -> Condition:
    """The condition in a message."""
    name = message.WhichOneof("test")
    if name is None:
        raise InvalidRequest(f"{field}: must have one of absent, present, value and etag")
    if name == "value":
        return Condition(Test.VALUE, message.value)
    if name == "etag":
        return Condition(Test.ETAG, message.etag.encode())
    if not getattr(message, name):
        raise InvalidRequest(f"{field}.{name}: must be true where it is sent")
    return Condition(Test.ABSENT if name == "absent" else Test.PRESENT)


def set_value(request: kv.SetRequest, where: str = "") -> SetValue:
    """What a SetRequest stores."""
    return SetValue(request.key.encode(), value_of(request, where), request.ttl)


def add_number(request: kv.IncrementRequest) -> AddNumber:
    """What an IncrementRequest adds."""
    return AddNumber(request.key.encode(), request.delta, request.ttl)


def touch_key(request: kv.TouchRequest) -> TouchKey:
    """What a TouchRequest touches."""
    return TouchKey(request.key.encode(), request.ttl)


def check_of(message: kv.Check, number: int) -> tuple[bytes, Condition]:
    """The one of a Transact's checks that has this number, from 0 on."""
    condition = message.condition
    if condition.WhichOneof("test") == "value":
        return message.key.encode(), _make(Condition, (_VALUE, condition.value))
    return message.key.encode(), condition_of(condition, f"checks[{number}].condition")


def numbered_mutation_of(message: kv.Mutation, number: int) -> Mutation:
    """The one of a Transact's mutations that has this number, from 0 on."""
    if message.WhichOneof("change") == "set":
        request = message.set
        if not (request.HasField("data") or request.HasField("condition")):
            # What `set_value` makes of it.
            return _make(SetValue, (request.key.encode(), request.value.encode(), request.ttl))
    return mutation_of(message, f"mutations[{number}].")


def mutation_of(message: kv.Mutation, where: str) -> Mutation:
    """One mutation of a Transact; messages of errors begin with `where`, as its commands' do."""
    kind = message.WhichOneof("change")
    if kind is None:
        raise InvalidRequest(f"{where}change: must be one of set, delete, touch and increment")
    if kind == "increment":
        return add_number(message.increment)
    where += f"{kind}."
    if getattr(message, kind).HasField("condition"):
        raise InvalidRequest(f"{where}condition: must be absent; conditions of a Transact stand in its checks")
    if kind == "set":
        return set_value(message.set, where)
    return touch_key(message.touch) if kind == "touch" else DeleteKey(message.delete.key.encode())
