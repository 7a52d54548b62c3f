"""Grants against a naive model."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.sessions.grants import KEYED, KEYLESS, OPERATIONS, Grant, Principal, check_grant

from .support import grant

KEYS = st.binary(max_size=4).map(lambda data: bytes(byte % 3 + 97 for byte in data))
KEYED_GRANTS = st.builds(
    lambda operations, prefix: Grant(frozenset(operations), prefix), st.sets(st.sampled_from(KEYED), min_size=1), KEYS
)
KEYLESS_GRANTS = st.builds(
    lambda operations: Grant(frozenset(operations), b""), st.sets(st.sampled_from(OPERATIONS), min_size=1)
)


def begins_with(key: bytes, prefix: bytes) -> bool:
    """Byte by byte."""
    return len(key) >= len(prefix) and all(key[place] == prefix[place] for place in range(len(prefix)))


@given(st.lists(KEYED_GRANTS | KEYLESS_GRANTS, max_size=5), st.sampled_from(OPERATIONS), KEYS)
def test_allows(grants: list[Grant], operation: str, key: bytes) -> None:
    """Allowed is what one of the grants allows, and nothing else."""
    principal = Principal("p", grants)
    naive = any(operation in each.operations and begins_with(key, each.prefix) for each in grants)
    assert principal.allows(operation, key) is naive
    assert principal.may_ever(operation) is any(operation in each.operations for each in grants)
    assert principal.unrestricted(operation) is any(operation in each.operations and not each.prefix for each in grants)


@given(st.lists(KEYED_GRANTS, max_size=4), KEYS, KEYS)
def test_a_scan_never_leaves_its_grants(grants: list[Grant], prefix: bytes, rest: bytes) -> None:
    """Every key that an allowed scan could return is one that may be scanned."""
    principal = Principal("p", grants)
    if principal.allows("scan", prefix):
        assert principal.allows("scan", prefix + rest)


def test_prefixes_are_bytes() -> None:
    """`a` covers `ab`; `a/` does not."""
    assert Principal("p", [grant("get", b"a")]).allows("get", b"ab")
    assert not Principal("p", [grant("get", b"a/")]).allows("get", b"ab")
    assert not Principal("p", [grant("get", b"a/")]).allows("get", b"a")
    assert not Principal("p", [grant("get", b"a")]).allows("get", b"A")
    assert not Principal("p", [grant("get", b"a")]).allows("scan", b"")


def test_no_grant_no_right() -> None:
    """Nothing is allowed by default."""
    nobody = Principal("p", [])
    assert not any(nobody.allows(operation, key) for operation in OPERATIONS for key in (b"", b"a"))


def test_unknown_operations() -> None:
    """They are an error, neither allowed nor denied in silence."""
    with pytest.raises(KeyError):
        Principal("p", [grant("get")]).allows("fly", b"a")
    with pytest.raises(ValueError, match="unknown operation 'fly'"):
        Principal("p", [grant("fly")])


@pytest.mark.parametrize("operation", KEYLESS)
def test_keyless_operations_have_no_prefix(operation: str) -> None:
    """A prefix with them would mean nothing, and is refused instead of being ignored."""
    reason = check_grant(grant(f"get,{operation}", b"a"))
    assert reason is not None
    assert operation in reason
    assert check_grant(grant(f"get,{operation}")) is None


def test_empty_grants() -> None:
    """One without operations is a mistake."""
    assert check_grant(Grant(frozenset())) == "operations: must not be empty"


def test_revoked() -> None:
    """No time is before the end of what was revoked."""
    principal = Principal("p", [], valid_until=10)
    assert principal.valid_until > 9
    principal.revoke()
    assert not principal.valid_until > -1e300
    assert repr(principal) == "<Principal p>"
