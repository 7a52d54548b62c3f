"""What each command says of itself: no store, no transport, no thread."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.commands.command import Change, Command, WriteCommand
from kvtwisted.commands.configuration import GetConfig, UpdateConfig
from kvtwisted.commands.delete import Delete
from kvtwisted.commands.get import Found, Get
from kvtwisted.commands.mdelete import MDelete
from kvtwisted.commands.mget import MGet
from kvtwisted.commands.mset import MSet
from kvtwisted.commands.scan import Scan
from kvtwisted.commands.set import Set
from kvtwisted.core.errors import InvalidKey, InvalidRequest, InvalidTtl, TooLarge
from kvtwisted.core.limits import Limits

from ..support.pages import page_of

LONG_KEY, LARGE_VALUE = b"k" * 1025, bytes(1_048_577)
LONG_TTL = 3_155_760_001
FEW = Limits(max_batch_keys=2, max_request_bytes=6)


class Said(NamedTuple):
    """What a command says of itself."""

    name: str
    right: str
    metric: str
    size: int
    count: int
    keys: list[bytes]
    takes_room: bool = True


COMMANDS: list[tuple[Command, Said]] = [
    (Set(b"k", b"abc"), Said("set", "set", "set", 4, 1, [b"k"])),
    (Get(b"k"), Said("get", "get", "get", 1, 1, [b"k"], takes_room=False)),
    (Delete(b"kl"), Said("delete", "delete", "delete", 2, 1, [b"kl"])),
    (MSet({b"k": b"abc", b"lm": b""}), Said("mset", "set", "set", 6, 2, [b"k", b"lm"])),
    (MGet([b"lm", b"k", b"k"], budget=1), Said("mget", "get", "get", 4, 3, [b"lm", b"k", b"k"])),
    (MDelete([b"lm", b"k"]), Said("mdelete", "delete", "delete", 3, 2, [b"lm", b"k"])),
    (Scan(b"pre", budget=1), Said("scan", "scan", "scan", 3, 1, [])),
    (GetConfig(), Said("get_config", "config_read", "", 0, 1, [])),
    (UpdateConfig({"a": 1}), Said("update_config", "config_write", "", 0, 1, [])),
    (UpdateConfig('{"a": 1}'), Said("update_config", "config_write", "", 8, 1, [])),
]  # fmt: skip


@pytest.mark.parametrize(("command", "said"), COMMANDS, ids=[said.name for _, said in COMMANDS])
def test_what_it_is(command: Command, said: Said) -> None:
    """Its names, what it weighs, which keys it is about and how many it counts as."""
    keys = list(command.keys)
    assert said == (command.name, command.right, command.metric, command.size, command.count, keys, command.takes_room)
    assert command.writes is isinstance(command, WriteCommand)
    assert command.writes is (said.metric in ("set", "delete"))
    assert (command.error, command.result, command.answered, command.awaited) == (None, None, 0, None)
    assert command.deadline == math.inf


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        (Set(b"", b""), InvalidKey, "key: must not be empty"),
        (Set(LONG_KEY, b""), InvalidKey, "key: too long"),
        (Set(b"k", LARGE_VALUE), TooLarge, "value: too large"),
        (Set(b"k", b"", -1), InvalidTtl, "ttl: must not be negative"),
        (Set(b"k", b"", LONG_TTL), InvalidTtl, "ttl: too large"),
        (Get(b""), InvalidKey, "key: must not be empty"),
        (Get(LONG_KEY), InvalidKey, "key: too long"),
        (Delete(b""), InvalidKey, "key: must not be empty"),
        (Delete(LONG_KEY), InvalidKey, "key: too long"),
        (MSet({b"a": b"", b"": b""}), InvalidKey, "key_values: key: must not be empty"),
        (MSet({b"a": LARGE_VALUE}), TooLarge, r"key_values\[a\]: too large"),
        (MSet({b"a": b""}, -1), InvalidTtl, "ttl: must not be negative"),
        (MSet({b"a": b""}, LONG_TTL), InvalidTtl, "ttl: too large"),
        (MSet({}, -1), InvalidTtl, "ttl: must not be negative"),
        (MGet([b"a", b""], budget=1), InvalidKey, r"keys\[1\]: must not be empty"),
        (MGet([LONG_KEY], budget=1), InvalidKey, r"keys\[0\]: too long"),
        (MDelete([b"a", b""]), InvalidKey, r"keys\[1\]: must not be empty"),
        (MDelete([LONG_KEY]), InvalidKey, r"keys\[0\]: too long"),
        (Scan(LONG_KEY, budget=1), InvalidKey, "prefix: too long"),
        (Scan(b"", cursor=LONG_KEY, budget=1), InvalidKey, "cursor: too long"),
        (Scan(b"", limit=-1, budget=1), InvalidRequest, "limit: must not be negative"),
    ],
)  # fmt: skip
def test_what_cannot_be(command: Command, error: type[Exception], message: str) -> None:
    """It is refused, and the message names the field."""
    with pytest.raises(error, match=f"^{message}"):
        command.check(Limits())


@pytest.mark.parametrize(
    "command",
    [
        MSet({b"a": b"", b"b": b"", b"c": b""}), MGet([b"a", b"b", b"c"], budget=1), MDelete([b"a", b"b", b"c"]),
        MSet({b"abc": b"defg"}), MGet([b"abcd", b"efg"], budget=1), MDelete([b"abcd", b"efg"]),
    ],
)  # fmt: skip
def test_batches_beyond_the_limits(command: Command) -> None:
    """Of too many keys, or too many bytes in all."""
    with pytest.raises(TooLarge, match=r"limits\.max_(batch_keys is 2|request_bytes is 6)"):
        command.check(FEW)


@pytest.mark.parametrize(
    "command",
    [
        Set(b"k" * 1024, bytes(1_048_576), LONG_TTL - 1), Get(b"k" * 1024), Delete(b"k" * 1024),
        MSet({b"a": b"12", b"b": b"34"}, LONG_TTL - 1), MGet([b"abc", b"def"], budget=1), MDelete([b"abc", b"def"]),
        MSet({}), MGet([], budget=1), MDelete([]),
        Scan(b"k" * 1024, cursor=b"k" * 1024, budget=1), Scan(b"", budget=1), GetConfig(), UpdateConfig({}),
    ],
)  # fmt: skip
def test_what_is_just_right(command: Command) -> None:
    """At each limit, and empty batches: nothing is said against them."""
    command.check(FEW)


@pytest.mark.parametrize(
    ("make", "last"),
    [
        (lambda key: Set(key, b""), False),
        (Get, False),
        (Delete, False),
        (lambda key: Scan(key, budget=1), False),
        (lambda key: MSet({b"a/1": b"", b"b/2": b"", key: b""}), True),
        (lambda key: MGet([b"a/1", b"b/2", key], budget=1), True),
        (lambda key: MDelete([b"a/1", b"b/2", key]), True),
    ],
    ids=["set", "get", "delete", "scan", "mset", "mget", "mdelete"],
)
def test_what_is_permitted(make: Any, last: bool) -> None:
    """What lies under one of the prefixes, each key of a batch under any; without a prefix nothing that has a key."""
    for key in (b"a/", b"a/1", b"b/2"):
        assert make(key).permitted((b"a/", b"b/"))
        assert make(key).permitted((b"",))
        assert not make(key).permitted(())
    for key in (b"", b"a", b"A/", b"c/a/"):
        assert not make(key).permitted((b"a/", b"b/"))
    # A batch is no better for its other keys.
    assert not (last and make(b"a/1").permitted((b"a/",)))


@given(
    st.lists(st.sampled_from([b"", b"a", b"a/", b"b"]), max_size=3),
    st.lists(st.sampled_from([b"a", b"ab", b"a/1", b"b", b"c"]), min_size=1, max_size=4, unique=True),
)
def test_batches_are_permitted_key_by_key(prefixes: list[bytes], keys: list[bytes]) -> None:
    """Exactly when each key by itself is."""
    naive = all(any(key[: len(prefix)] == prefix for prefix in prefixes) for key in keys)
    for batch in (MSet(dict.fromkeys(keys, b"")), MGet(keys, budget=1), MDelete(keys)):
        assert batch.permitted(tuple(prefixes)) is naive
        assert naive is all(Get(key).permitted(tuple(prefixes)) for key in keys)


@pytest.mark.parametrize("command", [GetConfig(), UpdateConfig({})])
def test_what_is_about_no_key_is_permitted_by_any_grant(command: Command) -> None:
    """And by none it is not."""
    assert command.permitted((b"",))
    assert not command.permitted(())


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        (Set(b"k", b"v", 5), [(b"k", b"v", 77)]),
        (MSet({b"k": b"v", b"l": b"w"}, 5), [(b"k", b"v", 77), (b"l", b"w", 77)]),
        (MSet({}), []),
        (Delete(b"k"), [(b"k", None, 0)]),
        (MDelete([b"k", b"l", b"k"]), [(b"k", None, 0), (b"l", None, 0), (b"k", None, 0)]),
    ],
    ids=["set", "mset", "mset of nothing", "delete", "mdelete"],
)
def test_what_it_changes(command: WriteCommand, changes: list[Change]) -> None:
    """Each key with its value and deadline; what is deleted has neither."""
    assert command.changes(77) == changes
    assert command.ttl == (5 if any(deadline for _, _, deadline in changes) else 0)


RESULTS: list[tuple[Command, Any, int]] = [
    (Get(b"k"), Found(b"value", 3), 5),
    (Get(b"k"), None, 0),
    (MGet([b"k", b"l"], budget=100), {b"k": b"abc", b"l": b"de"}, 5),
    (MGet([], budget=100), {}, 0),
    (Scan(b"", budget=100), page_of([(b"k", b"abc"), (b"lm", b"")], b"lm"), 6),
    (Scan(b"", budget=100), page_of([], b""), 0),
    (Set(b"k", b"v"), None, 0),
    (GetConfig(), "{}", 0),
]


@pytest.mark.parametrize(("command", "result", "weight"), RESULTS)
def test_what_it_was_answered(command: Command, result: Any, weight: int) -> None:
    """The result as it is, and the bytes of keys and values in it."""
    command.complete(result)
    assert command.result is result
    assert command.answered == weight


def test_a_result_is_encoded_where_it_was_made() -> None:
    """It is weighed before, as keys and values."""
    for command in (Get(b"k", encode=repr), MGet([b"k"], budget=9, encode=repr), Scan(b"", budget=9, encode=repr)):
        assert command.encode is repr
    scan = Scan(b"", budget=9, encode=lambda page: b"as the client gets it")
    scan.complete(page_of([(b"k", b"v")], b""))
    assert (scan.result, scan.answered) == (b"as the client gets it", 2)


def test_what_cannot_be_encoded_is_not_a_result() -> None:
    """The error goes on to who carries it out."""

    def refuse(_: object) -> object:
        raise InvalidRequest("not this")

    get = Get(b"k", encode=refuse)
    with pytest.raises(InvalidRequest):
        get.complete(Found(b"v", 0))
    assert get.result is None


def test_arguments_are_kept() -> None:
    """Those that only whoever carries it out looks at."""
    scan = Scan(b"p", cursor=b"c", limit=7, keys_only=True, budget=99, deadline=5.0)
    assert (scan.cursor, scan.limit, scan.keys_only, scan.budget, scan.deadline) == (b"c", 7, True, 99, 5.0)
    assert (MGet([], budget=9, deadline=4.0).budget, MGet([], budget=9, deadline=4.0).deadline) == (9, 4.0)
    writes: list[Command] = [Set(b"k", b"", 0, 3.0), MSet({}, 0, 3.0), Delete(b"k", 3.0), MDelete([], 3.0)]
    assert [write.deadline for write in writes] == [3.0] * 4
    assert Get(b"k", 3.0).deadline == 3.0
