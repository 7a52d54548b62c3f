"""The name of a client by its certificate."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from pathlib import Path

import pytest
from cryptography import x509

from kvtwisted.sessions.peer_names import Shown, shown_by, shown_by_pem
from tests.support.certificates import Pair

DNS, URI = x509.DNSName, x509.UniformResourceIdentifier


@pytest.mark.parametrize(
    ("names", "common_names", "name"),
    [
        ([], ["ann"], "ann"),
        ([], ["Ann of the office"], "Ann of the office"),
        ([], ["Änne 安"], "Änne 安"),
        ([DNS("ann.example")], ["bob"], "ann.example"),
        ([URI("spiffe://example/ann")], ["bob"], "spiffe://example/ann"),
        ([URI("spiffe://example/ann"), DNS("ann.example")], ["bob"], "spiffe://example/ann"),
        ([DNS("ann.example"), URI("spiffe://example/ann")], ["bob"], "ann.example"),
        # Of other kinds: they name no client.
        ([x509.IPAddress(IPv4Address("127.0.0.1")), x509.RFC822Name("ann@example")], ["ann"], "ann"),
        ([x509.IPAddress(IPv4Address("127.0.0.1")), DNS("ann.example")], ["bob"], "ann.example"),
        # Which of them?
        ([], ["ann", "bob"], None),
        ([], [], None),
        # A bad one is not passed over for a better one.
        ([DNS("ann.example\0.evil.example")], ["ann"], None),
        ([URI("spiffe://example/a\nb"), DNS("ann.example")], ["ann"], None),
        ([DNS("")], ["ann"], None),
        ([], ["ann\0"], None),
        ([], ["ann\u202e"], None),
        ([], ["ann\x7f"], None),
        ([], [" ann"], None),
        ([], ["ann "], None),
        ([DNS("a" * 255)], [], "a" * 255),
        ([DNS("a" * 256)], ["ann"], None),
    ],
)
def test_names(
    tmp_path: Path, names: Sequence[x509.GeneralName], common_names: Sequence[str], name: str | None
) -> None:
    """Of a parsed certificate, and of one in PEM."""
    pair = Pair(tmp_path, names=names, common_names=common_names)
    until = pair.x509.not_valid_after_utc.timestamp()
    assert shown_by_pem(pair.chain) == shown_by(pair.x509) == Shown(name, until)


@pytest.mark.parametrize("pem", [b"", b"ann", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"])
def test_no_certificate(pem: bytes) -> None:
    """Nobody."""
    assert shown_by_pem(pem) == Shown()
