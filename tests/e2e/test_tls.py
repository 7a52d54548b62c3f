"""A real server with TLS on both listeners, set up and asked as docs/tls.md says; and one under attack."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv
from tests.docs.pages import ROOT, blocks
from tests.support.certificates import Pair, authority

from .harness import PATIENCE, Launcher, Server, environment, eventually

PAGE = ROOT / "docs" / "tls.md"
_EXPIRY = re.compile(r'^kv_tls_certificate_expiry_seconds\{listener="(\w+)"\} (\S+)$', re.MULTILINE)


def curl(server: Server, path: str, *options: str) -> subprocess.CompletedProcess[str]:
    """What curl says of a path; it trusts kv.pem unless the options say otherwise."""
    port = server.http_address.rpartition(":")[2]
    trust = () if "--cacert" in options else ("--cacert", "kv.pem")
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", *trust, *options, f"https://localhost:{port}{path}"],
        cwd=server.folder, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip


def command(server: Server, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command `kvtwisted` says."""
    port = server.http_address.rpartition(":")[2]
    return subprocess.run(
        [sys.executable, "-c", "from kvtwisted.cli import main; main()", *arguments, "--url", f"https://localhost:{port}"],
        cwd=server.folder, capture_output=True, text=True, timeout=PATIENCE, check=False, env=environment(None),
    )  # fmt: skip


