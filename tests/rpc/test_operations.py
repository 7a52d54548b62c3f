"""The ten operations over gRPC, as every transport must answer them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import METHODS, SERVICES
from tests.support.recorders import Recorded

from .support import CLASSES, MIB, STREAMS, Client, World

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

LONG_KEY = "k" * 1025
#: 1,024 bytes of UTF-8, in characters of four.
LARGEST_KEY = "\N{PARTY POPPER}" * 256


@pytest.mark.parametrize("service", SERVICES)
def test_all_ten_under_both_names(world: World, service: str) -> None:
    """Every method answers under the name with the package and under the one without."""
    client = Client(world.channel, service)
    assert client.call("Set", key="a", value="1") == kv.SetResponse(success=True)
    assert client.call("MSet", key_values={"b": "2", "c": "3"}) == kv.MSetResponse(success=True)
    assert client.call("Get", key="a") == kv.GetResponse(value="1", found=True)
    assert client.call("MGet", keys=["a", "c", "x"]) == kv.MGetResponse(key_values={"a": "1", "c": "3"})
    assert client.scan("ScanKeys") == kv.ScanKeysResponse(keys=["a", "b", "c"])
    pairs = client.scan("ScanKeyValues", prefix="b")
    assert pairs == kv.ScanKeyValuesResponse(key_values={"b": "2"})
    assert client.call("Delete", key="a") == kv.DeleteResponse(success=True)
    assert client.call("MDelete", keys=["b", "x"]) == kv.MDeleteResponse(success=True)
    assert world.stored() == {"c": "3"}
    config = '{"eviction": {"batch_size": 7}}'
    assert client.call("UpdateConfig", config=config) == kv.UpdateConfigResponse(success=True)
    answer = client.call("GetConfig")
    assert (json.loads(answer.config)["eviction"], answer.error) == ({"batch_size": 7}, "")


def test_the_method_table_is_the_proto_file() -> None:
    """Names, request and response classes of the table are those of the service's descriptor, without streams."""
    table = {method.name: (method.request, method.response) for method in METHODS.values()}
    assert table == {name: classes for name, classes in CLASSES.items() if name not in STREAMS}


def test_missing_keys(client: Client) -> None:
    """A missing key is no error: found is false, and deleting it is a success."""
    assert client.call("Get", key="missing") == kv.GetResponse()
    assert client.call("Delete", key="missing") == kv.DeleteResponse(success=True)
    assert client.call("MDelete", keys=["missing"]) == kv.MDeleteResponse(success=True)
    assert client.call("MGet", keys=["missing"]) == kv.MGetResponse()
    assert client.scan("ScanKeys", prefix="missing") == kv.ScanKeysResponse()


def test_empty_batches(world: World) -> None:
    """A batch of nothing succeeds and does nothing."""
    assert world.client.call("MSet").success
    assert world.client.call("MDelete").success
    assert world.client.call("MGet") == kv.MGetResponse()
    assert world.stored() == {}


def test_ttl_is_rounded_up_and_ends(world: World) -> None:
    """Get tells the seconds that are left, rounded up; at its deadline the key is gone for every method."""
    client = world.client
    client.call("Set", key="a", value="1", ttl=10)
    client.call("MSet", key_values={"b": "2"}, ttl=20)
    assert client.call("Get", key="a").ttl == 10
    world.time.advance(9_001)
    assert client.call("Get", key="a").ttl == 1
    assert client.call("Get", key="b").ttl == 11
    world.time.advance(999)
    assert client.call("Get", key="a") == kv.GetResponse()
    assert client.call("MGet", keys=["a", "b"]) == kv.MGetResponse(key_values={"b": "2"})
    assert client.scan("ScanKeys") == kv.ScanKeysResponse(keys=["b"])
    assert client.scan("ScanKeyValues") == kv.ScanKeyValuesResponse(key_values={"b": "2"})


def test_set_without_ttl_clears_it(world: World) -> None:
    """A later Set without a ttl makes the key permanent."""
    world.client.call("Set", key="a", value="1", ttl=10)
    world.client.call("Set", key="a", value="2")
    world.time.advance(10_000)
    assert world.client.call("Get", key="a") == kv.GetResponse(value="2", found=True)


