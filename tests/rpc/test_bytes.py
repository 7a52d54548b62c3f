"""Values are any bytes: as data they go in and out as they are, and as text they are never mangled."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from grpc import StatusCode

from kvtwisted.commands.conditions import etag_of
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .support import MIB, Client, World

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

#: Values that are not text; 0xFF is what the local backend's own records begin with.
ODD = [b"\xff", b"\xff\x00\x01", b"\x80", b"a\xfe", b"\xed\xa0\x80", b"\xff" * 300, b"\xff" * MIB]


@pytest.mark.parametrize(
    "value", [*ODD, b"", b"text", "ü".encode()], ids=lambda value: f"{value[:4].hex()}-{len(value)}"
)
def test_data_goes_in_and_out(world: World, value: bytes) -> None:
    """Of every size and beginning, with a ttl and without, by Set and MSet."""
    client = world.client
    assert client.call("Set", key="a", data=value) == kv.SetResponse(success=True)
    assert client.call("MSet", data={"b": value}, key_values={"c": "text"}, ttl=9) == kv.MSetResponse(success=True)
    etag = etag_of(value)
    for _ in range(2):
        # The second time it may be in memory.
        found = client.call("Get", key="a", as_data=True, with_etag=True)
        assert found == kv.GetResponse(data=value, found=True, etag=etag)
        assert client.call("Get", key="b", as_data=True) == kv.GetResponse(data=value, found=True, ttl=9)
    both = client.call("MGet", keys=["a", "b", "c", "d"], as_data=True)
    assert both == kv.MGetResponse(data={"a": value, "b": value, "c": b"text"})
    assert value in world.storage.data()[b"a"]


@pytest.mark.parametrize("value", ODD, ids=lambda it: f"{it[:4].hex()}-{len(it)}")
def test_what_is_not_text(world: World, value: bytes) -> None:
    """Read as text it is an error of that key alone, which says what helps; nothing is logged as damage."""
    client = world.client
    assert client.call("Set", key="odd", data=value).success
    assert client.call("MSet", key_values={"a": "1", "z": "ü"}).success
    for with_etag in (False, True):
        failure = client.error("Get", key="odd", with_etag=with_etag)
        assert failure.code() is StatusCode.FAILED_PRECONDITION
        assert failure.details() == "key: the value is not UTF-8 text; it can be had as data, with as_data"
    answer = client.call("MGet", keys=["a", "odd", "z", "missing"])
    assert (answer.key_values, answer.not_text) == ({"a": "1", "z": "ü"}, ["odd"])
    assert answer.error.startswith("key_values: 1 value is not UTF-8 text and was left out")
    page = client.call("ScanKeyValues")
    assert (page.key_values, page.not_text, page.next_cursor) == ({"a": "1", "z": "ü"}, ["odd"], "")
    assert page.error == answer.error
    assert list(client.call("ScanKeys").keys) == ["a", "odd", "z"]


def test_three_of_a_thousand(client: Client) -> None:
    """The other 997 come, in MGet and in every page of a scan."""
    odd = {f"k{number:03}": b"\xff%d" % number for number in (0, 500, 999)}
    texts = {f"k{number:03}": f"ü{number}" for number in range(1000) if f"k{number:03}" not in odd}
    assert client.call("MSet", key_values=texts, data=odd).success
    answer = client.call("MGet", keys=sorted([*texts, *odd]))
    assert (answer.key_values, answer.not_text) == (texts, sorted(odd))
    assert "3 values are not UTF-8 text" in answer.error
    everything = {key: text.encode() for key, text in texts.items()}
    assert client.call("MGet", keys=[*texts, *odd], as_data=True).data == {**everything, **odd}
    found: dict[str, str] = {}
    not_text: list[str] = []
    cursor = ""
    while True:
        page = client.call("ScanKeyValues", limit=300, cursor=cursor)
        found.update(page.key_values)
        not_text += page.not_text
        assert bool(page.error) == bool(page.not_text)
        cursor = page.next_cursor
        if not cursor:
            break
    assert (found, not_text) == (texts, sorted(odd))


def test_etags_without_data(client: Client) -> None:
    """An etag is of the bytes, however they are asked for; a key that is missing has none."""
    client.call("Set", key="a", value="ü")
    assert client.call("Get", key="a", with_etag=True).etag == etag_of("ü".encode())
    assert client.call("Get", key="missing", with_etag=True, as_data=True) == kv.GetResponse()
    assert client.call("Get", key="", with_etag=True).error.startswith("key: must not be empty")


@pytest.mark.parametrize("value", [b"\xff" * MIB, b"\xff" * 10])
def test_compressed_data(client: Client, value: bytes) -> None:
    """gzip makes no difference."""
    gzip: Any = {"compression": grpc.Compression.Gzip}
    assert client.call("Set", key="a", data=value, **gzip).success
    assert client.call("MSet", data={"b": value}, **gzip).success
    assert client.call("Get", key="a", as_data=True, **gzip).data == value
    assert client.call("MGet", keys=["a", "b"], as_data=True, **gzip).data == {"a": value, "b": value}
    assert client.error("Get", key="a", **gzip).code() is StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("method", "fields", "error"),
    [
        ("Set", {"key": "a", "value": "1", "data": b"1"}, "value and data: both were sent"),
        ("Set", {"key": "a", "data": b"\xff" * (MIB + 1)}, "value: too large: 1048577 bytes were sent"),
        ("Set", {"key": "", "data": b"1"}, "key: must not be empty"),
        ("MSet", {"key_values": {"a": "1"}, "data": {"a": b"1"}}, "data[a]: the key is in key_values, too"),
        ("MSet", {"data": {"": b"1"}}, "key_values: key: must not be empty"),
        ("MSet", {"data": {str(n): b"" for n in range(6000)}, "key_values": {str(-n): "" for n in range(1, 6000)}},
         "key_values: too many"),
    ],
)  # fmt: skip
def test_bad_data(world: World, method: str, fields: dict[str, Any], error: str) -> None:
    """It is refused in the message, and nothing is stored."""
    answer = world.client.call(method, **fields)
    assert answer.error.startswith(error)
    assert not answer.success
    assert world.stored() == {}
    (recorded,) = world.recorder.operations or [None]
    assert recorded is None or (recorded.name, recorded.failed) == ("set", True)


def test_an_answer_of_data_that_would_be_too_large(world: World) -> None:
    """It is refused as one of text is."""
    world.terms.max_response_bytes = 2 * MIB
    for key in "abc":
        world.client.call("Set", key=key, data=b"\xff" * (MIB - 1))
    assert "fewer" in world.client.call("MGet", keys=["a", "b", "c"], as_data=True).error
    assert len(world.client.call("MGet", keys=["b"], as_data=True).data) == 1
