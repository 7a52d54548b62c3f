"""No answer is ever larger than grpc.max_response_bytes, and none is cut short without saying so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvtwisted.commands.command import ENTRY_OVERHEAD
from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from kvtwisted.rpc.methods import MESSAGE_OVERHEAD, Call

from .support import CLASSES, MIB, Client, World

#: Says that these tests run by the pool, too, at every change.
POOL_DIFFERS = True

#: The smallest that the configuration allows.
SMALLEST = 2 * MIB

#: How large an entry may be for the store to count it, and still fit.
SIZES = [(key, value) for key in (1, 127, 128, 1024) for value in (0, 127, 128, 16_383, 16_384, MIB)]


def pages(client: Client, method: str, limit: int) -> Iterator[tuple[int, kv.ScanKeyValuesResponse]]:
    """Every page of a scan with its encoded size."""
    cursor = ""
    while True:
        request = kv.ScanRequest(limit=limit, cursor=cursor).SerializeToString()
        encoded = client.call_raw(method, request)
        page = CLASSES[method][1].FromString(encoded)
        assert not page.error
        yield len(encoded), page
        cursor = page.next_cursor
        if not cursor:
            return


@pytest.mark.parametrize(("key", "value"), SIZES)
def test_what_the_store_counts_covers_the_encoding(key: int, value: int) -> None:
    """An entry's encoded size is at most its key, its value and the store's overhead, in a map as in a list."""
    in_map = kv.ScanKeyValuesResponse(key_values={"k" * key: "v" * value}).ByteSize()
    assert in_map <= key + value + ENTRY_OVERHEAD
    assert kv.ScanKeysResponse(keys=["k" * key]).ByteSize() <= key + ENTRY_OVERHEAD


def test_the_message_overhead_covers_the_cursor() -> None:
    """What is kept free has room for the longest cursor, and the smallest limit for the largest entry."""
    assert kv.ScanKeysResponse(next_cursor="k" * 1024).ByteSize() <= MESSAGE_OVERHEAD
    assert Call(0.0, SMALLEST).budget >= 1024 + MIB + ENTRY_OVERHEAD


@pytest.mark.parametrize("value_bytes", [100, 1_000, 100_000])
def test_pages_fill_the_limit_and_never_exceed_it(world: World, value_bytes: int) -> None:
    """Pages of a scan with a limit end before the largest answer, hold nearly as much, and miss no key."""
    world.terms.max_response_bytes = SMALLEST
    largest_entry = 1024 + value_bytes + ENTRY_OVERHEAD
    keys = [f"{n:06d}".ljust(1024, "k") for n in range(3 * SMALLEST // largest_entry)]
    world.fill(keys, "v" * value_bytes)
    found = list(pages(world.client, "ScanKeyValues", limit=len(keys)))
    assert [key for _, page in found for key in sorted(page.key_values)] == keys
    assert max(size for size, _ in found) <= SMALLEST
    for size, page in found[:-1]:
        counted = size + len(page.key_values) * ENTRY_OVERHEAD + MESSAGE_OVERHEAD
        assert counted + largest_entry > SMALLEST


@pytest.mark.parametrize(("key", "value", "reverse"), [(1024, 130, False), (130, 16_384, True)])
def test_pages_of_entries(world: World, key: int, value: int, reverse: bool) -> None:
    """Entries whose deadlines take the most never exceed the limit either, and fill nearly all of it."""
    world.terms.max_response_bytes = SMALLEST
    count = 3 * SMALLEST // (key + value) // 2
    keys = [chr(0x4E00 + number) + "k" * (key - 3) for number in range(count)]
    for first in range(0, count, 64):
        data = dict.fromkeys(keys[first : first + 64], b"\xff" * value)
        assert world.client.call("MSet", data=data, ttl=3_155_760_000).success
    found: list[str] = []
    sizes = []
    cursor = ""
    while True:
        request = kv.ScanRequest(limit=count, cursor=cursor, as_data=True, reverse=reverse).SerializeToString()
        encoded = world.client.call_raw("ScanKeyValues", request)
        page = kv.ScanKeyValuesResponse.FromString(encoded)
        sizes.append(len(encoded))
        found += [entry.key for entry in page.entries]
        cursor = page.next_cursor
        if not cursor:
            break
    assert found == (keys[::-1] if reverse else keys)
    assert max(sizes) <= SMALLEST
    assert all(size > 0.9 * SMALLEST for size in sizes[:-1])


def test_pages_of_keys(world: World) -> None:
    """A scan of keys alone pages by the keys' size, whatever the values have."""
    world.terms.max_response_bytes = SMALLEST
    keys = [f"{n:06d}".ljust(1024, "k") for n in range(5_000)]
    world.fill(keys, "v")
    found = list(pages(world.client, "ScanKeys", limit=5_000))
    assert [key for _, page in found for key in page.keys] == keys
    assert [len(page.keys) for _, page in found] == [2_015, 2_015, 970]
    assert max(size for size, _ in found) <= SMALLEST


def test_the_largest_entry_passes_the_smallest_limit(world: World) -> None:
    """A value of 1 MiB under a key of 1,024 bytes can be scanned and read at the smallest setting."""
    world.terms.max_response_bytes = SMALLEST
    key, value = "k" * 1024, "v" * MIB
    world.client.call("Set", key=key, value=value)
    world.client.call("Set", key="a", value="small")
    assert world.client.call("ScanKeyValues").key_values == {key: value, "a": "small"}
    assert world.client.call("MGet", keys=[key]).key_values == {key: value}
    assert world.client.call("Get", key=key).value == value


def test_several_large_values_come_one_by_one(world: World) -> None:
    """Values that do not fit together come in pages of one each."""
    world.terms.max_response_bytes = SMALLEST
    for key in "abc":
        world.client.call("Set", key=key, value=key * MIB)
    found = list(pages(world.client, "ScanKeyValues", limit=10))
    assert [list(page.key_values) for _, page in found] == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("method", ["ScanKeys", "ScanKeyValues"])
def test_a_scan_without_limit_is_refused_whole(world: World, method: str) -> None:
    """A client that asked for everything and cannot get it is told to page, and gets no part of it."""
    world.terms.max_response_bytes = SMALLEST
    world.fill([f"{n:01024d}" for n in range(3_000)], "v")
    answer = world.client.call(method)
    assert "limit" in answer.error
    assert "cursor" in answer.error
    assert answer == CLASSES[method][1](error=answer.error)


def test_mget_is_refused_whole(world: World) -> None:
    """MGet over the limit says to ask for fewer keys, and returns none."""
    world.terms.max_response_bytes = SMALLEST
    for key in "abc":
        world.client.call("Set", key=key, value=key * (MIB - 1))
    answer = world.client.call("MGet", keys=["a", "b", "c"])
    assert "fewer" in answer.error
    assert not answer.key_values
    assert len(world.client.call("MGet", keys=["b"]).key_values) == 1


def test_the_limit_may_change_at_any_time(world: World) -> None:
    """The next call goes by the new limit."""
    for key in "abc":
        world.client.call("Set", key=key, value=key * MIB)
    world.terms.max_response_bytes = SMALLEST
    assert world.client.call("ScanKeyValues").error
    world.terms.max_response_bytes = 4 * MIB
    assert len(world.client.call("ScanKeyValues").key_values) == 3