@pytest.mark.parametrize("key", ["/a//b/", " ", "%2F", "\N{PARTY POPPER}", "a\0b", "\ufeff", LARGEST_KEY])
def test_any_text_is_a_key(client: Client, key: str) -> None:
    """Keys of every kind come back as they went in, up to 1,024 bytes of UTF-8."""
    assert client.call("Set", key=key, value=key).success
    assert client.call("Get", key=key).value == key
    assert client.scan("ScanKeyValues", prefix=key).key_values == {key: key}


@pytest.mark.parametrize("value", ["", "v" * MIB, "\N{PARTY POPPER}" * (MIB // 4)])
def test_values_of_every_size(client: Client, value: str) -> None:
    """Values of 0 and of 1,048,576 bytes are stored; an empty one is not a missing one."""
    assert client.call("Set", key="a", value=value).success
    assert client.call("Get", key="a") == kv.GetResponse(value=value, found=True)


@pytest.mark.parametrize(
    ("method", "fields", "error"),
    [
        ("Set", {"key": "", "value": "1"}, "key: must not be empty"),
        ("Set", {"key": LONG_KEY, "value": "1"}, "key: too long: 1025 bytes were sent, the limit is 1024 bytes"),
        ("Set", {"key": "a", "value": "v" * (MIB + 1)}, "value: too large: 1048577 bytes were sent, the limit is"),
        ("Set", {"key": "a", "value": "1", "ttl": -1}, "ttl: must not be negative"),
        ("Set", {"key": "a", "value": "1", "ttl": 2**63 - 1}, "ttl: too large"),
        ("Get", {"key": ""}, "key: must not be empty"),
        ("Get", {"key": LONG_KEY}, "key: too long"),
        ("Delete", {"key": ""}, "key: must not be empty"),
        ("ScanKeys", {"limit": -1}, "limit: must not be negative (0 means no limit): -1 was sent"),
        ("ScanKeyValues", {"limit": -(2**63)}, "limit: must not be negative"),
        ("ScanKeys", {"prefix": LONG_KEY}, "prefix: too long"),
        ("ScanKeyValues", {"cursor": LONG_KEY}, "cursor: too long"),
        ("MSet", {"key_values": {"good": "1", "": "2"}}, "key_values: key: must not be empty"),
        ("MSet", {"key_values": {"good": "1", "bad": "v" * (MIB + 1)}}, "key_values[bad]: too large"),
        ("MSet", {"key_values": {str(n): "" for n in range(10_001)}}, "key_values: too many: 10001 keys"),
        ("MSet", {"key_values": {"good": "1"}, "ttl": -1}, "ttl: must not be negative"),
        ("MGet", {"keys": ["good", ""]}, "keys[1]: must not be empty"),
        ("MGet", {"keys": ["a"] * 10_001}, "keys: too many: 10001 keys"),
        ("MDelete", {"keys": ["good", LONG_KEY]}, "keys[1]: too long"),
        ("UpdateConfig", {"config": '{"nonsense": 1}'}, "nonsense: unknown key"),
    ],
)
def test_bad_input_is_answered_in_the_message(world: World, method: str, fields: dict[str, Any], error: str) -> None:
    """What is wrong with the request comes back in `error`, everything else in the response empty; nothing is done."""
    world.client.call("Set", key="good", value="old")
    answer = world.client.call(method, **fields)
    assert answer.error.startswith(error)
    answer.ClearField("error")
    assert answer == CLASSES[method][1]()
    assert world.stored() == {"good": "old"}


def test_mset_replaces_and_mdelete_removes_all(world: World) -> None:
    """A batch reaches the engine as one atomic write."""
    world.client.call("Set", key="a", value="old")
    world.client.call("MSet", key_values={"a": "1", "b": "2", "c": "3"})
    assert world.stored() == {"a": "1", "b": "2", "c": "3"}
    before = len(world.engine.called("write"))
    world.client.call("MDelete", keys=["a", "c", "a"])
    assert world.stored() == {"b": "2"}
    assert len(world.engine.called("write")) == before + 1


def test_duplicates_in_a_map_on_the_wire(world: World) -> None:
    """Of equal keys in an encoded map the last counts, as protobuf says."""
    first = kv.MSetRequest(key_values={"a": "first"}).SerializeToString()
    last = kv.MSetRequest(key_values={"a": "last"}).SerializeToString()
    assert kv.MSetResponse.FromString(world.client.call_raw("MSet", first + last)).success
    assert world.stored() == {"a": "last"}


def test_unknown_fields_are_ignored(world: World) -> None:
    """A client of a later proto file may send fields that this server does not know."""
    unknown = kv.UpdateConfigRequest(config="x").SerializeToString().replace(b"\x0a", b"\x5a", 1)
    message = kv.SetRequest(key="a", value="1").SerializeToString() + unknown
    assert kv.SetResponse.FromString(world.client.call_raw("Set", message)).success
    assert world.stored() == {"a": "1"}


def test_scan_pages_in_byte_order(client: Client) -> None:
    """Pages follow one another by cursor, in byte order, and the last one has no next_cursor."""
    keys = ["p/a", "p/a!", "p/b", "p/\u00e9", "p/\N{PARTY POPPER}"]
    client.call("MSet", key_values={key: key.upper() for key in [*reversed(keys), "o", "q"]})
    seen, cursor = [], ""
    while True:
        page = client.scan("ScanKeys", prefix="p/", limit=2, cursor=cursor)
        pairs = client.scan("ScanKeyValues", prefix="p/", limit=2, cursor=cursor)
        assert pairs.key_values == {key: key.upper() for key in page.keys}
        assert pairs.next_cursor == page.next_cursor
        seen.append(list(page.keys))
        cursor = page.next_cursor
        if not cursor:
            break
    assert seen == [keys[:2], keys[2:4], keys[4:]]


def test_scan_limits(client: Client) -> None:
    """A limit that fits exactly has no next page; 0 means no limit; a huge one is fine."""
    client.call("MSet", key_values={"a": "", "b": "", "c": ""})
    assert client.scan("ScanKeys", limit=3) == kv.ScanKeysResponse(keys=["a", "b", "c"])
    assert client.scan("ScanKeys", limit=2**63 - 1) == kv.ScanKeysResponse(keys=["a", "b", "c"])
    assert client.scan("ScanKeys", limit=1) == kv.ScanKeysResponse(keys=["a"], next_cursor="a")
    assert client.scan("ScanKeys", cursor="a") == kv.ScanKeysResponse(keys=["b", "c"])
    assert client.scan("ScanKeys", cursor="c") == kv.ScanKeysResponse()


def test_a_change_that_needs_a_restart_succeeds(world: World) -> None:
    """The response has no field for what needs a restart: the change is accepted, and GetConfig shows it."""
    answer = world.client.call("UpdateConfig", config='{"http": {"port": 1}}')
    assert answer == kv.UpdateConfigResponse(success=True)
    assert json.loads(world.client.call("GetConfig").config)["http"] == {"port": 1}


def test_every_call_is_counted_once(world: World) -> None:
    """The operations beneath count calls, keys and failures; the transport adds nothing of its own."""
    client = world.client
    client.call("Set", key="a", value="1")
    client.call("MSet", key_values={"b": "2", "c": "3"})
    client.call("Get", key="missing")
    client.call("Get", key="")
    client.call("MGet", keys=["a", "b", "x"])
    client.scan("ScanKeys")
    client.scan("ScanKeyValues")
    client.call("Delete", key="a")
    client.call("MDelete", keys=["b", "c"])
    client.call("UpdateConfig", config="{}")
    client.call("UpdateConfig", config='{"nonsense": 1}')
    assert world.recorder.operations == [
        Recorded("set", 1, False),
        Recorded("set", 2, False),
        Recorded("get", 1, False),
        Recorded("get", 1, True),
        Recorded("get", 3, False),
        Recorded("scan", 1, False),
        Recorded("scan", 1, False),
        Recorded("delete", 1, False),
        Recorded("delete", 2, False),
    ]
    assert world.recorder.config_updates == 1
