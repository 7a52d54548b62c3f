"""Access control beneath both transports: the operations as one principal may use them.

A transport that has found out who asks calls the principal's `Access` instead of `Operations`. Whether the principal is
still somebody (`now < principal.valid_until`) is the transport's to look at, once for each request.

Note [Nothing is told]: rights are checked before anything is read, and a refusal is the same sentence whatever is
stored. A batch with one key that is not allowed is refused whole, without naming the key.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import Callable

from ..core.author import Author
from ..core.errors import PermissionDenied
from ..core.operations import Operations, Pending
from ..core.pages import Page
from ..core.records import Found
from . import buckets
from .grants import ADMIN, CONFIG_READ, CONFIG_WRITE, DELETE, GET, SCAN, SET, Principal

#: Told of each refusal: who, and what operation. Any thread; must not block or raise.
Denied = Callable[[Principal, str], object]

#: Told of each request that is over the principal's rate. Any thread; must not block or raise.
Limited = Callable[[], object]

#: Told of each write that was let in: who, what operation, which keys. Any thread; must not block or raise.
Written = Callable[[Principal, str, Collection[bytes]], object]

#: Which right each method on keys takes.
METHODS: Mapping[str, str] = {
    "get": GET,
    "get_now": GET,
    "mget": GET,
    "set": SET,
    "begin_set": SET,
    "mset": SET,
    "begin_mset": SET,
    "delete": DELETE,
    "begin_delete": DELETE,
    "mdelete": DELETE,
    "begin_mdelete": DELETE,
    "scan": SCAN,
}

_SENTENCES = {
    GET: "the token does not allow reading every key of this request",
    SET: "the token does not allow writing every key of this request",
    DELETE: "the token does not allow deleting every key of this request",
    SCAN: "the token does not allow scanning every key under this prefix",
}
_OTHER = "the token does not allow this"


class Access:
    """`Operations` for one principal; any thread, as there. A method that is not here is not allowed.

    Each raises PermissionDenied, or RateLimited if there is a limiter, beside what it raises there. A method
    that the principal may use on every key, and as often as it likes, is the one of `Operations` itself, and so costs
    nothing.
    """

    def __init__(
        self,
        operations: Operations,
        principal: Principal,
        *,
        denied: Denied | None = None,
        limited: Limited | None = None,
        written: Written | None = None,
        limiter: buckets.Budget | None = None,
        seconds: Callable[[], float] = monotonic,
        whose: str = "the token",
    ) -> None:
        """`whose` begins the sentence of RateLimited."""
        self.principal = principal
        self._author = Author(principal.name, principal.allows(ADMIN))
        self._written = written
        self._operations = operations
        # Given, it has the principal's own in it.
        self._limiter = principal.limiter if limiter is None else limiter
        self._denied = denied
        self._limited = limited
        self._seconds = seconds
        self._whose = whose
        self._get_prefixes = principal.prefixes(GET)
        self._set_prefixes = principal.prefixes(SET)
        self._delete_prefixes = principal.prefixes(DELETE)
        self._scan_prefixes = principal.prefixes(SCAN)
        if self._limiter is None:
            for name, operation in METHODS.items():
                if principal.unrestricted(operation) and (written is None or operation not in (SET, DELETE)):
                    setattr(self, name, getattr(operations, name))

    # Reads.

    def get(self, key: bytes, *, deadline: float = math.inf) -> Found | None:
        """See `Operations.get`."""
        self._take(1, len(key))
        if not key.startswith(self._get_prefixes):
            raise self._refusal(GET)
        return self._spent(self._operations.get(key, deadline=deadline))

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """See `Operations.get_now`. Only what it answers is taken from the rate: else `get` comes next."""
        limiter = self._limiter
        if limiter is None:
            if not key.startswith(self._get_prefixes):
                raise self._refusal(GET)
            return self._operations.get_now(key)
        now = self._seconds()
        self._admit(limiter.take(1, len(key), now))
        if not key.startswith(self._get_prefixes):
            raise self._refusal(GET)
        known, found = self._operations.get_now(key)
        if not known:
            limiter.spend(-1, -len(key), now)
        elif found is not None:
            limiter.spend(0, len(found.value), now)
        return known, found

    def mget(self, keys: Sequence[bytes], *, budget: int, deadline: float = math.inf) -> dict[bytes, bytes]:
        """See `Operations.mget`."""
        if self._limiter is not None:
            self._take(len(keys), sum(map(len, keys)))
        self._check(GET, keys, self._get_prefixes)
        found = self._operations.mget(keys, budget=budget, deadline=deadline)
        if self._limiter is not None:
            self._limiter.spend(0, sum(map(len, found.values())), self._seconds())
        return found

    def scan(
        self,
        prefix: bytes,
        *,
        cursor: bytes = b"",
        limit: int = 0,
        keys_only: bool = False,
        budget: int,
        deadline: float = math.inf,
    ) -> Page:
        """See `Operations.scan`. It lies inside a grant if its prefix begins with the grant's."""
        self._take(1, len(prefix))
        if not prefix.startswith(self._scan_prefixes):
            raise self._refusal(SCAN)
        page = self._operations.scan(
            prefix, cursor=cursor, limit=limit, keys_only=keys_only, budget=budget, deadline=deadline
        )
        if self._limiter is not None:
            self._limiter.spend(0, sum(len(key) + len(value) for key, value in page.items), self._seconds())
        return page

    # Writes.

    def set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> None:
        """See `Operations.set`."""
        self._admit_set(key, value)
        self._operations.set(key, value, ttl, deadline=deadline)

    def begin_set(self, key: bytes, value: bytes, ttl: int = 0, *, deadline: float = math.inf) -> Pending:
        """See `Operations.begin_set`."""
        self._admit_set(key, value)
        return self._operations.begin_set(key, value, ttl, deadline=deadline)

    def delete(self, key: bytes, *, deadline: float = math.inf) -> None:
        """See `Operations.delete`."""
        self._admit_delete((key,))
        self._operations.delete(key, deadline=deadline)

    def begin_delete(self, key: bytes, *, deadline: float = math.inf) -> Pending:
        """See `Operations.begin_delete`."""
        self._admit_delete((key,))
        return self._operations.begin_delete(key, deadline=deadline)

    def mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> None:
        """See `Operations.mset`."""
        self._admit_mset(pairs)
        self._operations.mset(pairs, ttl, deadline=deadline)

    def begin_mset(self, pairs: Mapping[bytes, bytes], ttl: int = 0, *, deadline: float = math.inf) -> Pending:
        """See `Operations.begin_mset`."""
        self._admit_mset(pairs)
        return self._operations.begin_mset(pairs, ttl, deadline=deadline)

    def mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> None:
        """See `Operations.mdelete`."""
        self._admit_delete(keys)
        self._operations.mdelete(keys, deadline=deadline)

    def begin_mdelete(self, keys: Sequence[bytes], *, deadline: float = math.inf) -> Pending:
        """See `Operations.begin_mdelete`."""
        self._admit_delete(keys)
        return self._operations.begin_mdelete(keys, deadline=deadline)

    # What is about no key.

    def get_config(self) -> str:
        """See `Operations.get_config`."""
        self.require(CONFIG_READ)
        return self._operations.get_config()

    def update_config(self, document: Mapping[str, object]) -> list[str]:
        """See `Operations.update_config`."""
        self.require(CONFIG_WRITE)
        return self._operations.update_config(document, self._author)

    def update_config_text(self, text: str) -> list[str]:
        """See `Operations.update_config_text`."""
        self.require(CONFIG_WRITE)
        return self._operations.update_config_text(text, self._author)

    def require(self, operation: str) -> None:
        """Take one operation from the rate, and raise unless the principal may do `operation`, which is keyless."""
        self._take(1, 0)
        if not self.principal.allows(operation):
            raise self._refusal(operation)

    def _admit_set(self, key: bytes, value: bytes) -> None:
        self._take(1, len(key) + len(value))
        if not key.startswith(self._set_prefixes):
            raise self._refusal(SET)
        if self._written is not None:
            self._written(self.principal, SET, (key,))

    def _admit_mset(self, pairs: Mapping[bytes, bytes]) -> None:
        if self._limiter is not None:
            self._take(len(pairs), sum(map(len, pairs)) + sum(map(len, pairs.values())))
        self._check(SET, pairs.keys(), self._set_prefixes)
        if self._written is not None:
            self._written(self.principal, SET, pairs.keys())

    def _admit_delete(self, keys: Sequence[bytes]) -> None:
        if self._limiter is not None:
            self._take(len(keys), sum(map(len, keys)))
        self._check(DELETE, keys, self._delete_prefixes)
        if self._written is not None:
            self._written(self.principal, DELETE, keys)

    def _check(self, operation: str, keys: Collection[bytes], prefixes: tuple[bytes, ...]) -> None:
        if not prefixes:
            raise self._refusal(operation)
        for key in keys:
            if not key.startswith(prefixes):
                raise self._refusal(operation)

    def _take(self, operations: int, size: int) -> None:
        limiter = self._limiter
        if limiter is not None:
            # A request counts as one operation at least: an empty batch is work too.
            self._admit(limiter.take(operations or 1, size, self._seconds()))

    def _admit(self, wait: float) -> None:
        if wait:
            if self._limited is not None:
                self._limited()
            buckets.admit(wait, self._whose)

    def _spent(self, found: Found | None) -> Found | None:
        if self._limiter is not None and found is not None:
            self._limiter.spend(0, len(found.value), self._seconds())
        return found

    def _refusal(self, operation: str) -> PermissionDenied:
        if self._denied is not None:
            self._denied(self.principal, operation)
        return PermissionDenied(_SENTENCES.get(operation, _OTHER))
