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
#: What conditional writes answer besides, in two places.
WRITTEN = "condition_failed={}:bool etag={}:string revision={}:int64"
SCANNED = "count=4:int64 prefixes=5:string*"
RANGE = "prefix=1:string start=2:string end=3:string"

#: The released contract: a field here never changes its name, number or type. New fields are added at the end.
CONTRACT = {
    "Condition": "absent=1:bool present=2:bool value=3:bytes etag=4:string",
    "SetRequest": "key=1:string value=2:string ttl=3:int64 data=4:bytes condition=5:Condition",
    "SetResponse": f"{RESULT} {WRITTEN.format(3, 4, 5)}",
    "GetRequest": "key=1:string as_data=2:bool with_etag=3:bool",
    "GetResponse": "value=1:string found=2:bool error=3:string ttl=4:int64 data=5:bytes etag=6:string",
    "DeleteRequest": "key=1:string condition=2:Condition",
    "DeleteResponse": f"{RESULT} {WRITTEN.format(3, 4, 5)}",
    "ScanRequest": (
        "prefix=1:string limit=2:int64 cursor=3:string start=4:string end=5:string reverse=6:bool count_only=7:bool "
        "delimiter=8:string as_data=9:bool"
    ),
    "ScanKeysResponse": f"keys=1:string* error=2:string next_cursor=3:string {SCANNED} revision=6:int64",
    "Entry": "key=1:string data=2:bytes expires_at_ms=3:int64",
    "ScanKeyValuesResponse": (
        f"key_values=1:map error=2:string next_cursor=3:string {SCANNED} entries=6:Entry* not_text=7:string* "
        "revision=8:int64"
    ),
    "MSetRequest": "key_values=1:map ttl=2:int64 data=3:map",
    "MSetResponse": RESULT,
    "MGetRequest": "keys=1:string* as_data=2:bool",
    "MGetResponse": "key_values=1:map error=2:string data=3:map not_text=4:string*",
    "MDeleteRequest": "keys=1:string*",
    "MDeleteResponse": RESULT,
    "GetConfigRequest": "",
    "GetConfigResponse": "config=1:string error=2:string",
    "UpdateConfigRequest": "config=1:string",
    "UpdateConfigResponse": RESULT,
    "PipelineRequest": (
        "id=1:uint64 set=2:SetRequest get=3:GetRequest delete=4:DeleteRequest increment=5:IncrementRequest "
        "touch=6:TouchRequest"
    ),
    "PipelineResponse": (
        "id=1:uint64 set=2:SetResponse get=3:GetResponse delete=4:DeleteResponse increment=7:IncrementResponse "
        "touch=8:TouchResponse code=5:int32 message=6:string"
    ),
    "IncrementRequest": "key=1:string delta=2:int64 ttl=3:int64",
    "IncrementResponse": f"{RESULT} value=3:int64 created=4:bool revision=5:int64",
    "TouchRequest": "key=1:string ttl=2:int64 condition=3:Condition",
    "TouchResponse": f"{RESULT} found=3:bool {WRITTEN.format(4, 5, 6)}",
    "DeleteRangeRequest": f"{RANGE} all=4:bool dry_run=5:bool",
    "DeleteRangeResponse": f"{RESULT} deleted=3:int64 revision=4:int64",
    "Check": "key=1:string condition=2:Condition",
    "Mutation": "set=1:SetRequest delete=2:DeleteRequest touch=3:TouchRequest increment=4:IncrementRequest",
    "MutationResult": "found=1:bool value=2:int64 created=3:bool",
    "TransactRequest": "checks=1:Check* mutations=2:Mutation*",
    "TransactResponse": (
        f"{RESULT} failed_check=3:int32 results=4:MutationResult* revision=5:int64 etag=6:string"
    ),
    "WatchRequest": "key=1:string prefix=2:string after_revision=3:int64 with_values=4:bool",
    "Event": "type=1:Type key=2:string end=3:string data=4:bytes expires_at_ms=5:int64",
    "WatchResponse": "revision=1:int64 events=2:Event* end=3:bool compacted=4:bool",
}  # fmt: skip

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
    "Increment": ("IncrementRequest", "IncrementResponse"),
    "Touch": ("TouchRequest", "TouchResponse"),
    "DeleteRange": ("DeleteRangeRequest", "DeleteRangeResponse"),
    "Transact": ("TransactRequest", "TransactResponse"),
    "ScanStream": ("ScanRequest", "ScanKeyValuesResponse"),
    "Watch": ("WatchRequest", "WatchResponse"),
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
    repeated = "*" if field.label == field.LABEL_REPEATED else ""
    if field.type in (field.TYPE_MESSAGE, field.TYPE_ENUM):
        kind = field.type_name.rpartition(".")[2]
        kind = "map" if kind in ("KeyValuesEntry", "DataEntry") else kind + repeated
        return f"{field.name}={field.number}:{kind}"
    kind = FieldDescriptorProto.Type.Name(field.type)[len("TYPE_") :].lower()
    return f"{field.name}={field.number}:{kind}{repeated}"


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
    """Package, service, and every method's two messages are those that clients were built with; three have streams."""
    file = generated()
    assert (file.package, [s.name for s in file.service]) == ("kv.v1", ["KeyValueService"])
    signatures = {m.name: (m.input_type, m.output_type) for m in file.service[0].method}
    assert signatures == {name: (f".kv.v1.{a}", f".kv.v1.{b}") for name, (a, b) in METHODS.items()}
    asking = {m.name for m in file.service[0].method if m.client_streaming}
    answering = {m.name for m in file.service[0].method if m.server_streaming}
    assert (asking, answering) == ({"Pipeline"}, {"Pipeline", "ScanStream", "Watch"})


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
