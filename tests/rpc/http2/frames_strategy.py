"""Hypothesis strategies for all that may happen to the native server: calls, frames that are nearly right, noise, time.

What a step does: see `steps`.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support import CLASSES
from .steps import SERVICES, Step
from .wire import Request

KEYS = ("a", "b", "ba", "ü", "k" * 1024)
#: Characters of the values that are stored.
SIZES = (0, 1, 5, 130, 9_000, 16_370, 70_000, 120_000)
_LARGEST = (1 << 31) - 1

_keys = st.sampled_from((*KEYS, "", "k" * 1025))
_values = st.sampled_from(SIZES).map(lambda size: "v" * size)
_pairs = st.dictionaries(_keys, _values, max_size=3)


def _made(name: str, **fields: SearchStrategy[Any]) -> SearchStrategy[tuple[str, bytes]]:
    request = CLASSES[name][0]
    return st.builds(lambda **given: (name, request(**given).SerializeToString()), **fields)


#: A method of the key-value service and an encoded request of it.
messages = st.one_of(
    _made("Get", key=_keys),
    _made("Set", key=_keys, value=_values, ttl=st.sampled_from((0, 1, -1))),
    _made("Delete", key=_keys),
    _made("ScanKeys", prefix=_keys, limit=st.sampled_from((0, 1, -1))),
    _made("ScanKeyValues", prefix=st.just(""), limit=st.sampled_from((0, 2))),
    _made("MSet", key_values=_pairs),
    _made("MGet", keys=st.lists(_keys, max_size=5)),
    _made("MDelete", keys=st.lists(_keys, max_size=3)),
    _made("GetConfig"),
    _made("UpdateConfig", config=st.sampled_from(("{}", '{"x": 1}', "[]"))),
)

_paths = st.sampled_from(
    (
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/kv.v1.KeyValueService/Nothing",
        "/",
    )
)
_noise = st.sampled_from((b"", b"\x0a\x00", b"\x3a\x00", b"\x0a\x01x", b"\xff", b"\x0a\x05abc"))
_right_calls = st.builds(
    lambda service, made: (f"/{service}/{made[0]}", (made[1],)), st.sampled_from(SERVICES), messages
)
_wrong_calls = st.builds(
    lambda made, noise: (f"/{SERVICES[0]}/{made[0]}", tuple(noise)),
    messages,
    st.lists(st.binary(max_size=20), max_size=2),
)
_other_calls = st.tuples(_paths, st.lists(_noise, max_size=3).map(tuple))
_operations = st.one_of(
    st.builds(kv.PipelineRequest, id=st.integers(0, 9), get=st.builds(kv.GetRequest, key=_keys)),
    st.builds(kv.PipelineRequest, id=st.integers(0, 9), set=st.builds(kv.SetRequest, key=_keys, value=_values)),
    st.builds(kv.PipelineRequest, id=st.integers(0, 9), delete=st.builds(kv.DeleteRequest, key=_keys)),
    st.builds(kv.PipelineRequest),
)
_pipelines = st.builds(
    lambda service, operations: (f"/{service}/Pipeline", tuple(one.SerializeToString() for one in operations)),
    st.sampled_from(SERVICES), st.lists(_operations, max_size=6),
)  # fmt: skip
_any_call = st.sampled_from(
    (_right_calls, _right_calls, _right_calls, _right_calls, _pipelines, _wrong_calls, _other_calls)
).flatmap(lambda calls: calls)
pieces = st.lists(st.sampled_from((1, 4, 5, 6, 100, 5_000, 16_384)), max_size=3).map(tuple)
blocks = st.lists(st.integers(1, 30), max_size=2).map(tuple)
_fields = st.lists(
    st.sampled_from(
        (
            ("grpc-timeout", "0n"), ("grpc-timeout", "1H"), ("grpc-timeout", "9S"), ("grpc-timeout", "x"),
            ("content-length", "7"), ("grpc-encoding", "br"), (":method", "GET"), ("content-type", "text/html"),
            ("te", "gzip"), ("x-long", "y" * 5_000), ("x-longer", "z" * 17_000), ("x-same", "1"), ("x-same", "2"),
        )
    ),
    max_size=1,
).map(tuple)  # fmt: skip


@st.composite
def valid_requests(draw: st.DrawFn, calls: SearchStrategy[tuple[str, tuple[bytes, ...]]]) -> Request:
    """One of these calls, in any form that HTTP/2 and gRPC allow."""
    path, sent = draw(calls)
    return Request(
        path,
        sent,
        gzip=draw(st.booleans()),
        pieces=draw(pieces),
        padding=draw(st.sampled_from((None, None, 0, 3, 255))),
        priority=draw(st.booleans()),
        blocks=draw(blocks),
        end=draw(st.sampled_from(("data", "data", "empty", "trailers"))),
    )


@st.composite
def any_requests(draw: st.DrawFn) -> Request:
    """Calls right and wrong."""
    made = draw(valid_requests(_any_call))
    if draw(st.integers(0, 2)):
        return made
    return replace(made, fields=draw(_fields), end=draw(st.sampled_from((made.end, made.end, "nothing"))))


_numbers = st.one_of(
    st.sampled_from((0, 1, 2, 16_383, 16_384, 65_535, 1 << 20, _LARGEST, _LARGEST + 1, (1 << 32) - 1)),
    st.integers(0, 100_000),
)
_setting = st.tuples(st.sampled_from((1, 2, 3, 4, 4, 4, 5, 6, 9)), _numbers)
_good_setting = st.one_of(
    st.tuples(st.just(4), st.sampled_from((0, 1, 20, 16_384, 65_535, 1 << 20))),
    st.tuples(st.just(5), st.sampled_from((16_384, 40_000, (1 << 24) - 1))),
    st.tuples(st.just(1), st.sampled_from((0, 64, 4096, 1 << 20))),
)
#: What a client may ask for in its preface.
good_settings = st.lists(_good_setting, max_size=3).map(tuple)
#: Streams by their place: those opened last, the connection, one that is never a client's, one of the future.
_which = st.sampled_from((-1, -1, -2, -3, 0, "even", "next", "first"))
_payloads = st.one_of(
    st.sampled_from((4, 5, 8, 6, 0, 9)).flatmap(lambda size: st.binary(min_size=size, max_size=size)),
    st.builds(struct.Struct(">I").pack, st.sampled_from((0, 1, 100, _LARGEST, 1 << 31))),
    st.binary(max_size=40),
)
sizes = st.one_of(
    st.just(()), st.just((1,)), st.lists(st.sampled_from((1, 2, 9, 10, 50, 1_000, 20_000)), max_size=4).map(tuple)
)


def _step(name: str, *arguments: SearchStrategy[Any]) -> SearchStrategy[Step]:
    return st.builds(Step, st.just(name), st.tuples(*arguments), st.sampled_from((0, 0, 0, 1)), st.booleans())


_amounts = st.sampled_from((1, 2, 3, 1000))
#: How often each kind of step comes, and its arguments.
_STEPS: tuple[tuple[int, str, tuple[SearchStrategy[Any], ...]], ...] = (
    (20, "call", (any_requests(), st.sampled_from((1, 2, 1000, 1000, 1000)))),
    (4, "burst", (st.integers(1, 30), st.sampled_from(("a", "b", "ba")), st.booleans())),
    (8, "more", (st.integers(0, 5), _amounts)),
    (5, "window", (
        st.sampled_from((0, 0, -1, -2, "first")), st.sampled_from((1, 100, 20_000, 1 << 20, _LARGEST // 2))
    )),
    (2, "settings", (st.lists(_good_setting, max_size=3),)),
    (4, "cancel", (st.sampled_from((-1, -2, -3, "first")), st.sampled_from((0, 8)))),
    (2, "table", (st.sampled_from((0, 100, 4096)),)),
    (6, "pool", (_amounts,)),
    (6, "turn", ()),
    (4, "accept", (st.sampled_from((0, 0, 1, 1_000, 100_000, 1 << 40)),)),
    (3, "cut", (sizes,)),
    (2, "time", (st.sampled_from((0.01, 0.3, 1.1, 5.0, 30.0, 61.0, 601.0)),)),
    (1, "health", ()),
    (2, "slow", (st.booleans(),)),
    (1, "lose", ()),
    (1, "drain", ()),
    (1, "answer_pings", ()),
    (3, "mutated", (any_requests(), st.integers(0, 1 << 16), st.integers(1, 255))),
    (1, "settings", (st.lists(_setting, max_size=4),)),
    (4, "frame", (
        st.integers(0, 12), st.integers(0, 255), _which, _payloads, st.sampled_from((0, 0, 0, 0, 1, -1))
    )),
    (1, "block", (_which, st.binary(max_size=60))),
    (1, "noise", (st.binary(max_size=60),)),
)  # fmt: skip
_by_weight = [_step(name, *arguments) for weight, name, arguments in _STEPS for _ in range(weight)]
steps = st.lists(st.integers(0, len(_by_weight) - 1).flatmap(_by_weight.__getitem__), min_size=15, max_size=60)
