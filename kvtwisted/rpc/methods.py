"""The ten methods: each decodes its request, calls the operations, and encodes the answer.

Functions of this module know nothing of any transport. They block on storage and may run on any thread.
"""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from google.protobuf.message import Message

from ..core.limits import MAX_KEY_BYTES
from ..core.pages import Page
from ..core.records import Found, as_text
from ..core.service import Service
from .generated import keyvalue_pb2 as kv

#: The names that the service answers under: its own, and the one of clients whose proto text names no package.
SERVICES = ("kv.v1.KeyValueService", "KeyValueService")

#: Bytes kept free in an answer for what is not an entry: the tag, length and text of `next_cursor`.
MESSAGE_OVERHEAD = 3 + MAX_KEY_BYTES


class Call(NamedTuple):
    """What a method is told beside its request: when to stop trying (`time.monotonic`), and how much to answer.

    The encoded answer never exceeds `max_response_bytes`, which must have room for one entry of the largest size.
    """

    deadline: float
    max_response_bytes: int

    @property
    def budget(self) -> int:
        """Bytes for the entries, as the store counts them (its ENTRY_OVERHEAD covers the encoding of each)."""
        return self.max_response_bytes - MESSAGE_OVERHEAD


class Method(NamedTuple):
    """One method of the service: name, message classes, and the function that runs it.

    `run` raises KvErrors. `response` has an `error` field for those of them that are answered in the message. `batch`
    is the field with many keys, if there is one.
    """

    name: str
    request: type[Message]
    response: Callable[..., Message]
    run: Callable[[Service, Any, Call], Message]
    batch: str | None = None


def _set(operations: Service, request: kv.SetRequest, call: Call) -> kv.SetResponse:
    operations.set(request.key.encode(), request.value.encode(), request.ttl, deadline=call.deadline)
    return kv.SetResponse(success=True)


def _get(operations: Service, request: kv.GetRequest, call: Call) -> kv.GetResponse:
    return get_response(operations.get(request.key.encode(), deadline=call.deadline))


def get_response(found: Found | None) -> kv.GetResponse:
    """What Get answers."""
    if found is None:
        return kv.GetResponse()
    return kv.GetResponse(value=as_text(found.value), found=True, ttl=found.ttl)


def encoded_get_response(found: Found | None) -> bytes:
    """The same, encoded. Without protobuf, which takes five times as long: text would become a message, and text again.

    Source: https://protobuf.dev/programming-guides/encoding/.
    """
    if found is None:
        return b""
    value, ttl = found
    if ttl or not value:
        return get_response(found).SerializeToString()
    if not value.isascii():
        as_text(value)
    return b"\x0a%b%b\x10\x01" % (varint(len(value)), value)


def varint(number: int) -> bytes:
    """An unsigned number as protobuf encodes it."""
    if number < 128:
        return _SMALL[number]
    encoded = bytearray()
    while number > 127:
        encoded.append(number & 127 | 128)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


_SMALL = [bytes((number,)) for number in range(128)]


def _delete(operations: Service, request: kv.DeleteRequest, call: Call) -> kv.DeleteResponse:
    operations.delete(request.key.encode(), deadline=call.deadline)
    return kv.DeleteResponse(success=True)


def _scan_keys(operations: Service, request: kv.ScanRequest, call: Call) -> kv.ScanKeysResponse:
    page = _page(operations, request, call, keys_only=True)
    return kv.ScanKeysResponse(keys=[as_text(key) for key, _ in page.items], next_cursor=as_text(page.next_cursor))


def _scan_key_values(operations: Service, request: kv.ScanRequest, call: Call) -> kv.ScanKeyValuesResponse:
    page = _page(operations, request, call, keys_only=False)
    pairs = {as_text(key): as_text(value) for key, value in page.items}
    return kv.ScanKeyValuesResponse(key_values=pairs, next_cursor=as_text(page.next_cursor))


def _mset(operations: Service, request: kv.MSetRequest, call: Call) -> kv.MSetResponse:
    pairs = {key.encode(): value.encode() for key, value in request.key_values.items()}
    operations.mset(pairs, request.ttl, deadline=call.deadline)
    return kv.MSetResponse(success=True)


def _mget(operations: Service, request: kv.MGetRequest, call: Call) -> kv.MGetResponse:
    found = operations.mget([key.encode() for key in request.keys], budget=call.budget, deadline=call.deadline)
    return kv.MGetResponse(key_values={as_text(key): as_text(value) for key, value in found.items()})


def _mdelete(operations: Service, request: kv.MDeleteRequest, call: Call) -> kv.MDeleteResponse:
    operations.mdelete([key.encode() for key in request.keys], deadline=call.deadline)
    return kv.MDeleteResponse(success=True)


def _get_config(operations: Service, request: kv.GetConfigRequest, call: Call) -> kv.GetConfigResponse:
    return kv.GetConfigResponse(config=operations.get_config())


def _update_config(operations: Service, request: kv.UpdateConfigRequest, call: Call) -> kv.UpdateConfigResponse:
    operations.update_config_text(request.config)
    return kv.UpdateConfigResponse(success=True)


def _page(operations: Service, request: kv.ScanRequest, call: Call, *, keys_only: bool) -> Page:
    return operations.scan(
        request.prefix.encode(),
        cursor=request.cursor.encode(),
        limit=request.limit,
        keys_only=keys_only,
        budget=call.budget,
        deadline=call.deadline,
    )


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("Set", kv.SetRequest, kv.SetResponse, _set),
        Method("Get", kv.GetRequest, kv.GetResponse, _get),
        Method("Delete", kv.DeleteRequest, kv.DeleteResponse, _delete),
        Method("ScanKeys", kv.ScanRequest, kv.ScanKeysResponse, _scan_keys),
        Method("ScanKeyValues", kv.ScanRequest, kv.ScanKeyValuesResponse, _scan_key_values),
        Method("MSet", kv.MSetRequest, kv.MSetResponse, _mset, "key_values"),
        Method("MGet", kv.MGetRequest, kv.MGetResponse, _mget, "keys"),
        Method("MDelete", kv.MDeleteRequest, kv.MDeleteResponse, _mdelete, "keys"),
        Method("GetConfig", kv.GetConfigRequest, kv.GetConfigResponse, _get_config),
        Method("UpdateConfig", kv.UpdateConfigRequest, kv.UpdateConfigResponse, _update_config),
    )
}
