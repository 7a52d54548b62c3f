"""The unary methods as a codec: from the request's message to a command, and from its result to the answer's bytes.

Functions of this module know nothing of any transport or store, and may run on any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from google.protobuf.message import Message

from ..commands.command import Command
from ..commands.conditional import ConditionalDelete, ConditionalSet, Increment, Touch
from ..commands.configuration import GetConfig, UpdateConfig
from ..commands.delete import Delete
from ..commands.delete_range import DeleteRange
from ..commands.get import Get
from ..commands.invalid import Invalid
from ..commands.mdelete import MDelete
from ..commands.mget import MGet
from ..commands.mset import MSet
from ..commands.mutations import DeleteKey
from ..commands.scan import Page, Scan
from ..commands.set import Set
from ..commands.transact import Transact
from ..core.errors import InvalidRequest, TooLarge, without_frames
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from .answers import (
    GET_ANSWERS,
    RESULT_BYTES,
    SUCCESS,
    encoded_data,
    encoded_increment,
    encoded_keys,
    encoded_page,
    encoded_page_of_entries,
    encoded_removed,
    encoded_touch,
    encoded_transact,
    encoded_values,
    encoded_write,
)
from .changes import add_number, check_of, condition_of, numbered_mutation_of, set_value, touch_key
from .generated import keyvalue_pb2 as kv
from .messages import parse
from .quick_batches import read_keys, read_pairs

#: Bytes that a Get may answer; and a Transact, with as many mutations as there may be by default.
_GET_ANSWER_BYTES, _TRANSACT_ANSWER_BYTES = MAX_VALUE_BYTES + 64, 10_000 * RESULT_BYTES

#: The names that the service answers under: its own, and the one of clients whose proto text names no package.
SERVICES = ("kv.v1.KeyValueService", "KeyValueService")

#: Bytes kept free in an answer for what is not an entry: the tag, length and text of `next_cursor`, a sentence, and
#: numbers.
MESSAGE_OVERHEAD = 3 + MAX_KEY_BYTES + 256


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
    A command encodes its result itself, or has none: then its answer is SUCCESS.
    `batch` is the field with many keys, if there is one; `answer_bytes` what an answer has at most, where that is less
    than any answer may have. `quick` makes the command of a plain message in less time than protobuf takes, or gives
    None.
    """

    name: str
    right: str
    request: type[Message]
    response: Callable[..., Message]
    command: Callable[[Any, Call], Command]
    batch: str | None = None
    answer_bytes: int | None = None
    quick: Callable[[bytes, Call], Command | None] | None = None

    def read(self, message: bytes, call: Call) -> Command:
        """The command of a request's message. Raises CallError for what is no such message."""
        command = None if self.quick is None else self.quick(message, call)
        return self.make(parse(self.request, message), call) if command is None else command

    def make(self, request: Any, call: Call) -> Command:
        """The command of a request."""
        try:
            return self.command(request, call)
        except InvalidRequest as reason:
            return Invalid(self.right, request.ByteSize(), without_frames(reason), call.deadline)

    def refused(self, error: BaseException) -> bytes:
        """The encoded answer that has an error in its message."""
        return self.response(error=str(error)).SerializeToString()

    def answer(self, result: Any) -> bytes:
        """The encoded answer to a command that was carried out."""
        encoded: bytes = SUCCESS if result is None else result
        return encoded


def _set(request: kv.SetRequest, call: Call) -> Command:
    change = set_value(request)
    if request.HasField("condition"):
        return ConditionalSet(change, condition_of(request.condition), call.deadline, encoded_write)
    return Set(*change, call.deadline)


def _get(request: kv.GetRequest, call: Call) -> Get:
    encode = GET_ANSWERS[request.as_data, request.with_etag]
    return Get(request.key.encode(), call.deadline, encode, digests=request.with_etag)


def _delete(request: kv.DeleteRequest, call: Call) -> Command:
    key = request.key.encode()
    if request.HasField("condition"):
        return ConditionalDelete(DeleteKey(key), condition_of(request.condition), call.deadline, encoded_write)
    return Delete(key, call.deadline)


def _increment(request: kv.IncrementRequest, call: Call) -> Increment:
    return Increment(add_number(request), None, call.deadline, encoded_increment)


def _touch(request: kv.TouchRequest, call: Call) -> Touch:
    condition = condition_of(request.condition) if request.HasField("condition") else None
    return Touch(touch_key(request), condition, call.deadline, encoded_touch)


def _transact(request: kv.TransactRequest, call: Call) -> Transact:
    if len(request.mutations) > call.budget // RESULT_BYTES:
        # It would be refused when it is done.
        raise TooLarge(
            f"mutations: too many: the answer to {len(request.mutations)} might exceed grpc.max_response_bytes, which "
            f"is {call.max_response_bytes}"
        )
    checks = [check_of(check, number) for number, check in enumerate(request.checks)]
    mutations = [numbered_mutation_of(mutation, number) for number, mutation in enumerate(request.mutations)]
    return Transact(checks, mutations, call.deadline, encoded_transact)


def _delete_range(request: kv.DeleteRangeRequest, call: Call) -> DeleteRange:
    return DeleteRange(
        request.prefix.encode(), request.start.encode(), request.end.encode(), everything=request.all,
        dry_run=request.dry_run, deadline=call.deadline, encode=encoded_removed,
    )  # fmt: skip


