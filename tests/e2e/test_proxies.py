"""The configurations of docs/proxies.md, run with the real programs on free ports."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest

from tests.docs.pages import ROOT, blocks

from .clients import Grpc, Http
from .harness import PATIENCE, Launcher, Server, connect, eventually
from .test_authentication import Tokens

PAGE = ROOT / "docs" / "proxies.md"
#: What a configuration needs around it to run without a service's folders.
_NGINX = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    {inner}
}}
"""
KEYS = ["a/b", "a//b", "a/./b", "../a", "a%2Fb", "a b", "ü/+?#&=;", "/", "//"]


def free_port() -> int:
    """One that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Proxy:
    """Where a proxy listens, for HTTP and for gRPC."""

    def __init__(self, server: Server) -> None:
        http, grpc_port = free_port(), free_port()
        self.http, self.grpc = f"127.0.0.1:{http}", f"127.0.0.1:{grpc_port}"
        self._addresses = {
            "127.0.0.1:8081": self.http,
            "127.0.0.1:50052": self.grpc,
            "127.0.0.1:8080": server.http_address,
            "127.0.0.1:50051": server.grpc_address,
        }

    def configuration(self, language: str) -> str:
        """The page's blocks, with these addresses in place of those that stand there."""
        text = "\n".join(blocks(PAGE, language))
        return re.sub("|".join(map(re.escape, self._addresses)), lambda found: self._addresses[found[0]], text)


@contextmanager
def nginx(folder: Path, configuration: str) -> Iterator[None]:
    """It runs within the block."""
    path = folder / "nginx.conf"
    path.write_text(_NGINX.format(folder=folder, inner=configuration))
    with running(["nginx", "-p", str(folder), "-c", str(path), "-e", str(folder / "nginx.log")]):
        yield


@contextmanager
def haproxy(folder: Path, configuration: str) -> Iterator[None]:
    """It runs within the block."""
    path = folder / "haproxy.cfg"
    path.write_text(configuration)
    with running(["haproxy", "-db", "-f", str(path)]):
        yield


@contextmanager
def running(command: list[str]) -> Iterator[None]:
    """A program, ended by its pid."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(PATIENCE)


def answers(address: str) -> bool:
    """Whether somebody answers HTTP there, and what is behind it is there."""
    try:
        with Http(address) as http:
            return http.get("/api/v1/health").status == 200
    except OSError:
        return False


def check_keys(server: Server, through: str) -> None:
    """Every key is the same behind the proxy, in paths too."""
    with Http(through) as http, server.http() as direct:
        for key in KEYS:
            assert direct.post("/api/v1/set", {"key": key, "value": key}).status == 200
        for key in KEYS:
            path = quote(key, safe="/")
            assert http.get(f"/api/v1/get/{path}").body["value"] == key
            assert http.call("DELETE", f"/api/v1/delete/{path}").status == 200
            left = direct.post("/api/v1/mget", {"keys": KEYS}).body["results"]
            assert left == {other: other for other in KEYS[KEYS.index(key) + 1 :]}
        large = "x" * (1 << 20)
        assert http.post("/api/v1/set", {"key": "large", "value": large}).status == 200
        assert http.get("/api/v1/get/large").body["value"] == large


def check_grpc(through: str, token: str) -> None:
    """Calls, and a refusal before a large message has come, are what they are without the proxy."""
    with Grpc(through, token) as client:
        assert client.call("Set", key="g", value="x" * 1_000_000).success
        assert client.call("Get", key="g").found
    with Grpc(through, "kv1_nobody_" + "0" * 43) as nobody:
        for _ in range(5):
            with pytest.raises(grpc.RpcError) as refused:
                nobody.call("Set", key="g", value="x" * 1_000_000)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("program", [nginx, pytest.param(haproxy, marks=pytest.mark.long)])
def test_the_page_s_configuration(launch: Launcher, tmp_path: Path, program) -> None:  # type: ignore[no-untyped-def]
    """Keys in paths, large values, Host without tokens."""
    server = launch()
    proxy = Proxy(server)
    with program(tmp_path, proxy.configuration(program.__name__)):
        eventually(lambda: answers(proxy.http))
        check_keys(server, proxy.http)


@pytest.mark.parametrize("program", [nginx, pytest.param(haproxy, marks=pytest.mark.long)])
def test_streams_through_it(launch: Launcher, tmp_path: Path, program) -> None:  # type: ignore[no-untyped-def]
    """An import is answered while its body comes; what it stores is told to who watches; an export comes whole."""
    server = launch()
    proxy = Proxy(server)
    with program(tmp_path, proxy.configuration(program.__name__)):
        eventually(lambda: answers(proxy.http))
        watching, importing = connect(proxy.http), connect(proxy.http)
        watching.sendall(b"GET /api/v1/watch?prefix=p/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(watching, b"event: revision")
        importing.sendall(
            b"POST /api/v1/import HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
            b"Content-Type: application/x-ndjson\r\n\r\n1a\r\n" + b'{"key":"p/1","value":"v"}\n\r\n'
        )
        until(importing, b'{"line":1,')
        until(watching, b'data: {"key":"p/1"')
        importing.sendall(b"1a\r\n" + b'{"key":"p/2","value":"v"}\n\r\n0\r\n\r\n')
        until(importing, b'{"end":true,"line":2,')
        until(watching, b'data: {"key":"p/2"')
        exporting = connect(proxy.http)
        exporting.sendall(b"GET /api/v1/export?prefix=p/ HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(exporting, b'{"end":true,"count":2,')
        for connection in (watching, importing, exporting):
            connection.close()


def until(connection: socket.socket, wanted: bytes) -> None:
    """Read up to that."""
    received = b""
    while wanted not in received:
        part = connection.recv(65_536)
        assert part, received
        received += part


@pytest.mark.parametrize("program", [nginx, pytest.param(haproxy, marks=pytest.mark.long)])
def test_grpc_through_it(launch: Launcher, tmp_path: Path, program) -> None:  # type: ignore[no-untyped-def]
    """Statuses are the server's, also of what is refused early."""
    tokens = Tokens(launch.folder / "server")
    token = tokens.create("app", "get,set")
    server = launch("--security-tokens", str(tokens.path), "--security-failed-logins", "0")
    proxy = Proxy(server)
    with program(tmp_path, proxy.configuration(program.__name__)):
        eventually(lambda: answers(proxy.http))
        check_grpc(proxy.grpc, token)


def test_a_path_in_proxy_pass_makes_other_keys(launch: Launcher, tmp_path: Path) -> None:
    """What the page warns of: with a slash at the end nginx merges slashes, and another key is deleted."""
    server = launch()
    proxy = Proxy(server)
    wrong = proxy.configuration("nginx").replace(
        "proxy_pass http://kvtwisted_http;", "proxy_pass http://kvtwisted_http/;"
    )
    with nginx(tmp_path, wrong):
        eventually(lambda: answers(proxy.http))
        with Http(proxy.http) as http, server.http() as direct:
            for key in ("a/b", "a//b"):
                direct.post("/api/v1/set", {"key": key, "value": "v"})
            assert http.call("DELETE", "/api/v1/delete/a//b").status == 200
            assert set(direct.post("/api/v1/mget", {"keys": ["a/b", "a//b"]}).body["results"]) == {"a//b"}
