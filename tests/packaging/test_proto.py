"""proto/keyvalue.proto is the contract, and the generated code is what it generates."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from kvtwisted.rpc.generated import keyvalue_pb2

ROOT = Path(__file__).parents[2]
NAME = keyvalue_pb2.DESCRIPTOR.name

RESULT = "success=1:bool error=2:string"

#: The released contract: a field here never changes its name, number or type. New fields are added at the end.
CONTRACT = {
    "SetRequest": "key=1:string value=2:string ttl=3:int64",
    "SetResponse": RESULT,
    "GetRequest": "key=1:string",
    "GetResponse": "value=1:string found=2:bool error=3:string ttl=4:int64",
    "DeleteRequest": "key=1:string",
    "DeleteResponse": RESULT,
    "ScanRequest": "prefix=1:string limit=2:int64 cursor=3:string",
    "ScanKeysResponse": "keys=1:string* error=2:string next_cursor=3:string",
    "ScanKeyValuesResponse": "key_values=1:map error=2:string next_cursor=3:string",
    "MSetRequest": "key_values=1:map ttl=2:int64",
    "MSetResponse": RESULT,
    "MGetRequest": "keys=1:string*",
    "MGetResponse": "key_values=1:map error=2:string",
    "MDeleteRequest": "keys=1:string*",
    "MDeleteResponse": RESULT,
    "GetConfigRequest": "",
    "GetConfigResponse": "config=1:string error=2:string",
    "UpdateConfigRequest": "config=1:string",
    "UpdateConfigResponse": RESULT,
    "PipelineRequest": "id=1:uint64 set=2:SetRequest get=3:GetRequest delete=4:DeleteRequest",
    "PipelineResponse": (
        "id=1:uint64 set=2:SetResponse get=3:GetResponse delete=4:DeleteResponse code=5:int32 message=6:string"
    ),
}

#: Request and response of each method.
METHODS = {
    "Set": ("SetRequest", "SetResponse"),
    "Get": ("GetRequest", "GetResponse"),
    "Delete": ("DeleteRequest", "DeleteResponse"),
    "ScanKeys": ("ScanRequest", "ScanKeysResponse"),
    "ScanKeyValues": ("ScanRequest", "ScanKeyValuesResponse"),
    "MSet": ("MSetRequest", "MSetResponse"),
    "MGet": ("MGetRequest", "MGetResponse"),
    "MDelete": ("MDeleteRequest", "MDeleteResponse"),
    "GetConfig": ("GetConfigRequest", "GetConfigResponse"),
    "UpdateConfig": ("UpdateConfigRequest", "UpdateConfigResponse"),
    "Pipeline": ("PipelineRequest", "PipelineResponse"),
}


def compiled(folder: Path) -> FileDescriptorProto:
    """The descriptor of proto/keyvalue.proto, comments included, as today's protoc compiles it."""
    output = folder / "descriptors"
    mapping = f"--proto_path={Path(NAME).parent}={ROOT / 'proto'}"
    arguments = ["protoc", mapping, "--include_source_info", f"--descriptor_set_out={output}", NAME]
    assert protoc.main(arguments) == 0
    (file,) = FileDescriptorSet.FromString(output.read_bytes()).file
    return file


def generated() -> FileDescriptorProto:
    """The descriptor in the generated module."""
    return FileDescriptorProto.FromString(keyvalue_pb2.DESCRIPTOR.serialized_pb)


def without_json_names(message: DescriptorProto) -> None:
    """Clear what protoc adds to a descriptor set but not to generated code."""
    for field in message.field:
        field.ClearField("json_name")
    for nested in message.nested_type:
        without_json_names(nested)


def spelled(field: FieldDescriptorProto) -> str:
    """A field in the notation of CONTRACT."""
    if field.type == field.TYPE_MESSAGE:
        kind = field.type_name.rpartition(".")[2]
        return f"{field.name}={field.number}:{'map' if kind == 'KeyValuesEntry' else kind}"
    kind = FieldDescriptorProto.Type.Name(field.type)[len("TYPE_") :].lower()
    return f"{field.name}={field.number}:{kind}{'*' if field.label == field.LABEL_REPEATED else ''}"


def test_generated_code_is_not_stale(tmp_path: Path) -> None:
    """The generated module holds exactly what the proto file says; `make proto` generates it anew."""
    expected = compiled(tmp_path)
    expected.ClearField("source_code_info")
    for message in expected.message_type:
        without_json_names(message)
    assert generated() == expected


def test_generated_types_are_not_stale() -> None:
    """The type stub names the same messages and fields as the module."""
    stub = ast.parse(Path(keyvalue_pb2.__file__).with_suffix(".pyi").read_text())
    fields = {
        node.name: ast.literal_eval(next(s.value for s in node.body if isinstance(s, ast.Assign)))
        for node in stub.body
        if isinstance(node, ast.ClassDef)
    }
    assert fields == {m.name: tuple(f.name for f in m.field) for m in generated().message_type}


def test_messages_keep_their_fields() -> None:
    """Names, numbers and types are those that clients were built with."""
    assert {m.name: " ".join(map(spelled, m.field)) for m in generated().message_type} == CONTRACT


def test_service_has_exactly_these_methods() -> None:
    """Package, service, and every method's two messages are those that clients were built with; one is of streams."""
    file = generated()
    assert (file.package, [s.name for s in file.service]) == ("kv.v1", ["KeyValueService"])
    signatures = {m.name: (m.input_type, m.output_type) for m in file.service[0].method}
    assert signatures == {name: (f".kv.v1.{a}", f".kv.v1.{b}") for name, (a, b) in METHODS.items()}
    streaming = {m.name for m in file.service[0].method if m.client_streaming or m.server_streaming}
    both_ways = {m.name for m in file.service[0].method if m.client_streaming and m.server_streaming}
    assert streaming == both_ways == {"Pipeline"}


def test_every_part_of_the_contract_is_commented(tmp_path: Path) -> None:
    """Messages, fields, the service and its methods each have a comment of their own."""
    file = compiled(tmp_path)
    commented = {
        tuple(location.path) for location in file.source_code_info.location if location.leading_comments.strip()
    }
    message_number, service_number = file.MESSAGE_TYPE_FIELD_NUMBER, file.SERVICE_FIELD_NUMBER
    parts = {(service_number, 0): "KeyValueService"}
    for i, method in enumerate(file.service[0].method):
        parts[service_number, 0, file.service[0].METHOD_FIELD_NUMBER, i] = method.name
    for i, message in enumerate(file.message_type):
        parts[message_number, i] = message.name
        for j, field in enumerate(message.field):
            parts[message_number, i, message.FIELD_FIELD_NUMBER, j] = f"{message.name}.{field.name}"
    assert [name for path, name in parts.items() if path not in commented] == []


def test_generated_code_loads_without_a_warning() -> None:
    """The installed protobuf library accepts the code that an older generator made."""
    program = f"import {keyvalue_pb2.__name__} as k; print(k.GetRequest(key='a').SerializeToString().hex())"
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0a0161\n", "")