def channel(server: Server, root: bytes) -> Any:
    """A gRPC channel that trusts a certificate, with connections of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
    port = server.grpc_address.rpartition(":")[2]
    return grpc.secure_channel(f"localhost:{port}", grpc.ssl_channel_credentials(root), options=options)


def get(to: Any, key: str) -> Any:
    """A Get over a channel."""
    call = to.unary_unary("/kv.v1.KeyValueService/Get", kv.GetRequest.SerializeToString, kv.GetResponse.FromString)
    return call(kv.GetRequest(key=key), timeout=PATIENCE, wait_for_ready=True)


def served(server: Server, listener: str) -> bytes:
    """The certificate that a new connection gets, DER."""
    address = server.http_address if listener == "http" else server.grpc_address
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    trust.set_alpn_protocols(["http/1.1" if listener == "http" else "h2"])
    host, _, port = address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        found = connection.getpeercert(binary_form=True)
        assert found is not None
        return found


def replace(server: Server, pair: Pair) -> None:
    """Put a new pair in the place of the old one, the certificate first."""
    for source, name in ((pair.certificate, "kv.pem"), (pair.private_key, "kv-key.pem")):
        shutil.copy(source, server.folder / f"{name}.new")
        os.replace(server.folder / f"{name}.new", server.folder / name)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("openssl") is None or shutil.which("curl") is None, reason="needs openssl and curl")
@pytest.mark.parametrize("transport", ["native", "threaded"])
def test_as_the_page_says(launch: Launcher, tmp_path: Path, transport: str) -> None:
    """A pair for trials, both listeners, their clients; then renewal without a restart, and a bad pair."""
    folder = tmp_path / "server"
    folder.mkdir()
    subprocess.run(["sh", "-ec", blocks(PAGE, "sh")[0]], cwd=folder, check=True, capture_output=True, timeout=PATIENCE)
    assert (folder / "kv-key.pem").stat().st_mode & 0o077 == 0
    (config,) = blocks(PAGE, "toml")
    (folder / "kv.toml").write_text(config.replace("/etc/kvtwisted/", ""))
    server = launch("--config", "kv.toml", "--grpc-transport", transport)
    server.wait_for("HTTP on https://")
    server.wait_for(r"gRPC on \S+ over TLS")

    old = (folder / "kv.pem").read_bytes()
    new = Pair(tmp_path, "new", days=(-1, 200))
    der = ssl.PEM_cert_to_DER_cert(new.chain.decode())
    with channel(server, old) as before:
        done = curl(server, "/api/v1/set", "--json", '{"key": "a", "value": "1"}')
        assert json.loads(done.stdout)["success"], done.stderr
        assert get(before, "a").value == "1"
        assert command(server, "backups", "--ca", "kv.pem").stdout == "no backups\n"
        assert command(server, "backups").returncode == 1
        expiries = dict(_EXPIRY.findall(curl(server, "/metrics").stdout))
        assert set(expiries) == {"grpc", "http"}

        replace(server, new)
        for listener in ("http", "grpc"):
            eventually(lambda listener=listener: served(server, listener) == der)
        # An open connection goes on with what it has.
        assert get(before, "a").value == "1"
    with channel(server, new.chain) as after:
        assert get(after, "a").value == "1"
    expiries = dict(_EXPIRY.findall(curl(server, "/metrics").stdout))
    assert {float(value) for value in expiries.values()} == {new.x509.not_valid_after_utc.timestamp()}

    other = Pair(tmp_path, "other")
    shutil.copy(other.certificate, folder / "kv.pem")
    for listener in ("http", "grpc"):
        refusal = (
            rf"{listener}\.tls_private_key: kv-key\.pem is not the key of the first certificate in kv\.pem; "
            rf"{listener} goes on with the certificate that it has"
        )
        server.wait_for(refusal)
        assert served(server, listener) == der
        assert len(re.findall(refusal, server.output)) == 1
    server.stop()
    assert "Traceback" not in server.output


def test_clients_without_a_certificate_are_refused(launch: Launcher, tmp_path: Path) -> None:
    """With an authority for clients; the command shows its certificate."""
    signer = authority(tmp_path)
    pair = Pair(tmp_path, issuer=signer, authority=False)
    ann = Pair(tmp_path, "ann", common_names=("ann",), names=(), authority=False, issuer=signer)
    server = launch(
        "--http-tls-certificate", pair.certificate, "--http-tls-private-key", pair.private_key,
        "--http-tls-client-ca", signer.certificate,
    )  # fmt: skip
    trusting = ("--ca", signer.certificate)
    assert command(server, "backups", *trusting).returncode == 1
    shown = command(server, "backups", *trusting, "--cert", ann.certificate, "--key", ann.private_key)
    assert (shown.stdout, shown.returncode) == ("no backups\n", 0), shown.stderr


def test_idle_connections_do_not_hold_up_the_end(launch: Launcher, tmp_path: Path) -> None:
    """Nor do unfinished handshakes: the server ends although its grace is an hour, and says goodbye."""
    pair = Pair(tmp_path)
    files = ("certificate", pair.certificate), ("private-key", pair.private_key)
    options = [option for name in ("http", "grpc") for key, path in files for option in (f"--{name}-tls-{key}", path)]
    server = launch(*options, "--limits-shutdown-grace", "3600", "--grpc-transport", "native")
    trust = ssl.create_default_context(cafile=pair.certificate)
    host, _, port = server.http_address.rpartition(":")
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as silent,
        socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
        trust.wrap_socket(plain, server_hostname="localhost", suppress_ragged_eofs=False) as idle,
        channel(server, pair.chain) as calls,
    ):
        idle.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"}"):
            received += idle.recv(65536)
        assert not get(calls, "missing").found
        server.stop()
        assert idle.recv(1) == b""
        with pytest.raises(ConnectionResetError):
            silent.recv(1)


@pytest.mark.long
@pytest.mark.parametrize("transport", ["native", "threaded"])
def test_a_flood_of_unfinished_handshakes(launch: Launcher, tmp_path: Path, transport: str) -> None:
    """Clients beside it are served all the time; afterwards the descriptors are back where they were."""
    pair = Pair(tmp_path)
    files = ("certificate", pair.certificate), ("private-key", pair.private_key)
    options = [option for name in ("http", "grpc") for key, path in files for option in (f"--{name}-tls-{key}", path)]
    server = launch(*options, "--grpc-transport", transport)
    addresses = [server.http_address, server.grpc_address]
    trust = ssl.create_default_context(cafile=pair.certificate)

    def ask() -> None:
        """On new connections: the handshake is part of it."""
        host, _, port = server.http_address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
            trust.wrap_socket(plain, server_hostname="localhost") as connection,
        ):
            connection.sendall(b"GET /api/v1/health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            assert b"200 OK" in connection.recv(65536)
        with channel(server, pair.chain) as calls:
            assert not get(calls, "missing").found

    ask()
    before, memory = server.descriptors, server.resident
    stopped = threading.Event()
    opened = [0]

    def attack(number: int) -> None:
        """Open connections that send nothing, a piece of a handshake, or a whole first flight and no more."""
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        halfway = trust.wrap_bio(incoming, outgoing, server_hostname="localhost")
        with pytest.raises(ssl.SSLWantReadError):
            halfway.do_handshake()
        hello = outgoing.read()
        mine: list[socket.socket] = []
        host, _, port = addresses[number % 2].rpartition(":")
        try:
            while len(mine) < 150 and not stopped.is_set():
                mine.append(socket.create_connection((host, int(port)), timeout=PATIENCE))
                mine[-1].sendall((hello, hello[:20], b"\x16")[len(mine) % 3])
                opened[0] += 1
            stopped.wait(PATIENCE)
        finally:
            for connection in mine:
                connection.close()

    attackers = [threading.Thread(target=attack, args=(number,)) for number in range(4)]
    for attacker in attackers:
        attacker.start()
    try:
        for _ in range(10):
            ask()
        eventually(lambda: opened[0] >= 500)
        for _ in range(10):
            ask()
        # Cut off by the server: the attackers still hold on.
        eventually(lambda: server.descriptors <= before + 10)
        eventually(lambda: server.resident < memory + (24 << 20))
    finally:
        stopped.set()
        for attacker in attackers:
            attacker.join(PATIENCE)
    ask()
    host, _, port = server.http_address.rpartition(":")
    metrics = b""
    with (
        socket.create_connection((host, int(port)), timeout=PATIENCE) as plain,
        trust.wrap_socket(plain, server_hostname="localhost") as connection,
    ):
        connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        while data := connection.recv(65536):
            metrics += data
    for counted in ["http", "grpc"] if transport == "native" else ["http"]:
        (cut,) = re.findall(rb'kv_cut_off_total{reason="handshake",transport="%s"} (\S+)' % counted.encode(), metrics)
        # Two of four attackers, who opened 500 connections at least in all, went for each.
        assert float(cut) >= 100
    server.send(signal.SIGTERM)
    assert server.wait() == -signal.SIGTERM, server.output
