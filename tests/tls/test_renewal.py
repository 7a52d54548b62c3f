"""Certificates that are renewed in place, and what the log says of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from twisted.logger import LogEvent, LogLevel, formatEvent, globalLogPublisher

from kvtwisted.core.errors import Unavailable
from kvtwisted.sessions.certificates import CertificateFiles, moment
from kvtwisted.tls.renewal import Certificates, ListenerCertificates
from tests.support.certificates import Pair

DAY = 86_400.0


class Log:
    """What was logged since it was last read."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str]] = []

    def __call__(self, event: LogEvent) -> None:
        """One event, of which only those of this namespace count."""
        if event.get("log_namespace") == "kvtwisted.tls":
            level: LogLevel = event["log_level"]
            self._lines.append((level.name, formatEvent(event)))

    def read(self) -> list[tuple[str, str]]:
        """Level and text of each line."""
        lines, self._lines = self._lines, []
        return lines


@pytest.fixture
def log() -> Iterator[Log]:
    """The log of certificates."""
    log = Log()
    globalLogPublisher.addObserver(log)
    yield log
    globalLogPublisher.removeObserver(log)


class Clock:
    """The time of day, which a test sets."""

    def __init__(self, time: float) -> None:
        self.time = time

    def __call__(self) -> float:
        """Now."""
        return self.time


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    """A pair that is good for 100 days."""
    return Pair(tmp_path, days=(-1, 100))


@pytest.fixture
def other(tmp_path: Path) -> Pair:
    """Another one, good for 200."""
    return Pair(tmp_path, "other", days=(-1, 200))


def made(pair: Pair, now: Clock | None = None) -> Certificates:
    """The certificates of a gRPC listener."""
    files = CertificateFiles("grpc", pair.certificate, pair.private_key)
    return Certificates(files, b"h2") if now is None else Certificates(files, b"h2", now)


def put(pair: Pair, other: Pair, *names: str) -> None:
    """Replace files of `pair` by those of `other`, as renewing programs do it."""
    for name in names or ("certificate", "private_key"):
        staged = f"{getattr(pair, name)}.new"
        Path(staged).write_bytes(Path(getattr(other, name)).read_bytes())
        Path(staged).chmod(0o600)
        os.replace(staged, getattr(pair, name))


def test_a_change_is_taken_up_at_the_second_look(pair: Pair, other: Pair, log: Log) -> None:
    """Not before: the key might not be there yet. It is said once."""
    certificates = made(pair)
    context = certificates.context
    certificates.look()
    assert log.read() == []
    put(pair, other)
    certificates.look()
    assert (certificates.context, certificates.identity.chain) == (context, pair.chain)
    certificates.look()
    assert certificates.context is not context
    assert certificates.identity.chain == other.chain
    assert certificates.expiry == other.x509.not_valid_after_utc.timestamp()
    until = moment(certificates.expiry)
    assert log.read() == [
        ("info", f"grpc.tls_certificate: {pair.certificate} was read anew; it is valid until {until}")
    ]
    renewed = certificates.context
    certificates.look()
    assert (certificates.context, log.read()) == (renewed, [])


def test_files_that_change_one_after_the_other(pair: Pair, other: Pair, log: Log) -> None:
    """A look in between does no harm, and says nothing."""
    certificates = made(pair)
    put(pair, other, "certificate")
    certificates.look()
    put(pair, other, "private_key")
    certificates.look()
    assert log.read() == []
    certificates.look()
    assert certificates.identity.chain == other.chain
    assert [level for level, _ in log.read()] == ["info"]


def test_a_bad_pair_is_said_once_for_each_change(pair: Pair, other: Pair, log: Log) -> None:
    """What was in force stays, until a good pair comes."""
    certificates = made(pair)
    context, until = certificates.context, moment(certificates.expiry)
    put(pair, other, "certificate")
    for _ in range(5):
        certificates.look()
    said = (
        f"grpc.tls_private_key: {pair.private_key} is not the key of the first certificate in {pair.certificate}; "
        f"grpc goes on with the certificate that it has, valid until {until}"
    )
    assert log.read() == [("error", said)]
    assert certificates.context is context
    os.unlink(pair.certificate)
    for _ in range(5):
        certificates.look()
    ((level, line),) = log.read()
    assert (level, line.split(";")[0]) == (
        "error", f"grpc.tls_certificate: {pair.certificate}: No such file or directory",
    )  # fmt: skip
    assert certificates.context is context
    put(pair, other)
    for _ in range(5):
        certificates.look()
    assert certificates.identity.chain == other.chain
    assert [level for level, _ in log.read()] == ["info"]


