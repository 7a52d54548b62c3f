"""Requests of many keys, read without making text of each: MGetRequest, MDeleteRequest and MSetRequest.

protobuf decodes each string to text, which the server would encode again. Strings and bytes are the same on the wire:
so here protobuf reads bytes, and one look at all of them together says whether they are ASCII, which is always UTF-8.
What is not all ASCII, or malformed, is not read here (None). Then the ordinary messages decide, which alone say what is
wrong. So a message means the same whichever way it is read; a test holds both together.

Source: https://protobuf.dev/programming-guides/encoding/. Pure functions; any thread.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from .generated import keyvalue_pb2 as kv


def _with_bytes(message: type[Message]) -> Any:
    """The same message with bytes in place of strings, except for keys of maps, which cannot be bytes."""
    twin = DescriptorProto()
    message.DESCRIPTOR.CopyToProto(twin)
    package = f"bytes.{message.DESCRIPTOR.full_name}"
    for fields in (twin.field, *(entry.field[1:] for entry in twin.nested_type)):
        for field in fields:
            if field.type == FieldDescriptorProto.TYPE_STRING:
                field.type = FieldDescriptorProto.TYPE_BYTES
            elif field.type == FieldDescriptorProto.TYPE_MESSAGE:
                field.type_name = f".{package}.{twin.name}.{field.type_name.rpartition('.')[2]}"
    pool = DescriptorPool()
    pool.Add(FileDescriptorProto(name="twin.proto", package=package, syntax="proto3", message_type=[twin]))
    return GetMessageClass(pool.FindMessageTypeByName(f"{package}.{twin.name}"))


_Keys, _Pairs = _with_bytes(kv.MGetRequest), _with_bytes(kv.MSetRequest)


def read_keys(message: bytes) -> tuple[list[bytes], bool] | None:
    """The keys in an MGetRequest or an MDeleteRequest, and whether the former asks for data; or None."""
    try:
        request = _Keys.FromString(message)
    except DecodeError:
        return None
    keys = list(request.keys)
    return (keys, request.as_data) if b"".join(keys).isascii() else None


def read_pairs(message: bytes) -> tuple[dict[bytes, bytes], int] | None:
    """The pairs and the ttl in an MSetRequest; or None."""
    try:
        request = _Pairs.FromString(message)
    except DecodeError:
        return None
    if request.data:
        return None
    request.DiscardUnknownFields()
    values = request.key_values
    pairs: dict[bytes, bytes] = {key.encode(): values[key] for key in values}
    # There may be text that is not in the pairs: of a key that comes again, or of an odd entry. It takes bytes, which
    # only what is left out where it is empty could make up for.
    if request.ByteSize() != len(message) or b"" in pairs or not all(pairs.values()):
        return None
    return (pairs, request.ttl) if b"".join(pairs.values()).isascii() else None
