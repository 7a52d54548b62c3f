"""What a scanner that knows what is weak finds on both ports: sslyze (https://github.com/nabla-c0d3/sslyze).

It connects a few hundred times to each port, with OpenSSL libraries old enough to speak what nobody should. All of it
stays on this machine: the authorities that it knows are part of it, and our certificates name no address to ask.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from tests.support.certificates import Pair, authority

from .harness import PATIENCE, REPOSITORY, Launcher, eventually

#: `make tools` puts it there; elsewhere it may be on PATH.
SSLYZE = shutil.which(
    "sslyze", path=os.pathsep.join([str(REPOSITORY / ".venv-scan" / "bin"), os.environ.get("PATH", "")])
)
#: Everything that it can look at but the headers of HTTP. The last one not at grpcio's port: it reads before it looks,
#: and names no protocol by ALPN, upon which grpcio closes.
COMMANDS = (
    "--certinfo", "--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--compression",
    "--elliptic_curves", "--ems", "--fallback", "--heartbleed", "--openssl_ccs", "--reneg", "--resum", "--robot",
    "--early_data",
)  # fmt: skip
OLD_VERSIONS = ("ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1")
KEYS = {
    "ECDSA": lambda: ec.generate_private_key(ec.SECP256R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
}
#: As docs/tls.md has them.
TLS_1_3 = {"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"}
AES = {"AES_128_GCM_SHA256", "AES_256_GCM_SHA384"}
TLS_1_2 = {"OpenSSL": AES | {"CHACHA20_POLY1305_SHA256"}, "grpcio": AES}
#: The curves of Mozilla's profile "intermediate".
CURVES = {"X25519", "secp256r1", "secp384r1"}
#: What grpcio's port may take beside them. There is no setting for it, and releases differ: 1.80 takes secp256r1 alone.
#: The profile leaves P-521 out since few clients use it, not for being weak: it is stronger than the others.
GRPCIO_CURVES = {"secp521r1"}
#: Groups of TLS 1.3 that are no curves (RFC 7919). sslyze does not look for them.
FINITE_FIELDS = "ffdhe2048:ffdhe3072"


def scan(address: str, root: str, folder: Path, commands: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """What sslyze finds, by its names, and what is not as Mozilla's profile has it: criterion and sentence.

    Fails unless every look that was asked for was made to its end.
    """
    found = folder / f"{address}.json"
    done = subprocess.run(
        [
            str(SSLYZE), "--quiet", f"--json_out={found}", "--mozilla_config=intermediate", "--sni=localhost",
            f"--certinfo_ca_file={root}", *commands, address,
        ],
        env={name: text for name, text in os.environ.items() if not name.startswith("PYTHON")},
        cwd=folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    said = f"sslyze ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    # 1: it has something to say about the profile.
    assert done.returncode in (0, 1), said
    assert found.exists(), said
    (server,) = json.loads(found.read_text("utf-8"))["server_scan_results"]
    assert server["connectivity_status"] == server["scan_status"] == "COMPLETED", server
    results = {}
    for name, look in server["scan_result"].items():
        if look["status"] != "NOT_SCHEDULED":
            assert look["status"] == "COMPLETED", (name, look)
            results[name] = look["result"]
    assert len(results) == len(commands), sorted(results)
    verdict = re.search(rf"^ *{address}: (OK|FAILED) - .*\n((?: +\* .*\n)*)", done.stdout, re.MULTILINE)
    assert verdict is not None, said
    deviations = dict(re.findall(r"\* (\w+): (.*)", verdict[2]))
    assert (verdict[1] == "OK") is (not deviations), said
    return results, deviations


def offers_early_data(address: str, folder: Path) -> bool:
    """Whether a port's first ticket of TLS 1.3 allows early data, as openssl reads it. Waits for a ticket."""
    ticket = folder / "ticket.pem"
    client = subprocess.Popen(
        ["openssl", "s_client", "-connect", address, "-tls1_3", "-alpn", "h2", "-sess_out", str(ticket)],
        # It stays connected as long as its input has no end.
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        eventually(lambda: ticket.exists() and ticket.read_bytes().endswith(b"-----\n"))
    finally:
        client.kill()
        client.communicate()
    text = subprocess.run(
        ["openssl", "sess_id", "-in", str(ticket), "-noout", "-text"],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    ).stdout  # fmt: skip
    (allowed,) = re.findall(r"Max Early Data: (\d+)", text)
    return int(allowed) > 0


def accepted(result: dict[str, Any], version: str) -> set[str]:
    """The suites of a version; each makes a new key on an elliptic curve: there is no key to be stolen later."""
    suites = result[f"{version}_cipher_suites"]["accepted_cipher_suites"]
    for suite in suites:
        assert not suite["cipher_suite"]["is_anonymous"]
        key = suite["ephemeral_key"]
        assert key is not None, suite
        assert key["type_name"] == "ECDH", suite
    return {suite["cipher_suite"]["name"] for suite in suites}


def check_suites(result: dict[str, Any], key: str, library: str) -> None:
    """TLS 1.2 and 1.3 alone, with the suites that docs/tls.md has and no others."""
    for version in OLD_VERSIONS:
        assert not result[f"{version}_cipher_suites"]["is_tls_version_supported"], version
    assert accepted(result, "tls_1_3") == TLS_1_3
    assert accepted(result, "tls_1_2") == {f"TLS_ECDHE_{key}_WITH_{cipher}" for cipher in TLS_1_2[library]}
    curves = {curve["name"] for curve in result["elliptic_curves"]["supported_curves"]}
    if library == "grpcio":
        assert {"secp256r1"} <= curves <= CURVES | GRPCIO_CURVES
    else:
        assert curves == CURVES


def check_finite_fields(address: str) -> None:
    """A client that agrees upon keys in finite fields alone is refused; one with a curve besides is not."""
    for groups, agreed in ((FINITE_FIELDS, False), (f"{FINITE_FIELDS}:P-256", True)):
        done = subprocess.run(
            ["openssl", "s_client", "-connect", address, "-tls1_3", "-alpn", "http/1.1,h2", "-groups", groups],
            stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False,
        )  # fmt: skip
        assert (b"New, TLSv1.3, Cipher is TLS_" if agreed else b"New, (NONE), Cipher is (NONE)") in done.stdout, done


def check_faults(result: dict[str, Any]) -> None:
    """None of the faults that have names, and none of what TLS offers and nobody should take."""
    assert not result["heartbleed"]["is_vulnerable_to_heartbleed"]
    assert not result["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
    assert result["robot"]["robot_result"] == "NOT_VULNERABLE_RSA_NOT_SUPPORTED"
    assert not result["tls_compression"]["supports_compression"]
    assert not result["tls_1_3_early_data"]["supports_early_data"]
    renegotiation = result["session_renegotiation"]
    assert renegotiation["supports_secure_renegotiation"]
    assert not renegotiation["is_vulnerable_to_client_renegotiation_dos"]
    assert renegotiation["client_renegotiations_success_count"] == 0
    assert result["tls_fallback_scsv"]["supports_fallback_scsv"]
    assert result["tls_extended_master_secret"]["supports_ems_extension"]


def check_resumption(result: dict[str, Any], library: str) -> None:
    """Of TLS 1.2: none; grpcio's in both ways. TLS 1.3 has a test of its own: tests/http/test_tls.py."""
    resumption = result["session_resumption"]
    for way in ("session_id", "tls_ticket"):
        tried, resumed = [resumption[f"{way}_{kind}_resumptions_count"] for kind in ("attempted", "successful")]
        assert tried > 0
        assert (resumed > 0) is (library == "grpcio"), (way, resumption)


def check_certificate(result: dict[str, Any]) -> None:
    """The whole chain is sent but for the root, in its order, and is good for the name `localhost`."""
    (deployment,) = result["certificate_info"]["certificate_deployments"]
    assert len(deployment["received_certificate_chain"]) == 2
    assert deployment["received_chain_has_valid_order"]
    assert not deployment["received_chain_contains_anchor_certificate"]
    assert not deployment["verified_chain_has_sha1_signature"]
    # The store of our root; all others are the world's, where nobody knows it.
    trusted = [found for found in deployment["path_validation_results"] if found["was_validation_successful"]]
    assert [found["trust_store"]["name"] for found in trusted] == ["Supplied CA file"]


@pytest.mark.parametrize("transport", ["native", pytest.param("threaded", marks=pytest.mark.long)])
@pytest.mark.parametrize("key", ["ECDSA", pytest.param("RSA", marks=pytest.mark.long)])
def test_nothing_weak_is_found(launch: Launcher, tmp_path: Path, key: str, transport: str) -> None:
    """Both ports, and grpcio's, with a certificate of either usual kind, from an authority below a root."""
    if missing := [name for name, path in (("sslyze", SSLYZE), ("openssl", shutil.which("openssl"))) if path is None]:
        # CI must look.
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{missing} not installed: make tools")
    root = authority(tmp_path, "root")
    middle = Pair(tmp_path, "middle", common_names=("the middle",), names=(), issuer=root)
    pair = Pair(tmp_path, key=KEYS[key](), authority=False, issuer=middle)
    Path(pair.certificate).write_bytes(pair.chain + middle.chain)
    files = ("certificate", pair.certificate), ("private-key", pair.private_key)
    options = [option for name in ("http", "grpc") for kind, path in files for option in (f"--{name}-tls-{kind}", path)]
    server = launch(*options, "--grpc-transport", transport)

    # HTTP's port is the same with either transport.
    for address in [server.grpc_address, server.http_address][: 2 if transport == "native" else 1]:
        grpcio = transport == "threaded"
        result, deviations = scan(address, root.certificate, tmp_path, COMMANDS[: -1 if grpcio else None])
        if grpcio:
            result["tls_1_3_early_data"] = {"supports_early_data": offers_early_data(address, tmp_path)}
        library = "grpcio" if grpcio else "OpenSSL"
        check_suites(result, key, library)
        check_faults(result)
        check_resumption(result, library)
        check_certificate(result)
        check_finite_fields(address)
        # All that is not as the profile has it: those curves of grpcio's.
        assert set(deviations) <= ({"tls_curves"} if grpcio else set()), deviations
        assert set(re.findall(r"'(\w+)'", deviations.get("tls_curves", ""))) <= GRPCIO_CURVES, deviations
    server.stop()
    assert "Traceback" not in server.output
