"""What OpenSSL is told, seen from a client: which groups a key is agreed upon in."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from OpenSSL import SSL
from OpenSSL._util import lib as openssl

from kvtwisted.sessions.certificates import CertificateFiles, read_identity
from kvtwisted.tls import contexts
from tests.support.certificates import Pair

ALLOWED, REFUSED = ("X25519", "P-256", "P-384"), ("P-521", "X448", "ffdhe2048", "ffdhe3072")

#: The server's word in TLS 1.3; and the client's, if it is the first to know.
NONE_IN_COMMON = "no suitable key share|alert handshake failure"


def served(pair: Pair) -> SSL.Context:
    """The context of a server with this pair."""
    return contexts.make_context(read_identity(CertificateFiles("http", pair.certificate, pair.private_key)), b"h2")


def shake_hands(server: SSL.Context, groups: str = "", version: int = SSL.TLS1_3_VERSION) -> SSL.Connection:
    """The client's end of a connection in memory, with these groups or OpenSSL's. SSL.Error: one end refuses."""
    own = SSL.Context(SSL.TLS_CLIENT_METHOD)
    own.set_min_proto_version(version)
    own.set_max_proto_version(version)
    if groups:
        assert openssl.SSL_CTX_set1_curves_list(own._context, groups.encode("ascii")) == 1
    client, other = SSL.Connection(own), SSL.Connection(server)
    client.set_connect_state()
    other.set_accept_state()
    ends = [client, other]
    for _ in range(5):
        for end, peer in (ends, ends[::-1]):
            with suppress(SSL.WantReadError):
                end.do_handshake()
            with suppress(SSL.WantReadError):
                peer.bio_write(end.bio_read(1 << 16))
    client.do_handshake()
    return client


@pytest.fixture
def server(tmp_path: Path) -> SSL.Context:
    """With a pair that TLS 1.2 takes whatever the client's curves are."""
    return served(Pair(tmp_path, key=rsa.generate_private_key(65537, 2048)))


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
@pytest.mark.parametrize("group", ALLOWED)
def test_curves(server: SSL.Context, group: str, version: int) -> None:
    """Each of them alone will do."""
    assert shake_hands(server, group, version).get_protocol_version() == version


@pytest.mark.parametrize("group", REFUSED)
def test_no_other_group(server: SSL.Context, group: str) -> None:
    """Neither finite fields nor the curves that cost more."""
    with pytest.raises(SSL.Error, match=NONE_IN_COMMON):
        shake_hands(server, group)


def test_the_combination_with_ml_kem(server: SSL.Context) -> None:
    """Is taken where both ends have it; a client without gets X25519."""
    if SSL.OPENSSL_VERSION_NUMBER < 0x30500000:
        pytest.skip("OpenSSL has it from 3.5 on")
    assert shake_hands(server, "X25519MLKEM768").get_protocol_version() == SSL.TLS1_3_VERSION


def test_where_openssl_does_not_know_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next ones count, and nothing of the failure is left for others to find."""
    monkeypatch.setattr(contexts, "GROUPS", (b"unknown:X25519", b"P-384"))
    server = served(Pair(tmp_path))
    assert shake_hands(server, "P-384").get_protocol_version() == SSL.TLS1_3_VERSION
    with pytest.raises(SSL.Error, match=NONE_IN_COMMON):
        shake_hands(server, "X25519")
    # Nor are OpenSSL's own groups a failure.
    monkeypatch.setattr(contexts, "GROUPS", (b"unknown",))
    assert shake_hands(served(Pair(tmp_path))).get_protocol_version() == SSL.TLS1_3_VERSION


@pytest.mark.parametrize("version", [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION])
def test_certificates_on_another_curve(tmp_path: Path, version: int) -> None:
    """What a certificate is on is another matter than what keys are agreed upon on."""
    server = served(Pair(tmp_path, key=ec.generate_private_key(ec.SECP521R1())))
    assert shake_hands(server, "", version).get_protocol_version() == version
