"""Authentication: from a request's `Authorization` header to a principal.

Note [Good tokens are never locked out]: failed logins of an address are limited, but the token is checked first. That
costs two microseconds, less than a refusal, and 256 bits cannot be guessed at any rate. The other way round, one client
with an old token would shut out all others behind the same proxy or router. So the limit only makes the refusals of a
flood cheaper, and keeps them out of the log.
"""

from __future__ import annotations

import hmac
import math
import threading
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic, time
from typing import Callable, NamedTuple

from ..core.errors import KvError, RateLimited, Unauthenticated
from . import tokens
from .buckets import Addresses, Limiter, Rate
from .entries import TokenEntry
from .grants import SET, Principal
from .policy import NO_TOKEN
from .quotas import Usage

#: Seconds in which an address may fail as often as `failed_logins` says.
FAILURE_SECONDS = 60.0

#: The same for every reason: malformed, unknown, wrong, revoked, expired, sent twice.
NOT_VALID = "the token is not valid"


class _Known(NamedTuple):
    """A principal and the entry it was made from."""

    entry: TokenEntry
    principal: Principal


class Authority:
    """The tokens that are valid now. All may be used on any thread.

    `wall` is the time that `not_after` is compared with, in Unix seconds; `seconds` a monotonic one.
    """

    def __init__(
        self,
        *,
        default_rate: Rate = Rate(),  # noqa: B008 - immutable
        failed_logins: int = 0,
        wall: Callable[[], float] = time,
        seconds: Callable[[], float] = monotonic,
    ) -> None:
        """`default_rate` is for tokens without their own; `failed_logins` per address and minute, 0: no limit."""
        self.wall = wall
        self._seconds = seconds
        self._lock = threading.Lock()
        self._default_rate = default_rate
        self._known: Mapping[str, _Known] = {}
        self._certified: Mapping[str, _Known] = {}
        #: By the names of those who have a quota: what they use of it. It outlasts changes of other things.
        self.usages: Mapping[str, Usage] = {}
        # An unknown id is compared with this one, so that it takes as long as a wrong secret.
        self._nobody = _Known(TokenEntry("nobody", bytes(32), ()), Principal("nobody", (), valid_until=-math.inf))
        self._failures = Addresses(Rate(failed_logins / FAILURE_SECONDS), burst=FAILURE_SECONDS)

    @property
    def tokens(self) -> int:
        """How many there are, expired ones included."""
        return len(self._known)

    def replace(self, entries: Iterable[TokenEntry]) -> None:
        """Use these tokens from now on. Principals of unchanged tokens stay, with their rates; others are revoked."""
        with self._lock:
            old = self._known
            new = {}
            entries = tuple(entries)
            # A copy: it is read on other threads.
            self.usages = {entry.id: usage for entry in entries if (usage := self._usage(entry)) is not None}
            for entry in entries:
                known = old.get(entry.id)
                if known is None or known.entry != entry:
                    known = _Known(entry, self._principal(entry))
                new[entry.id] = known
            changed = [known for token_id, known in old.items() if new.get(token_id) is not known]
            if changed or len(new) != len(old):
                self._take(new)
                for known in changed:
                    known.principal.revoke(is_replaced=known.entry.id in new)

    def retune(self, *, default_rate: Rate, failed_logins: int) -> None:
        """Use other rates from now on. Unchanged ones stay as they are."""
        with self._lock:
            if default_rate != self._default_rate:
                self._default_rate = default_rate
                old, new = self._known, {}
                for token_id, known in old.items():
                    own = known.entry.rate
                    follows = own is None or own.operations is None or own.bytes is None
                    new[token_id] = _Known(known.entry, self._principal(known.entry)) if follows else known
                self._take(new)
                for token_id, known in old.items():
                    if new[token_id] is not known:
                        known.principal.revoke(is_replaced=True)
        rate = Rate(failed_logins / FAILURE_SECONDS)
        if rate != self._failures.rate:
            self._failures.retune(rate, FAILURE_SECONDS)

    def principal(self, authorization: Sequence[bytes], network: str) -> Principal:
        """The principal that sent these `Authorization` headers (their values; an empty sequence: none) from this
        network.

        `network` is what `buckets.network_of` says of the peer's address. Raises Unauthenticated, with one sentence
        when there is no token and one for everything that is wrong with it; RateLimited when there were too many such.
        """
        if not authorization:
            raise Unauthenticated(NO_TOKEN)
        found = self.find(authorization)
        if found is None:
            raise self._failed(network)
        return found

    def find(self, authorization: Sequence[bytes]) -> Principal | None:
        """The same, but None for an unknown client, and then it is not a failed login."""
        token = tokens.read(authorization)
        if token is not None:
            known = self._known.get(token.id, self._nobody)
            # In a time that does not tell where they differ.
            same = hmac.compare_digest(known.entry.digest, token.digest)
            if same and self.wall() < known.principal.valid_until:
                return known.principal
        return None

    def of_certificate(self, name: str) -> Principal | None:
        """The principal whose entry names this client certificate, if there is one that is valid now."""
        known = self._certified.get(name)
        return known.principal if known is not None and self.wall() < known.principal.valid_until else None

    def _failed(self, network: str) -> KvError:
        if self._failures.limited:
            wait = self._failures.take(network, 1, 0, self._seconds())
            if wait:
                allowed = self._failures.rate.operations * FAILURE_SECONDS
                return RateLimited(
                    f"too many failed logins: security.failed_logins is {allowed:.0f} a minute; "
                    f"try again in {max(wait, 0.001):.3f} s",
                    wait,
                )
        return Unauthenticated(NOT_VALID)

    def _take(self, known: Mapping[str, _Known]) -> None:
        self._known = known
        self._certified = {
            each.entry.certificate: each for each in known.values() if each.entry.certificate is not None
        }

    def _usage(self, entry: TokenEntry) -> Usage | None:
        quota = entry.quota
        if quota is None or not any(quota):
            return None
        made = Usage(entry.id, quota, [grant.prefix for grant in entry.grants if SET in grant.operations])
        known = self.usages.get(entry.id)
        if known is None or known.prefixes != made.prefixes:
            return made
        known.quota = quota
        return known

    def _principal(self, entry: TokenEntry) -> Principal:
        own, default = entry.rate, self._default_rate
        operations = default.operations if own is None or own.operations is None else own.operations
        size = default.bytes if own is None or own.bytes is None else own.bytes
        rate = Rate(operations, size)
        return Principal(
            entry.id,
            entry.grants,
            valid_until=math.inf if entry.not_after is None else entry.not_after,
            limiter=Limiter(rate) if rate.limited else None,
            usage=self.usages.get(entry.id),
        )
