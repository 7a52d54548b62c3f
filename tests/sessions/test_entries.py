"""The content of a token file: what was written is read, and nothing else passes."""

from __future__ import annotations

import json
from typing import Any, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.sessions.entries import (
    MAX_GRANTS,
    MAX_QUOTA_BYTES,
    MAX_QUOTA_KEYS,
    MAX_RATE_BYTES,
    MAX_RATE_OPERATIONS,
    MAX_TOKENS,
    InvalidTokens,
    OwnRate,
    TokenEntry,
    make_grant,
    read_entries,
    read_time,
    show_entry,
    write_entries,
    write_time,
)
from kvtwisted.sessions.grants import KEYED, OPERATIONS, Grant
from kvtwisted.sessions.peer_names import usable
from kvtwisted.sessions.quotas import Quota

GOOD: dict[str, Any] = {
    "version": 1,
    "tokens": [
        {
            "id": "app",
            "sha256": "ab" * 32,
            "grants": [{"operations": ["get", "scan"], "prefix": "app/"}, {"operations": ["metrics"], "prefix": ""}],
            "not_after": "2027-01-01T00:00:00Z",
            "rate": {"operations": 100, "bytes": 0},
        }
    ],
}

_LONG = "a string of 256 characters"
BAD_ID = "tokens[0].id: must be 1 to 32 of a-z 0-9 - and not begin with -, not "

