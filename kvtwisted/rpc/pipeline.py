"""Pipelines: many Sets, Gets and Deletes over one stream, each tagged by the client. Needs no transport; any thread.

What answers a call of a method answers the operation too.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from .errors import CallError, Code
from .generated import keyvalue_pb2 as kv
from .messages import parse
from .methods import METHODS, varint

#: The method's name.
NAME = "Pipeline"
#: Bytes of one message, once decompressed: the largest Set, and its encoding.
MESSAGE_BYTES = MAX_KEY_BYTES + MAX_VALUE_BYTES + 64

#: The methods that may be operations, by the field that has their request and their answer.
METHODS_BY_FIELD = {"set": METHODS["Set"], "get": METHODS["Get"], "delete": METHODS["Delete"]}

#: One operation: the client's number for it, the field of its answer, its request, and the bytes of the message it came
#: in: the request keeps them in memory, unknown fields included.
Operation = tuple[int, str, Any, int]

_TAGS = {
    field: bytes((kv.PipelineResponse.DESCRIPTOR.fields_by_name[field].number << 3 | 2,)) for field in METHODS_BY_FIELD
}


def read(message: bytes) -> Operation | bytes:
    """The operation in a PipelineRequest, or the answer to one that cannot be begun.

    Raises CallError when the message cannot be parsed so far that it could be answered.
    """
    try:
        request = kv.PipelineRequest.FromString(message)
    except DecodeError:
        return _refused(message)
    field = request.WhichOneof("operation")
    if field is None:
        return failed(request.id, CallError(Code.INVALID_ARGUMENT, "operation: must be one of set, get, delete"))
    return request.id, field, getattr(request, field), len(message)


def _refused(message: bytes) -> bytes:
    """The answer to a message of which the operation cannot be parsed."""
    outer = parse(_Outer, message)
    field = outer.WhichOneof("operation")
    if field is not None:
        try:
            parse(METHODS_BY_FIELD[field].request, getattr(outer, field))
        except CallError as error:
            return failed(outer.id, error)
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


def answered(operation_id: int, field: str, answer: bytes) -> bytes:
    """The PipelineResponse with an answer of the operation's method, which is encoded already."""
    return b"\x08%b%b%b%b" % (varint(operation_id), _TAGS[field], varint(len(answer)), answer)


def failed(operation_id: int, error: CallError) -> bytes:
    """The PipelineResponse for an operation that ends with a status."""
    return kv.PipelineResponse(id=operation_id, code=error.code, message=str(error)).SerializeToString()
