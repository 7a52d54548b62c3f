"""A client generated from the requirements' own proto text, which knows no package and none of the later fields."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from kvtwisted.rpc.generated import keyvalue_pb2
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .support import PATIENCE, World

PROTO = Path(__file__).with_name("requirements.proto")
CLIENT = Path(__file__).parents[1] / "e2e" / "requirements_client.py"

#: Fields that the package's own proto file has beyond the requirements, by the message.
ADDED = {
    "SetRequest": {"ttl", "data", "condition"},
    "SetResponse": {"condition_failed", "etag", "revision"},
    "GetRequest": {"as_data", "with_etag"},
    "GetResponse": {"ttl", "data", "etag"},
    "DeleteRequest": {"condition"},
    "DeleteResponse": {"condition_failed", "etag", "revision"},
    "ScanRequest": {"limit", "cursor", "start", "end", "reverse", "count_only", "delimiter", "as_data"},
    "ScanKeysResponse": {"next_cursor", "count", "prefixes", "revision"},
    "ScanKeyValuesResponse": {"next_cursor", "count", "prefixes", "entries", "not_text", "revision"},
    "MSetRequest": {"ttl", "data"},
    "MGetRequest": {"as_data"},
    "MGetResponse": {"data", "not_text"},
}


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    """A folder with what protoc makes of the text: modules for a client, and the descriptors."""
    arguments = [f"--proto_path={PROTO.parent}", f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}"]
    assert protoc.main(["protoc", *arguments, f"--descriptor_set_out={tmp_path / 'descriptors'}", PROTO.name]) == 0
    return tmp_path


def fields(file: FileDescriptorProto) -> set[tuple[str, str, int, int, int]]:
    """Message, name, number, type and label of all fields."""
    return {(m.name, f.name, f.number, f.type, f.label) for m in file.message_type for f in m.field}


def test_the_requirements_text_is_the_contract_without_additions(generated: Path) -> None:
    """The ten methods that come first, no package, and every message of theirs less the added fields."""
    (theirs,) = FileDescriptorSet.FromString((generated / "descriptors").read_bytes()).file
    ours = FileDescriptorProto.FromString(keyvalue_pb2.DESCRIPTOR.serialized_pb)
    assert (theirs.package, theirs.service[0].name) == ("", "KeyValueService")
    methods = [method.name for method in theirs.service[0].method]
    assert methods == [method.name for method in ours.service[0].method][:10]
    messages = {message.name for message in theirs.message_type}
    assert fields(theirs) == {
        field for field in fields(ours) if field[0] in messages and field[1] not in ADDED.get(field[0], ())
    }


def test_all_ten(world: World, generated: Path) -> None:
    """The client does all ten operations against a server; see the program for what it asks."""
    command = [sys.executable, str(CLIENT), str(generated), world.address]
    done = subprocess.run(command, cwd=generated, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    refused, error = answers.pop("refused")
    assert (refused, error) == (False, "key: must not be empty (1 to 1024 bytes)")
    assert answers == {
        "set": [True, ""],
        "mset": [True, ""],
        "get": [True, "1", ""],
        "get missing": [False, "", ""],
        "mget": {"req/a": "1", "req/c": "3"},
        "scan keys": ["req/a", "req/b", "req/c"],
        "scan": {"req/a": "1", "req/b": "2", "req/c": "3"},
        "delete": [True, ""],
        "mdelete": [True, ""],
        "left": ["req/c"],
        "update": [True, ""],
        "config": 7,
    }
    assert world.stored() == {"req/c": "3"}


def test_answers_to_old_requests_are_the_bytes_of_before(world: World) -> None:
    """What a request has that uses nothing new is answered byte for byte as before there was anything new.

    Scans tell the revision beside, in a field that is unknown to such a client.
    """
    raw = world.client.call_raw
    assert raw("Set", kv.SetRequest(key="a", value="1").SerializeToString()) == b"\x08\x01"
    assert raw("Set", kv.SetRequest(key="t", value="1", ttl=9).SerializeToString()) == b"\x08\x01"
    assert raw("MSet", kv.MSetRequest(key_values={"b": "2"}).SerializeToString()) == b"\x08\x01"
    assert raw("Get", kv.GetRequest(key="a").SerializeToString()) == b"\x0a\x011\x10\x01"
    assert raw("Get", kv.GetRequest(key="t").SerializeToString()) == b"\x0a\x011\x10\x01\x20\x09"
    assert raw("Get", kv.GetRequest(key="missing").SerializeToString()) == b""
    assert raw("MGet", kv.MGetRequest(keys=["a", "missing"]).SerializeToString()) == b"\x0a\x06\x0a\x01a\x12\x011"
    assert raw("Delete", kv.DeleteRequest(key="t").SerializeToString()) == b"\x08\x01"
    keys = raw("ScanKeys", b"")
    assert keys.startswith(b"\x0a\x01a\x0a\x01b\x30")
    pairs = raw("ScanKeyValues", b"")
    assert pairs.startswith(b"\x0a\x06\x0a\x01a\x12\x011\x0a\x06\x0a\x01b\x12\x012\x40")
    assert raw("MDelete", kv.MDeleteRequest(keys=["b"]).SerializeToString()) == b"\x08\x01"
    assert raw("Set", b"") == b"\x12\x28key: must not be empty (1 to 1024 bytes)"


def test_values_that_are_not_text(world: World, generated: Path) -> None:
    """Such a client gets no mangled text: the status of the one key, and in MGet and scans an error beside the rest."""
    world.client.call("MSet", key_values={"req/a": "1"}, data={"req/b": b"\xff"})
    command = [sys.executable, str(CLIENT), str(generated), world.address, "req/"]
    done = subprocess.run(command, cwd=generated, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 0, done.stderr
    said = "key_values: 1 value is not UTF-8 text and was left out, see not_text; with as_data all come as data"
    assert json.loads(done.stdout) == {
        "get": [True, "1", ""],
        "get odd": "FAILED_PRECONDITION",
        "mget": [{"req/a": "1"}, said],
        "scan keys": ["req/a", "req/b"],
        "scan": [{"req/a": "1"}, said],
        "overwritten": [True, ""],
    }
    assert world.stored() == {"req/a": "1", "req/b": "text"}
