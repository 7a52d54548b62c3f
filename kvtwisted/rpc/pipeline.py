"""Pipelines: many Sets, Gets and Deletes over one stream, each tagged by the client. Needs no transport; any thread.

An operation's request and answer stay encoded here: what answers a call of the method answers the operation too.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from .errors import CallError, Code
from .generated import keyvalue_pb2 as kv
from .messages import parse
from .methods import METHODS, Method

#: The method's name.
NAME = "Pipeline"
#: Open pipelines of the whole server; one more is refused.
MAX_STREAMS = 100
#: Bytes of one message, once decompressed: the largest Set, and its encoding.
MESSAGE_BYTES = MAX_KEY_BYTES + MAX_VALUE_BYTES + 64

#: The methods that may be operations, by the field that has their request and their answer.
_METHODS = {"set": METHODS["Set"], "get": METHODS["Get"], "delete": METHODS["Delete"]}


class Operation(NamedTuple):
    """One operation: the client's number for it, the field of its answer, the method, and the encoded request."""

    id: int
    field: str
    method: Method
    message: bytes

    @property
    def key(self) -> str:
        """The key that it is about."""
        # Field 1 of all three requests.
        return kv.GetRequest.FromString(self.message).key


def _outer(message: type[Message]) -> Any:
    """The same message with its inner messages left encoded, as bytes: on the wire there is no difference."""
    outer = DescriptorProto()
    message.DESCRIPTOR.CopyToProto(outer)
    for field in outer.field:
        if field.type == FieldDescriptorProto.TYPE_MESSAGE:
            field.type = FieldDescriptorProto.TYPE_BYTES
            field.ClearField("type_name")
    pool = DescriptorPool()
    pool.Add(FileDescriptorProto(name=f"{outer.name}.proto", syntax="proto3", message_type=[outer]))
    return GetMessageClass(pool.FindMessageTypeByName(outer.name))


_Request, _Response = _outer(kv.PipelineRequest), _outer(kv.PipelineResponse)


def read(message: bytes) -> Operation | bytes:
    """The operation in a PipelineRequest, or the answer if it has none. Raises CallError when it cannot be parsed."""
    try:
        request = _Request.FromString(message)
    except Exception:
        # Says what is wrong.
        parse(kv.PipelineRequest, message)
        raise
    field = request.WhichOneof("operation")
    if field is None:
        return failed(request.id, CallError(Code.INVALID_ARGUMENT, "operation: must be one of set, get, delete"))
    return Operation(request.id, field, _METHODS[field], getattr(request, field))


def answered(operation: Operation, answer: bytes) -> bytes:
    """The PipelineResponse with the encoded answer of the operation's method."""
    encoded: bytes = _Response(id=operation.id, **{operation.field: answer}).SerializeToString()
    return encoded


def failed(operation_id: int, error: CallError) -> bytes:
    """The PipelineResponse for an operation that ends with a status."""
    return kv.PipelineResponse(id=operation_id, code=error.code, message=str(error)).SerializeToString()
