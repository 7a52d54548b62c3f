"""CORS from the command line to the answer, on a real server."""

from __future__ import annotations

from http.client import HTTPConnection
from pathlib import Path

import pytest

from .clients import TIMEOUT
from .harness import FREE_PORTS, Launcher, Server, run_twistd

ORIGIN, OTHER = "http://localhost:3000", "http://localhost:3001"


def asked(server: Server, method: str, path: str, **headers: str) -> tuple[int, str | None, str | None]:
    """Status, and who may read the answer to a request with these headers, as by whom it varies."""
    connection = HTTPConnection(server.http_address, timeout=TIMEOUT)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.getheader("Access-Control-Allow-Origin"), answer.getheader("Vary")
    finally:
        connection.close()


def test_a_listed_origin_and_another(launch: Launcher) -> None:
    """One may ask and read, the other not; a page that calls the server by another name may nothing."""
    server = launch("--http-cors-origins", f"https://app.example.com, {ORIGIN}")
    preflight = {"Access_Control_Request_Method": "DELETE", "Access_Control_Request_Headers": "authorization"}
    assert asked(server, "OPTIONS", "/api/v1/delete/k", Origin=ORIGIN, **preflight) == (204, ORIGIN, "Origin")
    assert asked(server, "DELETE", "/api/v1/delete/k", Origin=ORIGIN) == (200, ORIGIN, "Origin")
    assert asked(server, "GET", "/api/v1/get/k", Origin=ORIGIN) == (404, ORIGIN, "Origin")
    assert asked(server, "OPTIONS", "/api/v1/delete/k", Origin=OTHER, **preflight) == (405, None, "Origin")
    assert asked(server, "GET", "/api/v1/get/k", Origin=OTHER) == (404, None, "Origin")
    assert asked(server, "GET", "/api/v1/get/k") == (404, None, "Origin")
    assert asked(server, "GET", "/api/v1/get/k", Origin=ORIGIN, Host="evil.example") == (421, ORIGIN, "Origin")


def test_none_by_default(launch: Launcher) -> None:
    """Nobody else may read anything."""
    server = launch()
    assert asked(server, "GET", "/api/v1/get/k", Origin=ORIGIN) == (404, None, None)
    assert asked(server, "OPTIONS", "/api/v1/set", Origin=ORIGIN, Access_Control_Request_Method="POST")[0] == 405


@pytest.mark.parametrize(
    ("origins", "named"), [("*", "security.tokens"), ("https://app.example.com/", '"https://app.example.com/"')]
)
def test_origins_that_are_refused(tmp_path: Path, origins: str, named: str) -> None:
    """The server does not start, and says which key is wrong and how."""
    ended = run_twistd("-n", "--pidfile=", "kvtwisted", *FREE_PORTS, "--http-cors-origins", origins, folder=tmp_path)
    assert ended.returncode == 1
    assert "http.cors_origins" in ended.stderr
    assert named in ended.stderr
