"""What is sent to a server by gRPC: messages on random keys of those that `Server.fill` has stored, and their answers.

The same ones in each run. What an answer must be is known but for the order of its map, so that the load client can
tell a good answer by its bytes, and `cases.grpc.check` by its fields.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

from google.protobuf.message import Message

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .server import KEY, SERVICE, name

#: Messages of one key, and bytes of all messages at most. Numbers in a pipeline have two bytes at most.
_SINGLE, _PIPELINED, _BYTES = 20_000, 16_383, 32 << 20
#: Messages of many keys.
_BATCHES = 300
#: As long as any revision is for some decades, as the number 100 million is for as many Increments.
_REVISION, _NUMBER = 1 << 50, 100_000_000
COUNTED, START = "number", str(_NUMBER)


class Messages(NamedTuple):
    """A method, messages, and what answers them."""

    method: str
    encoded: Sequence[bytes]
    #: To the first message.
    answer: Message
    #: Bytes of an answer.
    least: int
    most: int
    #: What metrics call it, and how many they count for a message.
    operation: str
    counted: int = 1
    #: Fields of an answer that nobody knows before.
    varying: Sequence[str] = ()
    #: Whether a call has any number of answers; `answer` is the first, but for what varies.
    streaming: bool = False

    @property
    def path(self) -> str:
        """Of the method."""
        return SERVICE + self.method

    @property
    def pipeline(self) -> bool:
        """Whether all messages go on one stream."""
        return self.method == "Pipeline"


def _random_keys(keys: int, number: int, prefix: str = KEY) -> list[str]:
    source = random.Random(number)
    return [name(source.randrange(keys), prefix) for _ in range(number)]


def _messages(method: str, sent: Sequence[Message], answer: Message, operation: str, counted: int = 1) -> Messages:
    size = answer.ByteSize()
    return Messages(method, [one.SerializeToString() for one in sent], answer, size, size, operation, counted)


def get(keys: int, value: str, prefix: str = KEY) -> Messages:
    """Get of one key, which has this value."""
    sent = [kv.GetRequest(key=key) for key in _random_keys(keys, _SINGLE, prefix)]
    return _messages("Get", sent, kv.GetResponse(value=value, found=True), "get")


def put(keys: int, value: str, prefix: str = KEY) -> Messages:
    """Set of one key."""
    number = max(1, min(_SINGLE, _BYTES // len(value)))
    sent = [kv.SetRequest(key=key, value=value) for key in _random_keys(keys, number, prefix)]
    return _messages("Set", sent, kv.SetResponse(success=True), "set")


def pipeline_get(keys: int, value: str) -> Messages:
    """Gets in a pipeline."""
    requests = [
        kv.PipelineRequest(id=number, get=kv.GetRequest(key=key))
        for number, key in enumerate(_random_keys(keys, _PIPELINED), 1)
    ]
    return _pipelined(requests, "get", kv.PipelineResponse(get=kv.GetResponse(value=value, found=True)))


def pipeline_put(keys: int, value: str) -> Messages:
    """Sets in a pipeline."""
    requests = [
        kv.PipelineRequest(id=number, set=kv.SetRequest(key=key, value=value))
        for number, key in enumerate(_random_keys(keys, _PIPELINED), 1)
    ]
    return _pipelined(requests, "set", kv.PipelineResponse(set=kv.SetResponse(success=True)))


def _pipelined(requests: Sequence[kv.PipelineRequest], operation: str, answer: kv.PipelineResponse) -> Messages:
    """The numbers are those that the load client wants: of the message in its file, from 1."""
    answer.id = len(requests)
    most = answer.ByteSize()
    answer.id = 1
    return _messages("Pipeline", requests, answer, operation)._replace(most=most)


def mget(keys: int, value: str, number: int) -> Messages:
    """MGet of so many different keys."""
    batches = _batches(keys, number)
    answer = kv.MGetResponse(key_values=dict.fromkeys(batches[0], value))
    return _messages("MGet", [kv.MGetRequest(keys=batch) for batch in batches], answer, "get", number)


def mset(keys: int, value: str, number: int) -> Messages:
    """MSet of so many different keys."""
    sent = [kv.MSetRequest(key_values=dict.fromkeys(batch, value)) for batch in _batches(keys, number)]
    return _messages("MSet", sent, kv.MSetResponse(success=True), "set", number)


def _batches(keys: int, number: int) -> list[list[str]]:
    source = random.Random(number)
    return [[name(key) for key in source.sample(range(keys), number)] for _ in range(_BATCHES)]


def scan(keys: int, value: str, number: int) -> Messages:
    """ScanKeyValues of a page of so many, from a random key on; there are more keys than that."""
    source = random.Random(number)
    starts = [source.randrange(keys - number - 1) for _ in range(_BATCHES)]
    sent = [kv.ScanRequest(prefix=KEY, limit=number, cursor=name(start)) for start in starts]
    page = [name(starts[0] + 1 + step) for step in range(number)]
    return _scanned(sent, page, value)


def put_if(keys: int, value: str, condition: kv.Condition) -> Messages:
    """Set of one key, which has this value already, under a condition that holds."""
    sent = [kv.SetRequest(key=key, value=value, condition=condition) for key in _random_keys(keys, _SINGLE)]
    return _changed("Set", sent, kv.SetResponse(success=True, revision=_REVISION))


def increment(keys: int) -> Messages:
    """Increment of one of the keys that begin with COUNTED, filled with START."""
    sent = [kv.IncrementRequest(key=key, delta=1) for key in _random_keys(keys, _SINGLE, COUNTED)]
    answer = kv.IncrementResponse(success=True, value=_NUMBER, revision=_REVISION)
    return _changed("Increment", sent, answer, varying=("value", "revision"))


def touch(keys: int) -> Messages:
    """Touch of one of the keys that begin with COUNTED, which expires in an hour from then on."""
    sent = [kv.TouchRequest(key=key, ttl=3600) for key in _random_keys(keys, _SINGLE, COUNTED)]
    return _changed("Touch", sent, kv.TouchResponse(success=True, found=True, revision=_REVISION))


def transact(keys: int, value: str, number: int) -> Messages:
    """Transact of so many checks, which hold, and as many Sets of the same keys."""
    condition = kv.Condition(value=value.encode())
    sent = [
        kv.TransactRequest(
            checks=[kv.Check(key=key, condition=condition) for key in batch],
            mutations=[kv.Mutation(set=kv.SetRequest(key=key, value=value)) for key in batch],
        )
        for batch in _batches(keys, number)
    ]
    results = [kv.MutationResult(found=True)] * number
    answer = kv.TransactResponse(success=True, results=results, revision=_REVISION)
    return _changed("Transact", sent, answer, counted=2 * number)


def _changed(
    method: str, sent: Sequence[Message], answer: Message, counted: int = 1, varying: Sequence[str] = ("revision",)
) -> Messages:
    return _messages(method, sent, answer, "set", counted)._replace(varying=varying)


def scan_stream() -> Messages:
    """ScanStream of all that `Server.fill` has stored."""
    answer = kv.ScanKeyValuesResponse()
    streamed = _messages("ScanStream", [kv.ScanRequest(prefix=KEY)], answer, "scan")
    return streamed._replace(least=0, most=_BYTES, varying=("entries", "revision"), streaming=True)


def pages(keys: int, value: str, number: int) -> Messages:
    """ScanKeyValues of all, in pages of so many; there are some times as many keys."""
    ends = [name(first + number - 1) for first in range(0, keys, number)]
    sent = [kv.ScanRequest(prefix=KEY, limit=number, cursor=cursor) for cursor in ["", *ends[:-1]]]
    scanned = _scanned(sent, [name(key) for key in range(number)], value)
    return scanned._replace(least=scanned.least - len(ends[0]) - 2)  # the last page has no cursor


def _scanned(sent: Sequence[kv.ScanRequest], page: Sequence[str], value: str) -> Messages:
    """Older trees answer without a revision."""
    answer = kv.ScanKeyValuesResponse(key_values=dict.fromkeys(page, value), next_cursor=page[-1])
    least = answer.ByteSize()
    answer.revision = _REVISION
    return _messages("ScanKeyValues", sent, answer, "scan")._replace(least=least, varying=("revision",))


def watch(prefix: str) -> Messages:
    """Watch of what is under a prefix, without values. The first answer says where it begins."""
    answer = kv.WatchResponse(end=True)
    watched = _messages("Watch", [kv.WatchRequest(prefix=prefix)], answer, "scan")
    return watched._replace(least=0, most=_BYTES, varying=("revision",), streaming=True)