TEXT = st.text(st.characters(blacklist_categories=["Cs"]), max_size=5)
GRANTS = st.builds(
    lambda operations, prefix: Grant(frozenset(operations), prefix.encode()),
    st.sets(st.sampled_from(KEYED), min_size=1),
    TEXT,
) | st.builds(lambda operations: Grant(frozenset(operations)), st.sets(st.sampled_from(OPERATIONS), min_size=1))
ENTRIES = st.builds(
    TokenEntry,
    st.from_regex("[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
    st.binary(min_size=32, max_size=32),
    st.lists(GRANTS, min_size=1, max_size=3).map(tuple),
    st.none() | st.integers(0, 250_000_000_000),
    st.none()
    | st.builds(
        OwnRate,
        st.none() | st.integers(0, MAX_RATE_OPERATIONS),
        st.none() | st.integers(0, MAX_RATE_BYTES),
    ),
    st.none(),
    st.none() | st.builds(Quota, st.integers(0, MAX_QUOTA_BYTES), st.integers(0, MAX_QUOTA_KEYS)),
) | st.builds(
    TokenEntry,
    st.from_regex("[a-z0-9][a-z0-9-]{0,31}", fullmatch=True),
    st.just(b""),
    st.lists(GRANTS, min_size=1, max_size=3).map(tuple),
    st.none(),
    st.none(),
    st.text(min_size=1, max_size=20).filter(usable),
    st.none(),
)


@given(st.lists(ENTRIES, max_size=4, unique_by=(lambda entry: entry.id, lambda entry: entry.certificate or entry.id)))
def test_what_was_written_is_read(entries: list[TokenEntry]) -> None:
    """All of it."""
    assert read_entries(write_entries(entries)) == entries


def test_the_documented_form() -> None:
    """As a person may write it."""
    (entry,) = read_entries(json.dumps(GOOD).encode())
    assert entry == TokenEntry(
        "app",
        b"\xab" * 32,
        (Grant(frozenset({"get", "scan"}), b"app/"), Grant(frozenset({"metrics"}))),
        1_798_761_600,
        OwnRate(100, 0),
    )
    assert json.loads(write_entries([entry])) == GOOD


@pytest.mark.parametrize("absent", [..., None])
def test_what_may_be_left_out(absent: object) -> None:
    """An end and a rate; null is the same."""
    (entry,) = read_entries(json.dumps(token_with(not_after=absent, rate=absent)).encode())
    assert (entry.not_after, entry.rate) == (None, None)


def test_digests_are_not_shown() -> None:
    """Lists have everything else."""
    (entry,) = read_entries(json.dumps(GOOD).encode())
    assert show_entry(entry) == {name: value for name, value in GOOD["tokens"][0].items() if name != "sha256"}


def token_with(**members: Any) -> dict[str, Any]:
    """The good document with other members of its token; ... takes one out."""
    token = {**GOOD["tokens"][0], **members}
    return {"version": 1, "tokens": [{name: value for name, value in token.items() if value is not ...}]}


def grant_with(**members: Any) -> dict[str, Any]:
    """The same for its grant."""
    given = {"operations": ["get"], "prefix": "", **members}
    return token_with(grants=[{name: value for name, value in given.items() if value is not ...}])


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ([], "the file: must be an object, not an array"),
        ({"tokens": []}, "the file: the field version is missing"),
        ({"version": 1}, "the file: the field tokens is missing"),
        ({**GOOD, "x": 1}, 'the file: unknown field "x"; there are version, tokens'),
        ({**GOOD, "version": 2}, "version: must be 1, not 2"),
        ({**GOOD, "version": True}, "version: must be 1, not true"),
        ({**GOOD, "version": 1.0}, "version: must be 1, not 1.0"),
        ({**GOOD, "tokens": {}}, "tokens: must be an array, not an object"),
        ({**GOOD, "tokens": [1]}, "tokens[0]: must be an object, not 1"),
        ({**GOOD, "tokens": [0] * 2049}, "tokens: must have 0 to 2048 elements, not 2049"),
        ({**GOOD, "tokens": GOOD["tokens"] * 2}, "tokens[1].id: app is the id of tokens[0] already"),
        (token_with(id=...), "tokens[0]: the field id is missing"),
        (token_with(sha256=...), "tokens[0]: must have either sha256 or certificate"),
        (token_with(grants=...), "tokens[0]: the field grants is missing"),
        (token_with(certificate="web"), "tokens[0]: must have either sha256 or certificate"),
        *(
            (
                token_with(sha256=..., certificate=name),
                "tokens[0].certificate: must have 1 to 255 printable characters and no space at either end, "
                f"not {shown}",
            )
            for name, shown in (("", '""'), (" web", '" web"'), ("a\x1b", r'"a\u001b"'), ("x" * 256, _LONG))
        ),
        (token_with(sha256=..., certificate=7), "tokens[0].certificate: must be a string, not 7"),
        (
            token_with(scopes=[]),
            'tokens[0]: unknown field "scopes"; there are id, grants, sha256, certificate, not_after, rate, quota',
        ),
        (token_with(id=7), "tokens[0].id: must be a string, not 7"),
        (token_with(id="App"), f'{BAD_ID}"App"'),
        (token_with(id="x" * 33), f"{BAD_ID}a string of 33 characters"),
        (token_with(sha256="ab" * 31), "tokens[0].sha256: must be 64 hexadecimal digits in lower case"),
        (token_with(sha256="AB" * 32), "tokens[0].sha256: must be 64 hexadecimal digits in lower case"),
        (token_with(sha256="ab" * 32 + "\n"), "tokens[0].sha256: must be 64 hexadecimal digits in lower case"),
        (token_with(grants=[]), f"tokens[0].grants: must have 1 to {MAX_GRANTS} elements, not 0"),
        (token_with(grants=[{}] * 65), f"tokens[0].grants: must have 1 to {MAX_GRANTS} elements, not 65"),
        (token_with(grants=["get"]), 'tokens[0].grants[0]: must be an object, not "get"'),
        (grant_with(prefix=...), "tokens[0].grants[0]: the field prefix is missing"),
        (grant_with(prefix=None), "tokens[0].grants[0].prefix: must be a string, not null"),
        (grant_with(prefix="ä" * 513), "tokens[0].grants[0].prefix: must be at most 1024 bytes, not 1026"),
        (grant_with(keys=""), 'tokens[0].grants[0]: unknown field "keys"; there are operations, prefix'),
        (grant_with(operations="get"), 'tokens[0].grants[0].operations: must be an array, not "get"'),
        (grant_with(operations=[]), "tokens[0].grants[0].operations: must have 1 to 8 elements, not 0"),
        (grant_with(operations=[1]), "tokens[0].grants[0].operations[0]: must be a string, not 1"),
        (grant_with(operations=["get", "get"]), "tokens[0].grants[0].operations: one is named twice"),
        (
            grant_with(operations=["GET"]),
            "tokens[0].grants[0].operations: unknown operation 'GET'; "
            "there are get, set, delete, scan, config_read, config_write, metrics, admin",
        ),
        (
            grant_with(operations=["get", "admin"], prefix="a"),
            "tokens[0].grants[0].prefix: must be empty, since admin is about no key; give admin a grant of its own",
        ),
        (
            token_with(not_after="2027-01-01"),
            'tokens[0].not_after: must be a time in UTC like 2027-01-01T00:00:00Z, not "2027-01-01"',
        ),
        (token_with(not_after=1), "not_after: must be a string, not 1"),
        (token_with(rate=5), "tokens[0].rate: must be an object, not 5"),
        (token_with(rate={"ops": 5}), 'tokens[0].rate: unknown field "ops"; there are operations, bytes'),
        (token_with(rate={"bytes": -1}), "tokens[0].rate.bytes: must be an integer from 0 to 1000000000000, not -1"),
        (token_with(rate={"bytes": 1.5}), "tokens[0].rate.bytes: must be an integer from 0 to 1000000000000, not 1.5"),
        (
            token_with(rate={"operations": True}),
            "tokens[0].rate.operations: must be an integer from 0 to 1000000000, not true",
        ),
        (
            token_with(rate={"operations": 10**30}),
            "tokens[0].rate.operations: must be an integer from 0 to 1000000000, not a long number",
        ),
    ],
)
def test_refusals_name_the_field(document: object, reason: str) -> None:
    """And the limit, and what was found."""
    with pytest.raises(InvalidTokens) as refused:
        read_entries(json.dumps(document).encode())
    assert str(refused.value) == reason


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff", b"\xef\xbb\xbf{}", b'{"version":1,"version":1,"tokens":[]}', b"[" * 9 + b"]" * 9, b"NaN"],
)
def test_strict_json(data: bytes) -> None:
    """As everywhere: duplicate names, other encodings and deep nesting are refused."""
    with pytest.raises(InvalidTokens):
        read_entries(data)


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    """Whoever pastes a token as an id does not find it in the log."""
    secret = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
    paste: list[Callable[[str], object]] = [
        lambda text: token_with(id=text),
        lambda text: token_with(sha256=text),
        lambda text: token_with(not_after=text),
        lambda text: token_with(rate=text),
        lambda text: token_with(**{text: 1}),
        lambda text: {**GOOD, "version": text},
    ]
    for document in paste:
        for text in (secret, f"kv1_app_{secret}"):
            with pytest.raises(InvalidTokens) as refused:
                read_entries(json.dumps(document(text)).encode())
            assert secret[:20] not in str(refused.value)


