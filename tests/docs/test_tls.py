"""docs/tls.md: the lines that it shows are those of the code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from kvtwisted.config.schema import build
from kvtwisted.core.errors import KvError
from kvtwisted.sessions import certificates
from kvtwisted.sessions.certificates import CertificateFiles, read_identity
from kvtwisted.tls import connections, renewal
from tests.support.certificates import Pair

from .pages import ROOT, prose, tables

PAGE = ROOT / "docs" / "tls.md"

FILES = CertificateFiles("http", "kv.pem", "kv-key.pem")


def read(files: CertificateFiles = FILES) -> None:
    """Read the files of the current folder."""
    read_identity(files)


def missing(folder: Path) -> None:
    """No file."""
    read()


def no_certificate(folder: Path) -> None:
    """Something else."""
    (folder / "kv.pem").write_text("nothing")
    read()


def no_key(folder: Path) -> None:
    """Something else."""
    Pair(folder, "kv")
    (folder / "kv-key.pem").write_text("nothing")
    read()


def a_passphrase(folder: Path) -> None:
    """A key that is encrypted."""
    Pair(folder, "kv", passphrase=b"secret")
    read()


def another_key(folder: Path) -> None:
    """Of another pair."""
    other, pair = Pair(folder, "other"), Pair(folder, "kv")
    Path(pair.private_key).write_bytes(other.key_pem)
    read()


def a_weak_key(folder: Path) -> None:
    """A short one."""
    Pair(folder, "kv", key=rsa.generate_private_key(65537, 1024))
    read()


def an_odd_key(folder: Path) -> None:
    """On a curve of another trade."""
    Pair(folder, "kv", key=ec.generate_private_key(ec.SECP256K1()))
    read()


def a_clients_certificate(folder: Path) -> None:
    """In the place of its authority's."""
    Pair(folder, "kv")
    Pair(folder, "ann", common_names=("ann",), authority=False)
    read(CertificateFiles("http", "kv.pem", "kv-key.pem", "ann.pem"))


def half_a_pair(folder: Path) -> None:
    """In the configuration."""
    build({"http.tls_certificate": "kv.pem"})


def an_authority_alone(folder: Path) -> None:
    """In the configuration."""
    build({"http.tls_client_ca": "ca.pem"})


CASES = [
    missing, no_certificate, no_key, a_passphrase, another_key, a_weak_key, an_odd_key, a_clients_certificate,
    half_a_pair, an_authority_alone,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_lines(case: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in the table."""
    monkeypatch.chdir(tmp_path)
    # Relative paths, as the page has them.
    with pytest.raises(KvError) as refused:
        case(Path())
    lines = [row[0].strip("`") for row in tables(PAGE, "line")]
    assert str(refused.value) in lines
    assert len(lines) == len(CASES)


def test_figures() -> None:
    """Times and limits."""
    text = " ".join(prose(PAGE).split())
    assert f"looked at every {renewal.LOOK_SECONDS:.0f} seconds" in text
    assert f"| to complete the handshake | {connections.HANDSHAKE_SECONDS:.0f} s from the acceptance" in text
    assert renewal.WARNING_DAYS == (30, 7, 1, 0)
    assert "30 days, 7 days and 1 day left" in text
    assert f"RSA of at least {certificates.MIN_RSA_BITS} bits" in text
    assert certificates.MAX_FILE_BYTES == 1 << 20