def _scan_keys(request: kv.ScanRequest, call: Call) -> Scan:
    return _scan(request, call, encoded_keys, call.budget, keys_only=True)


def _scan_key_values(request: kv.ScanRequest, call: Call) -> Scan:
    if request.as_data or request.reverse:
        # An entry with a deadline takes up to 19 bytes beside its key and value, more than the store counts; those that
        # do have 256 bytes and more.
        budget = call.budget - call.budget // 64
        return _scan(request, call, encoded_page_of_entries, budget, with_expiries=True)
    return _scan(request, call, encoded_page, call.budget)


def _scan(request: kv.ScanRequest, call: Call, encode: Callable[[Page], bytes], budget: int, **options: bool) -> Scan:
    return Scan(
        request.prefix.encode(), cursor=request.cursor.encode(), limit=request.limit, start=request.start.encode(),
        end=request.end.encode(), reverse=request.reverse, count_only=request.count_only,
        delimiter=request.delimiter.encode(), budget=budget, deadline=call.deadline, encode=encode, **options,
    )  # fmt: skip


def _mset(request: kv.MSetRequest, call: Call) -> MSet:
    pairs = {key.encode(): value.encode() for key, value in request.key_values.items()}
    for key, data in request.data.items():
        if key in request.key_values:
            raise InvalidRequest(f"data[{key[:64]}]: the key is in key_values, too")
        pairs[key.encode()] = data
    return MSet(pairs, request.ttl, call.deadline, is_text=not request.data)


def _mget(request: kv.MGetRequest, call: Call) -> MGet:
    return _mget_of([key.encode() for key in request.keys], request.as_data, call)


def _mget_of(keys: Sequence[bytes], as_data: bool, call: Call) -> MGet:
    encode = encoded_data if as_data else encoded_values
    return MGet(keys, budget=call.budget, deadline=call.deadline, encode=encode)


def _quick_mset(message: bytes, call: Call) -> MSet | None:
    read = read_pairs(message)
    return None if read is None else MSet(*read, call.deadline, is_text=True)


def _quick_mget(message: bytes, call: Call) -> MGet | None:
    read = read_keys(message)
    return None if read is None else _mget_of(*read, call)


def _mdelete(request: kv.MDeleteRequest, call: Call) -> MDelete:
    return MDelete([key.encode() for key in request.keys], call.deadline)


def _quick_mdelete(message: bytes, call: Call) -> MDelete | None:
    read = read_keys(message)
    return None if read is None else MDelete(read[0], call.deadline)


def _get_config(request: kv.GetConfigRequest, call: Call) -> GetConfig:
    command = GetConfig()
    command.deadline = call.deadline
    command.encode = lambda config: kv.GetConfigResponse(config=config).SerializeToString()
    return command


def _update_config(request: kv.UpdateConfigRequest, call: Call) -> UpdateConfig:
    command = UpdateConfig(request.config)
    command.deadline = call.deadline
    # The answer has no field for the keys that need a restart.
    command.encode = lambda restart: SUCCESS
    return command


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("Set", Set.right, kv.SetRequest, kv.SetResponse, _set, answer_bytes=0),
        Method("Get", Get.right, kv.GetRequest, kv.GetResponse, _get, answer_bytes=_GET_ANSWER_BYTES),
        Method("Delete", Delete.right, kv.DeleteRequest, kv.DeleteResponse, _delete, answer_bytes=0),
        Method("ScanKeys", Scan.right, kv.ScanRequest, kv.ScanKeysResponse, _scan_keys),
        Method("ScanKeyValues", Scan.right, kv.ScanRequest, kv.ScanKeyValuesResponse, _scan_key_values),
        Method(
            "MSet", MSet.right, kv.MSetRequest, kv.MSetResponse, _mset,
            batch="key_values", answer_bytes=0, quick=_quick_mset,
        ),
        Method("MGet", MGet.right, kv.MGetRequest, kv.MGetResponse, _mget, batch="keys", quick=_quick_mget),
        Method(
            "MDelete", MDelete.right, kv.MDeleteRequest, kv.MDeleteResponse, _mdelete,
            batch="keys", answer_bytes=0, quick=_quick_mdelete,
        ),
        Method("GetConfig", GetConfig.right, kv.GetConfigRequest, kv.GetConfigResponse, _get_config),
        Method(
            "UpdateConfig", UpdateConfig.right, kv.UpdateConfigRequest, kv.UpdateConfigResponse, _update_config,
            answer_bytes=0,
        ),
        Method("Increment", Increment.right, kv.IncrementRequest, kv.IncrementResponse, _increment, answer_bytes=0),
        Method("Touch", Touch.right, kv.TouchRequest, kv.TouchResponse, _touch, answer_bytes=0),
        Method(
            "DeleteRange", DeleteRange.right, kv.DeleteRangeRequest, kv.DeleteRangeResponse, _delete_range,
            answer_bytes=0,
        ),
        Method(
            "Transact", Transact.right, kv.TransactRequest, kv.TransactResponse, _transact,
            batch="checks and mutations", answer_bytes=_TRANSACT_ANSWER_BYTES,
        ),
    )
}  # fmt: skip
