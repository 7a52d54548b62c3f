"""Tokens: what is one, what is none, and how they are recognised."""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.sessions import tokens

SECRET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
GOOD = f"Bearer kv1_app-1_{SECRET}".encode()
IDS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True)


def test_the_documented_form() -> None:
    """Version, id, and a secret of 43 digits; what is kept is its SHA-256."""
    token, digest = tokens.make("app-1")
    found = re.fullmatch("kv1_app-1_([0-9A-Za-z]{43})", token)
    assert found is not None
    assert digest == hashlib.sha256(found[1].encode()).digest()


def test_secrets_differ_and_use_all_their_bits() -> None:
    """256 random bits: no two are alike, and every digit takes nearly all its values."""
    secrets = {tokens.make("a")[0].rpartition("_")[2] for _ in range(2000)}
    assert len(secrets) == 2000
    for place in range(tokens.SECRET_LENGTH):
        assert len({secret[place] for secret in secrets}) > 50
    assert 62**tokens.SECRET_LENGTH >= 2**256 > 62 ** (tokens.SECRET_LENGTH - 1)


@given(IDS)
def test_what_was_made_is_read(token_id: str) -> None:
    """Id and digest come back."""
    token, digest = tokens.make(token_id)
    assert tokens.read([f"Bearer {token}".encode()]) == tokens.Token(token_id, digest)


@pytest.mark.parametrize("header", [GOOD, GOOD.replace(b"Bearer", b"bearer"), GOOD.replace(b"Bearer ", b"BEARER   ")])
def test_good_headers(header: bytes) -> None:
    """RFC 9110: a scheme has no case, and one or more spaces follow it."""
    assert tokens.read([header]) == tokens.Token("app-1", tokens.digest_of(SECRET.encode()))


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"Bearer",
        b"Bearer ",
        GOOD[:-1],
        GOOD + b"x",
        GOOD + b" ",
        b" " + GOOD,
        GOOD + b"\n",
        GOOD + b"\0",
        GOOD + b", " + GOOD,
        GOOD.replace(b"Bearer ", b""),
        GOOD.replace(b"Bearer ", b"Bearer\t"),
        GOOD.replace(b"Bearer ", b"Basic "),
        GOOD.replace(b"kv1", b"KV1"),
        GOOD.replace(b"kv1", b"kv2"),
        GOOD.replace(b"app-1", b"App-1"),
        GOOD.replace(b"app-1", b"-app"),
        GOOD.replace(b"app-1", b""),
        GOOD.replace(b"app-1", b"a_b"),
        GOOD.replace(b"app-1", b"x" * 33),
        GOOD.replace(b"app-1", "ä".encode()),
        GOOD.replace(SECRET.encode(), SECRET[:-1].encode() + b"_"),
        GOOD.replace(SECRET.encode(), SECRET[:-2].encode() + "é".encode()),
        GOOD.replace(b"Bearer ", b"Bearer" + b" " * 100),
        b"Bearer " + b"x" * 100_000,
    ],
    ids=range(25),
)
def test_bad_headers(header: bytes) -> None:
    """Truncated, over-long, of the wrong case or scheme, not ASCII: none of them is a token."""
    assert tokens.read([header]) is None


def test_one_header_and_no_more() -> None:
    """None is no token; two are none, also when both are the same."""
    assert tokens.read([]) is None
    assert tokens.read([GOOD, GOOD]) is None
    assert tokens.read([GOOD, b""]) is None


@given(st.binary(max_size=200))
def test_anything_may_come(header: bytes) -> None:
    """It is a token or not; nothing is raised."""
    found = tokens.read([header])
    assert found is None or (tokens.valid_id(found.id) and len(found.digest) == 32)


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 255))
def test_another_byte_is_another_token(place: int, byte: int) -> None:
    """One byte of the token changed gives none, or one that is not the same; in the scheme only case may change."""
    changed = GOOD[:place] + bytes([byte]) + GOOD[place + 1 :]
    if changed == GOOD:
        return
    found = tokens.read([changed])
    if place < len(b"Bearer"):
        assert (found == tokens.read([GOOD])) is (changed.lower() == GOOD.lower())
    else:
        assert found is None or found != tokens.read([GOOD])


@given(st.text(max_size=40))
def test_ids(text: str) -> None:
    """1 to 32 of a-z, 0-9 and -, the first of which is not -."""
    allowed = set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert tokens.valid_id(text) is (0 < len(text) <= 32 and set(text) <= allowed and text[0] != "-")