@given(st.integers(0, 253_402_300_799))
def test_times(seconds: int) -> None:
    """Each second has one text."""
    assert read_time(write_time(seconds)) == seconds
    assert len(write_time(seconds)) == len("2027-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2027-01-01",
        "2027-01-01T00:00:00",
        "2027-01-01T00:00:00+00:00",
        "2027-01-01t00:00:00z",
        "2027-01-01T00:00:00.5Z",
        "2027-02-29T00:00:00Z",
        "2027-01-01T24:00:00Z",
        "2027-01-01T00:00:60Z",
        "2027-13-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "\uff12027-01-01T00:00:00Z",
        "2027-01-01T00:00:00Z\n",
        "x" * 10000,
    ],
)
def test_other_times(text: str) -> None:
    """One form, in UTC, to the second."""
    with pytest.raises(InvalidTokens, match="must be a time in UTC like"):
        read_time(text)


def test_grants_of_the_command_line() -> None:
    """Text that is no Unicode is refused, as in files."""
    with pytest.raises(InvalidTokens, match="must be Unicode text"):
        make_grant(["get"], "\udcff", "--grant: ")


def test_the_limit_of_tokens_fits_the_limit_of_bytes() -> None:
    """MAX_TOKENS ordinary tokens are within what a file may have."""
    entry = TokenEntry("x" * 32, bytes(32), (make_grant(KEYED, "app/", ""),), 1_800_000_000)
    assert len(write_entries([entry] * MAX_TOKENS)) < 1 << 20
