"""Principals, and the grants that say what each may do. Without a grant nothing is allowed.

A grant is a set of operations on all keys that begin with a prefix. Prefixes are bytes: `a` covers `ab`. End a prefix
with a separator to mean a folder: `a/`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

from .buckets import Limiter
from .quotas import Usage

GET, SET, DELETE, SCAN = "get", "set", "delete", "scan"
CONFIG_READ, CONFIG_WRITE, METRICS, ADMIN = "config_read", "config_write", "metrics", "admin"
#: Operations on keys: a grant of them counts for the keys that have its prefix.
KEYED = (GET, SET, DELETE, SCAN)
#: Operations on no key: a grant of them has the empty prefix.
KEYLESS = (CONFIG_READ, CONFIG_WRITE, METRICS, ADMIN)
OPERATIONS = KEYED + KEYLESS


class Grant(NamedTuple):
    """The right to these operations on all keys that begin with `prefix`; every key begins with the empty one."""

    operations: frozenset[str]
    prefix: bytes = b""


def check_grant(grant: Grant) -> str | None:
    """What is wrong with a grant, in words that go on after its name; None if nothing is."""
    if not grant.operations:
        return "operations: must not be empty"
    unknown = sorted(grant.operations - set(OPERATIONS))
    if unknown:
        return f"operations: unknown operation {unknown[0][:60]!a}; there are {', '.join(OPERATIONS)}"
    if grant.prefix:
        keyless = [operation for operation in KEYLESS if operation in grant.operations]
        if keyless:
            return f"prefix: must be empty, since {keyless[0]} is about no key; give {keyless[0]} a grant of its own"
    return None


class Principal:
    """A principal and its rights. Any thread.

    Immutable but for `is_replaced` and `valid_until`, the Unix time (seconds) until which it is valid. That is moved
    into the past when the token is revoked or changed. So a principal that is kept, with a connection for example, is
    still valid if `now < principal.valid_until`; nothing else has to be compared.
    """

    __slots__ = ("_prefixes", "grants", "is_replaced", "limiter", "name", "usage", "valid_until")

    def __init__(
        self,
        name: str,
        grants: Iterable[Grant],
        *,
        valid_until: float = math.inf,
        limiter: Limiter | None = None,
        usage: Usage | None = None,
    ) -> None:
        """`limiter` is what its requests are taken from; None: they are not limited. `usage` is its quota, if it has
        one. Raises ValueError: a bad grant.
        """
        self.name = name
        self.grants = tuple(grants)
        self.valid_until = valid_until
        self.limiter = limiter
        self.usage = usage
        #: Whether another one goes on in its place: it was not revoked, but its rights or rates have changed.
        self.is_replaced = False
        for grant in self.grants:
            reason = check_grant(grant)
            if reason is not None:
                raise ValueError(reason)
        self._prefixes = {
            operation: tuple(sorted({grant.prefix for grant in self.grants if operation in grant.operations}))
            for operation in OPERATIONS
        }

    def __repr__(self) -> str:
        """Its name."""
        return f"<Principal {self.name}>"

    def prefixes(self, operation: str) -> tuple[bytes, ...]:
        """The prefixes that it may do `operation` under: `key.startswith` takes them as they are. KeyError: no such."""
        return self._prefixes[operation]

    def allows(self, operation: str, key: bytes = b"") -> bool:
        """Whether it may do `operation` on `key`, or scan the prefix `key`. Keyless operations are asked without one.

        A scan lies inside a grant if its prefix begins with the grant's.
        """
        return key.startswith(self._prefixes[operation])

    def unrestricted(self, operation: str) -> bool:
        """Whether it may do `operation` on every key."""
        return b"" in self._prefixes[operation]

    def may_ever(self, operation: str) -> bool:
        """Whether there is any key that it may do `operation` on: what can be said before the key is read."""
        return bool(self._prefixes[operation])

    def revoke(self, *, is_replaced: bool = False) -> None:
        """It is no longer valid, or another one replaces it."""
        self.is_replaced = is_replaced
        self.valid_until = -math.inf
