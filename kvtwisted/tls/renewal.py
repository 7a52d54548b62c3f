"""The certificate that a listener serves, and how a new one takes its place without a restart.

Note [Certificates are renewed in place]: the files are checked every few seconds, and on request. Changed files are
read and checked as at the start, and only a pair without any fault replaces the current one. New handshakes use the
current pair; open connections keep theirs. A certificate and its key are two files that change one after the other, so
a change is taken up when the next check finds the same files. A bad pair is reported once for each change.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Callable
from typing import Protocol as Interface

from twisted.logger import Logger

from ..core.errors import Unavailable
from ..sessions.certificates import CertificateFiles, Identity, moment, read_identity

if TYPE_CHECKING:
    from OpenSSL.SSL import Context

#: Seconds between two looks at the files.
LOOK_SECONDS = 3.0
#: Days before a certificate expires at which the log warns; 0: it has expired.
WARNING_DAYS = (30, 7, 1, 0)
_DAY = 86_400.0

_log = Logger(namespace="kvtwisted.tls")


class Certificates:
    """One listener's. Made from files that are good; then any thread, except that `look` and `reload` block."""

    def __init__(self, files: CertificateFiles, protocol: bytes, now: Callable[[], float] = time.time) -> None:
        """Read them; the context is for one protocol by ALPN. Raises Unavailable, naming the setting and the file."""
        self.files = files
        self._protocol = protocol
        self._now = now
        self._lock = threading.Lock()
        #: What was last looked at, and what was last seen; they differ while files are being changed.
        self._tried = self._seen = files.signature()
        self._warned_days: int | None = None
        self.identity, self.context = self._read()
        self._report()

    @property
    def expiry(self) -> float:
        """When the certificate expires, in seconds since 1970."""
        return self.identity.not_after

    def look(self) -> None:
        """Take up changed files, and warn when the certificate expires soon. Blocks; to be called every few seconds."""
        with self._lock:
            seen, before = self.files.signature(), self._seen
            self._seen = seen
            if seen != self._tried and seen == before:
                self._reload(seen)
            self._warn()

    def reload(self) -> bool:
        """Read the files again, changed or not. Blocks.

        False when they are not good: that is logged, and the current pair stays.
        """
        with self._lock:
            return self._reload(self.files.signature())

    def _reload(self, signature: tuple[object, ...]) -> bool:
        self._tried = self._seen = signature
        try:
            identity, context = self._read()
            self._check_dates(identity)
        except Unavailable as error:
            _log.error(
                "{error}; {listener} goes on with the certificate that it has, valid until {until}",
                error=error, listener=self.files.listener, until=moment(self.expiry),
            )  # fmt: skip
            return False
        self.identity, self.context = identity, context
        _log.info(
            "{setting}: {path} was read anew; it is valid until {until}",
            setting=self.files.setting("certificate"), path=self.files.certificate, until=moment(self.expiry),
        )  # fmt: skip
        self._report()
        return True

    def _read(self) -> tuple[Identity, Context]:
        # Here, because OpenSSL takes its time to load and most servers do without.
        from .contexts import make_context

        identity = read_identity(self.files)
        return identity, make_context(identity, self._protocol)

    def _check_dates(self, identity: Identity) -> None:
        """At the start such a certificate is used with a warning, but it never replaces a better one."""
        now = self._now()
        if now >= identity.not_after:
            raise self.files.refused("certificate", f" has expired, at {moment(identity.not_after)}")
        if now < identity.not_before:
            raise self.files.refused("certificate", f" is not valid before {moment(identity.not_before)}")

    def _report(self) -> None:
        for warning in self.identity.warnings:
            _log.warn("{warning}", warning=warning)
        if self._now() < self.identity.not_before:
            _log.warn(
                "{setting}: {path} is not valid before {start}: clients refuse it",
                setting=self.files.setting("certificate"), path=self.files.certificate,
                start=moment(self.identity.not_before),
            )  # fmt: skip
        self._warned_days = None
        self._warn()

    def _warn(self) -> None:
        """Once for each of WARNING_DAYS."""
        left = (self.expiry - self._now()) / _DAY
        passed = [days for days in WARNING_DAYS if left <= days]
        if not passed or passed[-1] == self._warned_days:
            return
        self._warned_days = passed[-1]
        facts: dict[str, Any] = {
            "setting": self.files.setting("certificate"), "path": self.files.certificate, "until": moment(self.expiry),
        }  # fmt: skip
        if left <= 0:
            _log.error("{setting}: {path} has expired, at {until}: clients refuse it", **facts)
        else:
            _log.warn("{setting}: {path} expires in {days:.1f} days, at {until}", days=left, **facts)


class TlsSettings(Interface):
    """What a section of the configuration says of TLS."""

    @property
    def tls_certificate(self) -> str:
        """Path; empty: no TLS."""

    @property
    def tls_private_key(self) -> str:
        """Path."""

    @property
    def tls_client_ca(self) -> str:
        """Path; empty: clients are asked for no certificate."""


class ListenerCertificates:
    """The certificates of both listeners, as far as they have any."""

    def __init__(self, *, grpc: TlsSettings, http: TlsSettings) -> None:
        """Read the files. Raises Unavailable, naming the setting and the file."""
        self.grpc = _of("grpc", grpc, b"h2")
        self.http = _of("http", http, b"http/1.1")

    @property
    def all(self) -> tuple[Certificates, ...]:
        """The certificates of those listeners that have any."""
        return tuple(found for found in (self.grpc, self.http) if found is not None)

    def look(self) -> None:
        """See `Certificates.look`; for each."""
        for certificates in self.all:
            certificates.look()

    def reload(self) -> bool:
        """See `Certificates.reload`; False when one of them is not good. The other is still renewed."""
        good = [certificates.reload() for certificates in self.all]
        return all(good)


def _of(listener: str, settings: TlsSettings, protocol: bytes) -> Certificates | None:
    if not settings.tls_certificate:
        return None
    files = CertificateFiles(listener, settings.tls_certificate, settings.tls_private_key, settings.tls_client_ca)
    return Certificates(files, protocol)
