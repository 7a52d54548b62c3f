"""Files of certificates: what is read from good ones, and the one line that a bad one gets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.x509 import load_pem_x509_certificates

from kvtwisted.core.errors import Unavailable
from kvtwisted.sessions.certificates import MAX_FILE_BYTES, CertificateFiles, Identity, read_identity
from tests.support.certificates import Pair, authority

_KINDS = "is of a kind that TLS clients do not take; good ones: P-256, P-384, RSA, P-521, Ed25519"


def files_of(pair: Pair, client_ca: str = "") -> CertificateFiles:
    """The files of an HTTP listener."""
    return CertificateFiles("http", pair.certificate, pair.private_key, client_ca)


def refusal(files: CertificateFiles) -> str:
    """What `read_identity` says."""
    with pytest.raises(Unavailable) as refused:
        read_identity(files)
    return str(refused.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rsa.generate_private_key(65537, 2048),
        lambda: ec.generate_private_key(ec.SECP256R1()),
        lambda: ec.generate_private_key(ec.SECP384R1()),
        lambda: ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate,
    ],
)
def test_good_pairs(tmp_path: Path, make: Any) -> None:
    """Of every usual kind; the dates are the certificate's."""
    pair = Pair(tmp_path, key=make())
    identity = read_identity(files_of(pair))
    assert (identity.chain, identity.private_key, identity.client_ca) == (pair.chain, pair.key_pem, b"")
    assert identity.not_before == pair.x509.not_valid_before_utc.timestamp()
    assert identity.not_after == pair.x509.not_valid_after_utc.timestamp()
    assert identity.warnings == ()


def test_a_chain(tmp_path: Path) -> None:
    """All certificates of the file are kept, in their order; text around them is not."""
    above = authority(tmp_path)
    pair = Pair(tmp_path, issuer=above)
    Path(pair.certificate).write_bytes(b"subject=me\n" + pair.chain + b"\nissuer=it\n" + above.chain)
    assert load_pem_x509_certificates(read_identity(files_of(pair)).chain) == [pair.x509, above.x509]


def test_one_file_for_both(tmp_path: Path) -> None:
    """As some programs make it."""
    pair = Pair(tmp_path)
    Path(pair.certificate).write_bytes(pair.chain + pair.key_pem)
    files = CertificateFiles("http", pair.certificate, pair.certificate)
    identity = read_identity(files)
    assert (identity.chain, identity.private_key) == (pair.chain, pair.key_pem)


def test_clients_authorities(tmp_path: Path) -> None:
    """Several, as they are."""
    one, two = authority(tmp_path, "one"), authority(tmp_path, "two")
    Path(one.certificate).write_bytes(one.chain + two.chain)
    assert read_identity(files_of(Pair(tmp_path), one.certificate)).client_ca == one.chain + two.chain


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", ": No such file or directory"),
        ("folder", ": is not a file"),
        ("pipe", ": is not a file"),
        ("empty", " has no certificate in it"),
        ("large", f" has more than {MAX_FILE_BYTES} bytes"),
        ("damaged", " has a certificate in it that cannot be read"),
        ("key", " has no certificate in it"),
    ],
)
@pytest.mark.parametrize("name", ["certificate", "client_ca"])
def test_bad_certificates(tmp_path: Path, kind: str, sentence: str, name: str) -> None:
    """One line with the setting and the file; nothing waits for a pipe."""
    pair, bad = Pair(tmp_path), tmp_path / "bad.pem"
    make_bad(bad, kind, pair)
    paths = {"certificate": pair.certificate, "private_key": pair.private_key, name: str(bad)}
    assert refusal(CertificateFiles("grpc", **paths)) == f"grpc.tls_{name}: {bad}{sentence}"


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", ": No such file or directory"),
        ("folder", ": is not a file"),
        ("pipe", ": is not a file"),
        ("empty", " has no private key in it"),
        ("large", f" has more than {MAX_FILE_BYTES} bytes"),
        ("damaged key", " has a private key in it that cannot be read"),
        ("certificate", " has no private key in it"),
    ],
)
def test_bad_keys(tmp_path: Path, kind: str, sentence: str) -> None:
    """The same for keys."""
    pair, bad = Pair(tmp_path), tmp_path / "bad.pem"
    make_bad(bad, kind, pair)
    assert refusal(CertificateFiles("grpc", pair.certificate, str(bad))) == f"grpc.tls_private_key: {bad}{sentence}"


