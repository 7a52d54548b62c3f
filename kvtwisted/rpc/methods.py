"""The ten methods as a codec: from the request's message to a command, and from its result to the answer's bytes.

Functions of this module know nothing of any transport or store, and may run on any thread.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, Callable, NamedTuple

from google.protobuf.message import Message

from ..commands.command import Command
from ..commands.configuration import GetConfig, UpdateConfig
from ..commands.delete import Delete
from ..commands.get import Found, Get
from ..commands.mdelete import MDelete
from ..commands.mget import MGet
from ..commands.mset import MSet
from ..commands.scan import Page, Scan
from ..commands.set import Set
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES, as_text
from .generated import keyvalue_pb2 as kv
from .messages import parse
from .quick_batches import read_keys, read_pairs
from .varints import varint

#: Bytes that a Get may answer.
_GET_ANSWER_BYTES = MAX_VALUE_BYTES + 64

#: The names that the service answers under: its own, and the one of clients whose proto text names no package.
SERVICES = ("kv.v1.KeyValueService", "KeyValueService")

#: Bytes kept free in an answer for what is not an entry: the tag, length and text of `next_cursor`.
MESSAGE_OVERHEAD = 3 + MAX_KEY_BYTES

#: The good answer of every method that has nothing else to say: `success`.
SUCCESS = kv.SetResponse(success=True).SerializeToString()


class Call(NamedTuple):
    """What a command is told beside its request: when to stop trying (`time.monotonic`), and how much to answer.

    The encoded answer never exceeds `max_response_bytes`, which must have room for one entry of the largest size.
    """

    deadline: float
    max_response_bytes: int

    @property
    def budget(self) -> int:
        """Bytes for the entries, as the store counts them (its ENTRY_OVERHEAD covers the encoding of each)."""
        return self.max_response_bytes - MESSAGE_OVERHEAD


class Method(NamedTuple):
    """One method of the service: name, message classes, and the function that makes a command of a request.

    `right` is what a grant must have. `response` has an `error` field for errors that are answered in the message.
    `good` is the encoded answer to every command that was carried out; None: the command encodes its result itself.
    `batch` is the field with many keys, if there is one; `answer_bytes` what an answer has at most, where that is less
    than any answer may have. `quick` makes the command of a plain message in less time than protobuf takes, or gives
    None.
    """

    name: str
    right: str
    request: type[Message]
    response: Callable[..., Message]
    command: Callable[[Any, Call], Command]
    good: bytes | None = None
    batch: str | None = None
    answer_bytes: int | None = None
    quick: Callable[[bytes, Call], Command | None] | None = None

    def read(self, message: bytes, call: Call) -> Command:
        """The command of a request's message. Raises CallError for what is no such message."""
        command = None if self.quick is None else self.quick(message, call)
        return self.command(parse(self.request, message), call) if command is None else command

    def refused(self, error: BaseException) -> bytes:
        """The encoded answer that has an error in its message."""
        return self.response(error=str(error)).SerializeToString()

    def answer(self, result: Any) -> bytes:
        """The encoded answer to a command that was carried out."""
        encoded: bytes = result if self.good is None else self.good
        return encoded


def _set(request: kv.SetRequest, call: Call) -> Set:
    return Set(request.key.encode(), request.value.encode(), request.ttl, call.deadline)


def _get(request: kv.GetRequest, call: Call) -> Get:
    return Get(request.key.encode(), call.deadline, encoded_get_response)


def _delete(request: kv.DeleteRequest, call: Call) -> Delete:
    return Delete(request.key.encode(), call.deadline)


def _scan(encode: Callable[[Page], bytes], keys_only: bool, request: kv.ScanRequest, call: Call) -> Scan:
    return Scan(
        request.prefix.encode(), cursor=request.cursor.encode(), limit=request.limit, keys_only=keys_only,
        budget=call.budget, deadline=call.deadline, encode=encode,
    )  # fmt: skip


def _mset(request: kv.MSetRequest, call: Call) -> MSet:
    pairs = {key.encode(): value.encode() for key, value in request.key_values.items()}
    return MSet(pairs, request.ttl, call.deadline)


def _mget(request: kv.MGetRequest, call: Call) -> MGet:
    keys = [key.encode() for key in request.keys]
    return MGet(keys, budget=call.budget, deadline=call.deadline, encode=_encoded_values)


def _quick_mset(message: bytes, call: Call) -> MSet | None:
    read = read_pairs(message)
    return None if read is None else MSet(*read, call.deadline)


def _quick_mget(message: bytes, call: Call) -> MGet | None:
    keys = read_keys(message)
    if keys is None:
        return None
    return MGet(keys, budget=call.budget, deadline=call.deadline, encode=_encoded_values)


