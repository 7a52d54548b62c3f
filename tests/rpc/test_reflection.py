"""Server reflection, as tools such as grpcurl use it."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any, Callable

import grpc
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc import StatusCode
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from kvtwisted.rpc import reflection
from kvtwisted.rpc.methods import SERVICES
from kvtwisted.rpc.reflection import NAMES
from kvtwisted.rpc.stream_slots import MAX_REFLECTION_STREAMS

from .support import CLASSES, PATIENCE, World, wait_until

ALL = {*SERVICES, "grpc.health.v1.Health", *NAMES}


class Stream:
    """An open reflection stream, fed one request at a time."""

    def __init__(self, channel: grpc.Channel, name: str = NAMES[0]) -> None:
        self._requests: queue.Queue[bytes | None] = queue.Queue()
        self.call: Any = channel.stream_stream(f"/{name}/ServerReflectionInfo")(
            iter(self._requests.get, None), timeout=PATIENCE
        )

    def ask(self, **fields: str) -> ServerReflectionResponse:
        """The response to one request."""
        return self.ask_raw(ServerReflectionRequest(**fields).SerializeToString())

    def ask_raw(self, message: bytes) -> ServerReflectionResponse:
        """The response to one encoded request."""
        self._requests.put(message)
        return ServerReflectionResponse.FromString(next(self.call))

    def end(self) -> None:
        """Say that nothing more comes."""
        self._requests.put(None)


@pytest.fixture(params=NAMES)
def stream(world: World, request: pytest.FixtureRequest) -> Iterator[Stream]:
    """A stream under each name of the protocol."""
    stream = Stream(world.channel, request.param)
    yield stream
    stream.end()


def files(response: ServerReflectionResponse) -> list[FileDescriptorProto]:
    """The files in a response."""
    return [FileDescriptorProto.FromString(data) for data in response.file_descriptor_response.file_descriptor_proto]


def test_list_services(stream: Stream) -> None:
    """Every service of the server is listed."""
    services = stream.ask(list_services="").list_services_response.service
    assert {service.name for service in services} == ALL


@pytest.mark.parametrize("service", sorted(ALL))
def test_every_service_is_described(stream: Stream, service: str) -> None:
    """The files of each service, with all they depend on, are a descriptor set that loads by itself."""
    pool = DescriptorPool()
    for file in reversed(files(stream.ask(file_containing_symbol=service))):
        pool.Add(file)
    assert pool.FindServiceByName(service).methods


@pytest.mark.parametrize("service", SERVICES)
def test_a_client_made_by_reflection(world: World, service: str) -> None:
    """A client that knows nothing but the address can call the methods, under both names."""
    database = ProtoReflectionDescriptorDatabase(world.channel)
    descriptor = DescriptorPool(database).FindServiceByName(service)
    assert {method.name for method in descriptor.methods} == CLASSES.keys()
    method = descriptor.FindMethodByName("Set")
    stub = world.channel.unary_unary(
        f"/{service}/Set",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=GetMessageClass(method.output_type).FromString,
    )
    assert stub(GetMessageClass(method.input_type)(key="a", value="1"), timeout=PATIENCE).success
    assert world.stored() == {"a": "1"}


def test_symbols_and_files(stream: Stream) -> None:
    """Messages, methods and files can be asked for by name; one that does not exist is answered NOT_FOUND."""
    by_message = files(stream.ask(file_containing_symbol="kv.v1.SetRequest"))
    method = stream.ask(file_containing_symbol="kv.v1.KeyValueService.Set")
    assert method.original_request.file_containing_symbol == "kv.v1.KeyValueService.Set"
    by_method = files(method)
    by_name = files(stream.ask(file_by_filename=by_message[0].name))
    assert by_message == by_method == by_name
    missing = stream.ask(file_containing_symbol="kv.v1.Nothing").error_response
    assert missing.error_code == StatusCode.NOT_FOUND.value[0]


def test_a_reflection_request_that_cannot_be_parsed(world: World) -> None:
    """The stream ends with INVALID_ARGUMENT."""
    with pytest.raises(grpc.RpcError) as failure:
        Stream(world.channel).ask_raw(b"\x0a\x01\xff")
    assert failure.value.code() is StatusCode.INVALID_ARGUMENT


def test_many_streams_do_not_starve_the_calls(make_world: Callable[..., World]) -> None:
    """Of 50 streams a few are served and the others refused, and Get works beside them on a single thread."""
    world = make_world(threads=1)
    streams = [Stream(world.channel) for _ in range(50)]
    codes, sentences = [], set()
    for stream in streams:
        try:
            assert stream.ask(list_services="").list_services_response.service
        except grpc.RpcError as failure:
            codes.append(failure.code())
            sentences.add(failure.details())
    assert codes == [StatusCode.RESOURCE_EXHAUSTED] * (50 - MAX_REFLECTION_STREAMS)
    assert sentences == {f"too many reflection streams: their limit is {MAX_REFLECTION_STREAMS}; try again"}
    assert world.slots.reflection.refused == len(codes)
    assert world.client.call("Set", key="a", value="1").success
    assert world.client.call("Get", key="a").found
    for stream in streams:
        stream.end()
        stream.call.code()
    assert Stream(world.channel).ask(list_services="").list_services_response.service


def test_a_stream_is_bounded_in_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that stays open for too long is ended, and its slot is free."""
    monkeypatch.setattr(reflection, "STREAM_SECONDS", 0.0)
    for _ in range(MAX_REFLECTION_STREAMS + 1):
        stream = Stream(world.channel)
        assert stream.call.code() in (StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED)
        wait_until(lambda: world.slots.reflection.open == 0)


def test_streams_do_not_hold_the_shutdown_up(world: World) -> None:
    """A stopping server ends them at once."""
    stream = Stream(world.channel)
    stream.ask(list_services="")
    world.server.stop(PATIENCE)
    assert stream.call.code() in (StatusCode.CANCELLED, StatusCode.UNAVAILABLE)