def make_bad(path: Path, kind: str, pair: Pair) -> None:
    """A file that is of no use."""
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind != "missing":
        content = {
            "empty": b"",
            "large": b"x" * (MAX_FILE_BYTES + 1),
            "damaged": pair.chain.replace(b"M", b"A", 1),
            "damaged key": pair.key_pem.replace(b"M", b"A", 1),
            "key": pair.key_pem,
            "certificate": pair.chain,
        }
        path.write_bytes(content[kind])


@pytest.mark.parametrize("passphrase", [b"secret"])
def test_a_key_with_a_passphrase(tmp_path: Path, passphrase: bytes) -> None:
    """In both forms of such files; nobody is asked."""
    pair = Pair(tmp_path, passphrase=passphrase)
    said = f"http.tls_private_key: {pair.private_key} has a passphrase, which nobody could be asked for"
    assert refusal(files_of(pair)) == said
    modern = Pair(tmp_path, key=ed25519.Ed25519PrivateKey.generate(), passphrase=passphrase)
    assert b"ENCRYPTED PRIVATE KEY" in modern.key_pem
    assert refusal(files_of(modern)) == said


def test_the_key_of_another(tmp_path: Path) -> None:
    """It is named with the certificate that it should fit."""
    pair, other = Pair(tmp_path), Pair(tmp_path, "other")
    assert refusal(CertificateFiles("http", pair.certificate, other.private_key)) == (
        f"http.tls_private_key: {other.private_key} is not the key of the first certificate in {pair.certificate}"
    )


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (rsa.generate_private_key(65537, 1024), "is too weak: 1024 bits, and at least 2048 are needed"),
        (ec.generate_private_key(ec.SECP224R1()), _KINDS),
        (ec.generate_private_key(ec.SECP256K1()), _KINDS),
        (ed448.Ed448PrivateKey.generate(), _KINDS),
        (dsa.generate_private_key(2048), _KINDS),
    ],
    ids=["RSA", "P-224", "secp256k1", "Ed448", "DSA"],
)
def test_weak_keys(tmp_path: Path, key: Any, sentence: str) -> None:
    """The limit is named."""
    pair = Pair(tmp_path, key=key)
    assert refusal(files_of(pair)) == f"http.tls_private_key: {pair.private_key} {sentence}"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (ec.generate_private_key(ec.SECP521R1()), "is on P-521, which grpcio's clients do not take"),
        (ed25519.Ed25519PrivateKey.generate(), "is an Ed25519 key, which grpcio's clients do not take"),
        (ec.generate_private_key(ec.SECP384R1()), ""),
    ],
)
def test_keys_that_some_grpc_clients_refuse(tmp_path: Path, key: Any, said: str) -> None:
    """They are used, with a warning where gRPC clients come."""
    pair = Pair(tmp_path, key=key)
    assert read_identity(files_of(pair)).warnings == ()
    warnings = read_identity(CertificateFiles("grpc", pair.certificate, pair.private_key)).warnings
    assert warnings == ((f"grpc.tls_private_key: {pair.private_key} {said}",) if said else ())


def test_an_authority_that_is_none(tmp_path: Path) -> None:
    """A client's own certificate in the place of its authority's."""
    pair, client = Pair(tmp_path), Pair(tmp_path, "client", common_names=("ann",), authority=False)
    assert refusal(files_of(pair, client.certificate)) == (
        f"http.tls_client_ca: {client.certificate} has a certificate in it that is not an authority's: CN=ann"
    )


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_modes(open_folder: Path, mode: int, warned: bool) -> None:
    """A key that every user may read is used, with a warning; not where others cannot come to it."""
    pair = Pair(open_folder)
    Path(pair.private_key).chmod(mode)
    identity: Identity = read_identity(files_of(pair))
    said = (
        f"http.tls_private_key: {pair.private_key}: its mode is {mode:04o}, and every user of this machine can read it"
        "; chmod 600 mends it, or 640 with a group of the service's, or a folder around it that lets nobody else in"
    )
    assert identity.warnings == ((said,) if warned else ())
    open_folder.chmod(0o700)
    assert read_identity(files_of(pair)).warnings == ()


def test_signatures(tmp_path: Path) -> None:
    """They change when a file is written, replaced, or goes, and else do not."""
    pair, other = Pair(tmp_path), Pair(tmp_path, "other")
    files = files_of(pair)
    signatures = [files.signature()]
    assert files.signature() == signatures[0]
    os.replace(other.private_key, pair.private_key)
    signatures.append(files.signature())
    os.unlink(pair.certificate)
    signatures.append(files.signature())
    os.symlink(other.certificate, pair.certificate)
    signatures.append(files.signature())
    assert len(set(signatures)) == 4
