"""Authentication as the assembly builds it: the gate, and the token file that it follows."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, Callable

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger

from ..background.quotas import RecountTask
from ..background.ticker import Ticker
from ..commands.delete_range import DeleteRange
from ..config.settings import Settings
from ..core.errors import Unavailable
from ..observability import catalogue
from ..observability.metrics import Metrics
from ..sessions.admission import Admission
from ..sessions.audit import SERVER, Auditing
from ..sessions.authority import Authority
from ..sessions.buckets import Addresses, Rate
from ..sessions.door import Door
from ..sessions.entries import InvalidTokens, TokenEntry
from ..sessions.gate import Gate
from ..sessions.grants import Principal
from ..sessions.quotas import Usage
from ..sessions.token_file import TokenFile

#: Seconds between two looks at the file, and within which a token that has expired is refused everywhere.
LOOK_SECONDS = 1.0

_log = Logger(namespace="kvtwisted.sessions")


class Authentication:
    """Made when the server starts, after its files are there. Reactor thread, unless said."""

    def __init__(
        self,
        reactor: Any,
        settings: Callable[[], Settings],
        door: Door,
        admission: Admission,
        audit: Auditing,
        defer: Callable[..., Deferred[Any]],
        count: Callable[[str], object],
        *,
        writes: Auditing,
    ) -> None:
        """Read the tokens, if the settings name a file. Raises Unavailable.

        `defer` runs a function in a thread. `count` is called with the reason of each refused request. `writes` records
        each write if `security.audit_writes` is on.
        """
        self._reactor = reactor
        self._settings = settings
        self._audit = audit
        self._writes = writes
        self._defer = defer
        self._measures = door.measures
        self._known: dict[str, TokenEntry] = {}
        self._authority: Authority | None = None
        self._addresses = Addresses(Rate())
        self._anew = False
        self._file: TokenFile | None = None
        now = settings()
        if now.security.tokens:
            self._authority = Authority()
            self._file = TokenFile(now.security.tokens, self._changed, self._failed)
            try:
                self._file.load()
            except InvalidTokens as error:
                raise Unavailable(f"security.tokens: {error}") from None
        self._retune(now)
        written = self._written if now.security.audit_writes else None
        certificates = bool(now.http.tls_client_ca or now.grpc.tls_client_ca)
        self.gate = Gate(
            door, admission, self._authority, audit,
            certificates=certificates, addresses=self._addresses, written=written, count=count,
        )  # fmt: skip

    @property
    def tokens(self) -> int:
        """How many tokens are known. Any thread."""
        return 0 if self._authority is None else self._authority.tokens

    @property
    def usages(self) -> Collection[Usage]:
        """The usage of each principal that has a quota. Any thread."""
        return () if self._authority is None else self._authority.usages.values()

    def show(self, metrics: Metrics) -> None:
        """Register the metrics of tokens and quotas."""

        def each(read: Callable[[Usage], float]) -> Callable[[], dict[str, float]]:
            return lambda: {usage.name: read(usage) for usage in self.usages}

        metrics.show(catalogue.TOKENS, lambda: self.tokens)
        metrics.show_each(catalogue.QUOTA_BYTES, each(lambda usage: usage.quota.bytes))
        metrics.show_each(catalogue.QUOTA_USED_BYTES, each(lambda usage: usage.size))
        metrics.show_each(catalogue.QUOTA_KEYS, each(lambda usage: usage.quota.keys))
        metrics.show_each(catalogue.QUOTA_USED_KEYS, each(lambda usage: usage.keys))
        metrics.show_each(catalogue.QUOTA_REFUSED, each(lambda usage: usage.refused))

    def tickers(self) -> list[Ticker]:
        """The periodic tasks that follow the token file, end expired tokens and recount quotas; not yet started."""
        recount = []
        if self._authority is not None and self._measures is not None:
            task = RecountTask(lambda: self.usages, self._measures)
            recount.append(Ticker("quotas", self._reactor, LOOK_SECONDS, partial(self._defer, task.run), at_once=True))
        return [
            *recount,
            Ticker("tokens", self._reactor, LOOK_SECONDS, self._look),
            # By itself: a token ends also while the file's disk hangs.
            Ticker("sessions", self._reactor, LOOK_SECONDS, self._let_go),
        ]

    def reload(self) -> Deferred[Any]:
        """Read the token file now, whether or not it seems to have changed. An unusable file is logged."""
        return self._refresh(force=True)

    def apply(self, new: Settings) -> None:
        """Take up changed settings. Any thread."""
        self._retune(new)
        self._reactor.callFromThread(self._let_go)

    def _look(self) -> Deferred[Any]:
        return self._refresh(force=False)

    def _refresh(self, *, force: bool) -> Deferred[Any]:
        read = maybeDeferred(lambda: None) if self._file is None else self._defer(self._file.refresh, force=force)
        return read.addCallback(lambda _: self._let_go())

    def _let_go(self) -> None:
        # A change of the rates is for everybody, also for those who are here already.
        anew, self._anew = self._anew, False
        self.gate.look(anew=anew)

    def _retune(self, now: Settings) -> None:
        security = now.security
        if self._authority is not None:
            rate = Rate(security.token_operations, security.token_bytes)
            self._authority.retune(default_rate=rate, failed_logins=security.failed_logins)
        of_addresses = Rate(security.address_operations, security.address_bytes)
        if of_addresses != self._addresses.rate:
            self._addresses.retune(of_addresses)
            self._anew = True

    # On the thread that reads the file.

    def _changed(self, entries: list[TokenEntry]) -> None:
        assert self._authority is not None  # noqa: S101 - or there would be no file
        if self._measures is None and any(entry.quota is not None for entry in entries):
            raise InvalidTokens("quota: this storage cannot tell how much is stored, so that there are no quotas")
        self._authority.replace(entries)
        old, self._known = self._known, {entry.id: entry for entry in entries}
        names = {
            "added": sorted(self._known.keys() - old.keys()),
            "removed": sorted(old.keys() - self._known.keys()),
            "changed": sorted(name for name, entry in self._known.items() if name in old and old[name] != entry),
        }
        if any(names.values()):
            _log.info("the tokens have changed: {tokens} are known", tokens=len(entries))
            self._audit.record("tokens_changed", SERVER, **names)

    def _failed(self, reason: str) -> None:
        _log.error("security.tokens: {reason}; the tokens that were read before stay valid", reason=reason)
        self._audit.record("tokens_refused", SERVER, reason=reason)

    # On any thread.

    def _written(self, principal: Principal, operation: str, keys: Collection[bytes]) -> None:
        if operation == DeleteRange.name:
            # How many keys are in it is not known yet.
            start, end = (key.decode("utf-8", "replace") for key in keys)
            self._writes.record("write", principal.name, operation=operation, start=start, end=end)
            return
        first = next(iter(keys), b"").decode("utf-8", "replace")
        self._writes.record("write", principal.name, operation=operation, keys=len(keys), first_key=first)