def _mdelete(request: kv.MDeleteRequest, call: Call) -> MDelete:
    return MDelete([key.encode() for key in request.keys], call.deadline)


def _quick_mdelete(message: bytes, call: Call) -> MDelete | None:
    keys = read_keys(message)
    return None if keys is None else MDelete(keys, call.deadline)


def _get_config(request: kv.GetConfigRequest, call: Call) -> GetConfig:
    command = GetConfig()
    command.deadline = call.deadline
    command.encode = lambda config: kv.GetConfigResponse(config=config).SerializeToString()
    return command


def _update_config(request: kv.UpdateConfigRequest, call: Call) -> UpdateConfig:
    command = UpdateConfig(request.config)
    command.deadline = call.deadline
    return command


def encoded_get_response(found: Found | None) -> bytes:
    """What Get answers. Without protobuf, which takes five times as long: text would become a message, and text again.

    Source: https://protobuf.dev/programming-guides/encoding/.
    """
    if found is None:
        return b""
    value, ttl = found
    if ttl or not value:
        return kv.GetResponse(value=as_text(value), found=True, ttl=ttl).SerializeToString()
    if not value.isascii():
        as_text(value)
    return b"\x0a%b%b\x10\x01" % (varint(len(value)), value)


def _encoded_values(found: dict[bytes, bytes]) -> bytes:
    return encoded_pairs(found.items())


def _encoded_keys(page: Page) -> bytes:
    keys = list(map(as_text, page.keys))
    return kv.ScanKeysResponse(keys=keys, next_cursor=as_text(page.next_cursor)).SerializeToString()


def _encoded_pairs(page: Page) -> bytes:
    cursor = kv.ScanKeyValuesResponse(next_cursor=as_text(page.next_cursor)).SerializeToString()
    return encoded_pairs(zip(page.keys, page.values)) + cursor


def encoded_pairs(pairs: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The field `key_values` of MGet's answer, and of ScanKeyValues'. Without protobuf, as in `encoded_get_response`.

    Raises Corruption when a key or value is not UTF-8 text.
    """
    pieces: list[bytes] = []
    known = _heads.get
    for key, value in pairs:
        before, between = known((len(key), len(value))) or _heads_of(len(key), len(value))
        pieces += before, key, between, value
    texts = pieces[1::2]
    if not b"".join(texts).isascii():
        for text in texts:
            as_text(text)
    return b"".join(pieces)


def _heads_of(key: int, value: int) -> tuple[bytes, bytes]:
    """Tags and lengths, for a key and a value of these lengths: the entry's and the key's, and the value's."""
    between = b"\x12" + varint(value)
    before = b"\x0a" + varint(key)
    before = b"\x0a" + varint(len(before) + key + len(between) + value) + before
    if len(_heads) >= _REMEMBERED_HEADS:
        _heads.clear()
    return _heads.setdefault((key, value), (before, between))


#: By the lengths of key and value. So many of them are remembered.
_heads: dict[tuple[int, int], tuple[bytes, bytes]] = {}
_REMEMBERED_HEADS = 4096


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("Set", Set.right, kv.SetRequest, kv.SetResponse, _set, SUCCESS, None, 0),
        Method("Get", Get.right, kv.GetRequest, kv.GetResponse, _get, answer_bytes=_GET_ANSWER_BYTES),
        Method("Delete", Delete.right, kv.DeleteRequest, kv.DeleteResponse, _delete, SUCCESS, None, 0),
        Method("ScanKeys", Scan.right, kv.ScanRequest, kv.ScanKeysResponse, partial(_scan, _encoded_keys, True)),
        Method(
            "ScanKeyValues", Scan.right, kv.ScanRequest, kv.ScanKeyValuesResponse, partial(_scan, _encoded_pairs, False)
        ),
        Method("MSet", MSet.right, kv.MSetRequest, kv.MSetResponse, _mset, SUCCESS, "key_values", 0, _quick_mset),
        Method("MGet", MGet.right, kv.MGetRequest, kv.MGetResponse, _mget, batch="keys", quick=_quick_mget),
        Method(
            "MDelete",
            MDelete.right,
            kv.MDeleteRequest,
            kv.MDeleteResponse,
            _mdelete,
            SUCCESS,
            "keys",
            0,
            _quick_mdelete,
        ),
        Method("GetConfig", GetConfig.right, kv.GetConfigRequest, kv.GetConfigResponse, _get_config),
        Method(
            "UpdateConfig",
            UpdateConfig.right,
            kv.UpdateConfigRequest,
            kv.UpdateConfigResponse,
            _update_config,
            SUCCESS,
            None,
            0,
        ),
    )
}
