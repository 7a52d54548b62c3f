"""Pipelines: many operations of one key over one stream, each tagged by the client. Needs no transport; any thread.

An operation means what the request of its method means, and its answer has that of the method in it. Those that come
most often are read and made without protobuf: see Note [Plain messages] in `kvtwisted.rpc.quick_messages`.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from ..commands.command import NEVER_TEXT, Command
from ..commands.conditional import MutateKey
from ..commands.deciding import Outcome
from ..commands.delete import Delete
from ..commands.get import Found, Get
from ..commands.mutations import SetValue
from ..commands.set import Set
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from . import deciding
from .answers import SUCCESS, encoded_get_response
from .deciding import SET_IF
from .errors import CallError, Code
from .generated import keyvalue_pb2 as kv
from .messages import parse
from .methods import METHODS, Call, Method
from .quick_operations import (
    BY_CHANGE,
    BY_COMMAND,
    DELETE,
    GET,
    INCREMENT,
    LONGEST_ID,
    SET,
    TAG,
    TOUCH,
    Operation,
    read_operation,
)  # fmt: skip
from .varints import varint

#: The method's name.
NAME = "Pipeline"
#: Bytes of one message, once decompressed: the largest Set, whose condition has a value too, and its encoding.
MESSAGE_BYTES = MAX_KEY_BYTES + 2 * MAX_VALUE_BYTES + 64

#: The methods that may be operations, by the tag of the field that has their request and their answer.
METHODS_BY_KIND: dict[int, Method] = {
    SET: METHODS["Set"],
    GET: METHODS["Get"],
    DELETE: METHODS["Delete"],
    INCREMENT: METHODS["Increment"],
    TOUCH: METHODS["Touch"],
}
#: Those whose operations may be BY_CHANGE.
_DECIDING = {SET: SET_IF, INCREMENT: deciding.INCREMENT, TOUCH: deciding.TOUCH}
_KINDS = {"set": SET, "get": GET, "delete": DELETE, "increment": INCREMENT, "touch": TOUCH}
#: The tags of the fields with their answers, where those are others.
_ANSWERS = {INCREMENT: 0x3A, TOUCH: 0x42}
#: For commands that are begun later.
_LATER = Call(math.inf, MESSAGE_BYTES)


def read(message: bytes) -> Operation | bytes:
    """The operation in a PipelineRequest, or the answer to one that cannot be begun.

    Raises CallError when the message cannot be parsed so far that it could be answered.
    """
    return read_operation(message) or _read(message)


def _read(message: bytes) -> Operation | bytes:
    """The same by protobuf, whatever the message."""
    try:
        request = kv.PipelineRequest.FromString(message)
    except DecodeError:
        return _refused(message)
    id_field, field = _id_field(request.id), request.WhichOneof("operation")
    if field is None:
        return failed(id_field, CallError(Code.INVALID_ARGUMENT, f"operation: must be one of {', '.join(_KINDS)}"))
    kind = _KINDS[field]
    asked = getattr(request, field)
    command = METHODS_BY_KIND[kind].make(asked, _LATER)
    if isinstance(command, Set) and command.value[:1] != NEVER_TEXT:
        return id_field, kind, command.key, command.value, command.ttl
    if isinstance(command, Delete) or (isinstance(command, Get) and command.encode is encoded_get_response):
        return id_field, kind, command.key, b"", 0
    if isinstance(command, MutateKey) and kind in _DECIDING:
        return id_field, kind | BY_CHANGE, command.mutation.key, b"", (command.mutation, command.condition)
    return id_field, kind | BY_COMMAND, asked.key.encode(), b"", command


def _refused(message: bytes) -> bytes:
    """The answer to a message of which the operation cannot be parsed."""
    outer = parse(_Outer, message)
    field = outer.WhichOneof("operation")
    if field is not None:
        try:
            parse(METHODS_BY_KIND[_KINDS[field]].request, getattr(outer, field))
        except CallError as error:
            return failed(_id_field(outer.id), error)
    parse(kv.PipelineRequest, message)
    raise AssertionError("a message that can be parsed was taken for one that cannot")


def _outer() -> Any:
    """PipelineRequest with its operation left encoded, as bytes: on the wire there is no difference."""
    outer = DescriptorProto()
    kv.PipelineRequest.DESCRIPTOR.CopyToProto(outer)
    for field in outer.field:
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
    pool = DescriptorPool()
    package = kv.DESCRIPTOR.package
    pool.Add(FileDescriptorProto(name="outer.proto", package=package, syntax="proto3", message_type=[outer]))
    return GetMessageClass(pool.FindMessageTypeByName(f"{package}.{outer.name}"))


_Outer = _outer()


def command_of(operation: Operation, deadline: float) -> Command:
    """The command of an operation. To be asked for once."""
    _, kind, key, value, more = operation
    if kind == SET:
        return Set(key, value, more, deadline)
    if kind == GET:
        return Get(key, deadline, encoded_get_response)
    if kind == DELETE:
        return Delete(key, deadline)
    if kind & BY_CHANGE:
        return _DECIDING[kind & TAG].single(more, deadline)
    command: Command = more
    command.deadline = deadline
    return command


def method_of(kind: int) -> Method:
    """The method of operations of a kind."""
    return METHODS_BY_KIND[kind & TAG]


def encoded_outcome(kind: int, outcome: Outcome) -> bytes:
    """The method's answer to an operation that is BY_CHANGE."""
    return _DECIDING[kind & TAG].encode(outcome)