def test_reload(pair: Pair, other: Pair, log: Log) -> None:
    """On request files are read at once, whether or not they have changed, and each time it is said how that went."""
    certificates = made(pair)
    assert certificates.reload()
    put(pair, other)
    assert certificates.reload()
    assert certificates.identity.chain == other.chain
    Path(pair.private_key).write_text("nothing")
    assert [certificates.reload(), certificates.reload()] == [False, False]
    assert [level for level, _ in log.read()] == ["info", "info", "error", "error"]
    # A look does not say it again.
    certificates.look()
    certificates.look()
    assert log.read() == []


@pytest.mark.parametrize(
    ("days", "sentence"), [((-2, -1), "has expired, at {end}"), ((1, 2), "is not valid before {start}")]
)
def test_no_good_date_replaces_a_certificate(
    pair: Pair, tmp_path: Path, log: Log, days: tuple[float, float], sentence: str
) -> None:
    """One that clients would refuse does not come in place of one that they take."""
    certificates = made(pair)
    stale = Pair(tmp_path, "stale", days=days)
    put(pair, stale)
    assert not certificates.reload()
    ((level, line),) = log.read()
    start, end = stale.x509.not_valid_before_utc, stale.x509.not_valid_after_utc
    sentence = sentence.format(start=moment(start.timestamp()), end=moment(end.timestamp()))
    assert (level, line.split(";")[0]) == ("error", f"grpc.tls_certificate: {pair.certificate} {sentence}")
    assert certificates.identity.chain == pair.chain


def test_the_end_is_announced(pair: Pair, log: Log) -> None:
    """At 30 days, 7 days, 1 day, and when it has come; each once."""
    end = pair.x509.not_valid_after_utc.timestamp()
    now = Clock(end - 90 * DAY)
    certificates = made(pair, now)
    lines = []
    for hours in range(90 * 24 + 48):
        now.time = end - 90 * DAY + hours * 3600
        certificates.look()
        lines += log.read()
    named = f"grpc.tls_certificate: {pair.certificate}"
    assert lines == [
        *(("warn", f"{named} expires in {days}.0 days, at {moment(end)}") for days in (30, 7, 1)),
        ("error", f"{named} has expired, at {moment(end)}: clients refuse it"),
    ]


def test_dates_at_the_start(pair: Pair, log: Log) -> None:
    """It is served all the same, which is no worse than no server; and it is said."""
    start, end = pair.x509.not_valid_before_utc.timestamp(), pair.x509.not_valid_after_utc.timestamp()
    named = f"grpc.tls_certificate: {pair.certificate}"
    made(pair, Clock(end + 5))
    assert log.read() == [("error", f"{named} has expired, at {moment(end)}: clients refuse it")]
    made(pair, Clock(end - 3.5 * DAY))
    assert log.read() == [("warn", f"{named} expires in 3.5 days, at {moment(end)}")]
    made(pair, Clock(start - 5))
    assert log.read() == [("warn", f"{named} is not valid before {moment(start)}: clients refuse it")]


def test_a_key_that_all_may_read(pair: Pair, log: Log) -> None:
    """A warning at the start and at each reload."""
    Path(pair.private_key).chmod(0o646)
    assert made(pair).reload()
    levels = [(level, "others must not write it" in line) for level, line in log.read()]
    assert levels == [("warn", True), ("info", False), ("warn", True)]


def test_both_listeners(pair: Pair, other: Pair) -> None:
    """Either may be without; a bad pair of one does not keep the other's from being renewed."""
    none = SimpleNamespace(tls_certificate="", tls_private_key="", tls_client_ca="")
    grpc, http = (
        SimpleNamespace(tls_certificate=of.certificate, tls_private_key=of.private_key, tls_client_ca="")
        for of in (pair, other)
    )
    assert ListenerCertificates(grpc=none, http=none).all == ()
    assert ListenerCertificates(grpc=none, http=none).reload()
    alone = ListenerCertificates(grpc=none, http=http)
    assert [certificates.files.listener for certificates in alone.all] == ["http"]
    both = ListenerCertificates(grpc=grpc, http=http)
    contexts = [certificates.context for certificates in both.all]
    put(pair, other, "certificate")
    assert not both.reload()
    both.look()
    assert [old is new.context for old, new in zip(contexts, both.all)] == [True, False]
    with pytest.raises(Unavailable, match="is not the key of"):
        ListenerCertificates(grpc=grpc, http=http)
