"""Clients' certificates on real connections of every kind, and the names that come out of them."""

from __future__ import annotations

import socket
import ssl
from ast import literal_eval
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

import grpc
import pytest
from cryptography.x509 import DNSName, UniformResourceIdentifier
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import StringTransport

from kvtwisted.rpc.grpcio.server import server_credentials
from kvtwisted.sessions.certificates import CertificateFiles
from kvtwisted.sessions.peer_names import Shown
from kvtwisted.tls.listening import over_tls, peer, rpc_peer
from kvtwisted.tls.renewal import Certificates
from tests.support.certificates import Pair, authority
from tests.support.reactors import background_reactor, on

#: Seconds after which something that should have happened has not.
PATIENCE = 30.0

#: Asks a server as the client with a certificate, or none; the name that it was known by, or None if it had no name.
Ask = Callable[["Pair | None"], "str | None"]


class Refused(Exception):
    """The server did not take the connection."""


class Echo(Protocol):
    """Says who is there."""

    def dataReceived(self, data: bytes) -> None:
        """Answer with the name."""
        self.transport.write(ascii(peer(self.transport).name).encode())
        self.transport.loseConnection()


class Site:
    """A server's pair, an authority, and clients that it has signed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = Pair(folder, "server")
        self.authority = authority(folder)

    def client(self, name: str, *, issuer: Pair | None = None, **facts: Any) -> Pair:
        """A client's pair."""
        facts = {"names": (), "authority": False, "common_names": (name,), **facts}
        return Pair(self.folder, f"client-{name}", issuer=issuer or self.authority, **facts)

    def certificates(self, client_ca: str) -> Certificates:
        """What a listener is given."""
        return Certificates(
            CertificateFiles("grpc", self.server.certificate, self.server.private_key, client_ca), b"h2"
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """One for all tests."""
    return Site(tmp_path_factory.mktemp("clients"))


@pytest.fixture(params=["twisted, TLS 1.2", "twisted, TLS 1.3", "grpcio"])
def listen(request: pytest.FixtureRequest, site: Site) -> Iterator[Callable[[Certificates], Ask]]:
    """Starts a server that says who has called; returns what asks it."""
    stops: list[Callable[[], object]] = []

    def start(certificates: Certificates) -> Ask:
        if request.param == "grpcio":
            return start_grpcio(site, certificates, stops)
        version = ssl.TLSVersion.TLSv1_2 if "1.2" in request.param else ssl.TLSVersion.TLSv1_3
        return start_twisted(site, certificates, version, stops)

    yield start
    for stop in stops:
        stop()


def start_twisted(site: Site, certificates: Certificates, version: ssl.TLSVersion, stops: list[Any]) -> Ask:
    """On Twisted's transports, which HTTP and native gRPC use."""
    reactor = background_reactor()
    factory = over_tls(reactor, certificates, Factory.forProtocol(Echo))
    port = on(reactor, lambda: reactor.listenTCP(0, factory, interface="127.0.0.1"))
    stops.append(lambda: on(reactor, port.stopListening))

    def ask(client: Pair | None) -> str | None:
        trust = ssl.create_default_context(cafile=site.server.certificate)
        trust.minimum_version = trust.maximum_version = version
        if client is not None:
            trust.load_cert_chain(client.certificate, client.private_key)
        try:
            with (
                socket.create_connection(("127.0.0.1", port.getHost().port), timeout=PATIENCE) as plain,
                trust.wrap_socket(plain, server_hostname="localhost") as connection,
            ):
                connection.sendall(b"who am I?")
                said = connection.recv(4096)
        except (ssl.SSLError, ConnectionError) as error:
            raise Refused from error
        if not said:
            raise Refused
        return None if said == b"None" else str(literal_eval(said.decode()))

    return ask


def start_grpcio(site: Site, certificates: Certificates, stops: list[Any]) -> Ask:
    """On grpcio, which threaded gRPC uses."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        return ascii(rpc_peer(context.auth_context()).name).encode()

    threads = ThreadPoolExecutor(2)
    server = grpc.server(threads)
    handler = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("who", {"AmI": handler})])
    port = server.add_secure_port("127.0.0.1:0", server_credentials(certificates))
    server.start()
    stops.append(lambda: server.stop(0).wait(PATIENCE))

    def ask(client: Pair | None) -> str | None:
        key, chain = (None, None) if client is None else (client.key_pem, client.chain)
        credentials = grpc.ssl_channel_credentials(site.server.chain, key, chain)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
        with grpc.secure_channel(f"localhost:{port}", credentials, options=options) as channel:
            call = channel.unary_unary("/who/AmI").future(b"", timeout=PATIENCE)
            failure = call.exception()
            if failure is not None:
                raise Refused if failure.code() is grpc.StatusCode.UNAVAILABLE else failure
            said: bytes = call.result()
        return None if said == b"None" else str(literal_eval(said.decode()))

    return ask


def test_without_an_authority(site: Site, listen: Callable[[Certificates], Ask]) -> None:
    """No client is asked; one that has a certificate is not known by it."""
    ask = listen(site.certificates(""))
    assert ask(None) is None
    assert ask(site.client("ann")) is None


def test_names(site: Site, listen: Callable[[Certificates], Ask]) -> None:
    """See `security.peer_names`; one without a name of use may connect, as nobody."""
    ask = listen(site.certificates(site.authority.certificate))
    assert ask(site.client("ann")) == "ann"
    assert ask(site.client("bob", names=[DNSName("bob.example"), DNSName("x.example")])) == "bob.example"
    assert ask(site.client("eve", names=[UniformResourceIdentifier("spiffe://x/eve")])) == "spiffe://x/eve"
    assert ask(site.client("nul", names=[DNSName("ann\0")])) is None


def test_refusals(site: Site, listen: Callable[[Certificates], Ask], tmp_path: Path) -> None:
    """None, one signed by itself or by another of the same name, one that is over, and one not begun."""
    ask = listen(site.certificates(site.authority.certificate))
    impostor = authority(tmp_path)
    for client in (
        None,
        Pair(tmp_path, "self", common_names=("ann",), names=()),
        site.client("ann", issuer=impostor),
        site.client("late", days=(-2, -1)),
        site.client("early", days=(1, 2)),
    ):
        with pytest.raises(Refused):
            ask(client)
    assert ask(site.client("ann")) == "ann"


def test_an_authority_in_the_middle(site: Site, listen: Callable[[Certificates], Ask], tmp_path: Path) -> None:
    """One that has not signed itself may be named alone; then what stands above it does not count."""
    middle = Pair(tmp_path, "middle", common_names=("the middle",), names=(), issuer=site.authority)
    ask = listen(site.certificates(middle.certificate))
    assert ask(site.client("ann", issuer=middle)) == "ann"
    with pytest.raises(Refused):
        ask(site.client("bob"))


def test_renewal(listen: Callable[[Certificates], Ask], site: Site, tmp_path: Path) -> None:
    """New connections meet the new pair and the new authorities."""
    own = Site(tmp_path)
    certificates = own.certificates(own.authority.certificate)
    ask = listen(certificates)
    ann, elder = own.client("ann"), site.client("ann")
    site_before = site.server.chain
    with pytest.raises(Refused):
        ask(ann)  # which trusts another server's certificate
    Path(own.server.certificate).write_bytes(site_before)
    Path(own.server.private_key).write_bytes(site.server.key_pem)
    assert certificates.reload()
    assert ask(ann) == "ann"
    with pytest.raises(Refused):
        ask(elder)
    Path(own.authority.certificate).write_bytes(site.authority.chain)
    assert certificates.reload()
    assert ask(elder) == "ann"
    with pytest.raises(Refused):
        ask(ann)


def test_transports_without_tls() -> None:
    """Nobody."""
    assert peer(StringTransport()) == Shown()
    assert rpc_peer({}) == Shown()
    assert rpc_peer({"x509_pem_cert": [b"a", b"b"]}) == Shown()