def size_of(operation: Operation) -> int:
    """Bytes of its keys and values."""
    _, kind, key, value, more = operation
    if kind < BY_COMMAND:
        return len(key) + len(value)
    if kind & BY_COMMAND:
        size: int = more.size
        return size
    mutation, condition = more
    size = len(key) + (len(condition.operand) if condition else 0)
    return size + len(mutation.value) if isinstance(mutation, SetValue) else size


def _id_field(number: int) -> bytes:
    return b"\x08" + varint(number)


def answered(id_field: bytes, kind: int, answer: bytes) -> bytes:
    """The PipelineResponse with an answer of the operation's method, which is encoded already."""
    if kind >= INCREMENT:
        kind &= TAG
        kind = _ANSWERS.get(kind, kind)
    return b"%b%c%b%b" % (id_field, kind, varint(len(answer)), answer)


def failed(id_field: bytes, error: CallError) -> bytes:
    """The PipelineResponse for an operation that ends with a status."""
    return id_field + kv.PipelineResponse(code=error.code, message=str(error)).SerializeToString()


def append(answers: bytearray, answer: bytes) -> None:
    """Append a PipelineResponse with gRPC's prefix: not compressed, and its length."""
    answers += len(answer).to_bytes(PREFIX_BYTES, "big")
    answers += answer


def append_done(answers: bytearray, id_field: bytes, kind: int) -> None:
    """The same with the answer to a write that was done. It unrolls `append` of what is `answered` with SUCCESS."""
    answers += id_field.join(_AROUND_ID[kind][len(id_field)])


def append_found(answers: bytearray, id_field: bytes, found: Found | None) -> None:
    """The same with the answer to a Get.

    It unrolls `append` of what is `answered` with `encoded_get_response` for values without a ttl: what most are.
    """
    if found is not None:
        value, ttl = found
        if value and not ttl and value.isascii():
            prefix, head = _before_value(len(value), len(id_field))
            answers += prefix
            answers += id_field
            answers += head
            answers += value
            answers += _IS_FOUND
            return
    append(answers, answered(id_field, GET, encoded_get_response(found)))


#: Bytes in front of each message. Their first says that it is not compressed, as that of a small number does.
PREFIX_BYTES = 5
#: What stands behind a value in a GetResponse: `found`.
_IS_FOUND = b"\x10\x01"


@lru_cache(4096)
def _before_value(size: int, id_size: int) -> tuple[bytes, bytes]:
    """What stands before an id and behind it, up to a value of so many bytes."""
    start = b"\x0a" + varint(size)
    head = b"%c%b%b" % (GET, varint(len(start) + size + len(_IS_FOUND)), start)
    return (id_size + len(head) + size + len(_IS_FOUND)).to_bytes(PREFIX_BYTES, "big"), head


#: For each kind of write, what stands around an id of so many bytes in the answer to one that was done.
_AROUND_ID = {
    kind: [((size + len(done)).to_bytes(PREFIX_BYTES, "big"), done) for size in range(LONGEST_ID + 1)]
    for kind, done in ((kind, answered(b"", kind, SUCCESS)) for kind in (SET, DELETE))
}
