"""Server reflection, so that tools such as grpcurl can list and call the services without the proto file."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest

from . import health
from .generated import keyvalue_pb2
from .messages import parse
from .methods import SERVICES

#: The protocol's two names; their messages are the same on the wire, and so is the answer.
NAMES = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")

#: Seconds that a stream may stay open.
STREAM_SECONDS = 30.0


class Reflection:
    """Describes every service of this server. Needs no transport; safe from any thread."""

    def __init__(self) -> None:
        self._pool = pool = DescriptorPool()
        for module in (keyvalue_pb2, health_pb2, reflection_pb2):
            pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
        pool.AddSerializedFile(_without_package().SerializeToString())
        pool.AddSerializedFile(_reflection_v1().SerializeToString())
        self._servicer: Any = reflection.ReflectionServicer((*SERVICES, health.SERVICE, *NAMES), pool)

    def answer(self, message: bytes) -> bytes:
        """The encoded answer to one message of a reflection stream. Raises CallError when it cannot be parsed."""
        request = parse(ServerReflectionRequest, message)
        lookup = parse(ServerReflectionRequest, message)
        if request.HasField("file_containing_symbol"):
            lookup.file_containing_symbol = self._findable(request.file_containing_symbol)
        # The library only has the loop over a whole stream; this is a stream of one.
        (response,) = self._servicer.ServerReflectionInfo(iter([lookup]), None)
        response.original_request.CopyFrom(request)
        answer: bytes = response.SerializeToString()
        return answer

    def _findable(self, symbol: str) -> str:
        """A symbol in the same file that the library can find: it knows no methods, which the protocol asks for."""
        try:
            service: str = self._pool.FindMethodByName(symbol).containing_service.full_name
        except KeyError:
            return symbol
        return service


def _without_package() -> FileDescriptorProto:
    """A file for the service's name without a package, with the messages of the one that has it."""
    original = FileDescriptorProto.FromString(keyvalue_pb2.DESCRIPTOR.serialized_pb)
    return FileDescriptorProto(
        name="keyvalue_without_package.proto",
        syntax=original.syntax,
        dependency=[original.name],
        service=original.service,
    )


def _reflection_v1() -> FileDescriptorProto:
    """The reflection protocol's own file under its final name, made of the v1alpha one that the library has."""
    alpha, final = (name.rpartition(".")[0] for name in reversed(NAMES))
    original: bytes = reflection_pb2.DESCRIPTOR.serialized_pb
    proto = FileDescriptorProto.FromString(original)
    proto.name, proto.package = "grpc/reflection/v1/reflection.proto", final
    for message in proto.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = field.type_name.replace(alpha, final)
    for method in proto.service[0].method:
        method.input_type = method.input_type.replace(alpha, final)
        method.output_type = method.output_type.replace(alpha, final)
    return proto
