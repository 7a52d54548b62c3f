"""docs/http-api.md against the server: its examples are run, and nothing is missing from it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest_twisted
from twisted.internet.utils import getProcessOutputAndValue
from twisted.web.http_headers import Headers

from kvtwisted.http import urls
from kvtwisted.http.cors import Cors
from kvtwisted.http.routes import OPENAPI, ROUTES

from .live import CLIENT_ENVIRONMENT, LiveSite

PAGE = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text("utf-8")
DOCUMENT = json.loads(OPENAPI)


def examples() -> tuple[str, str]:
    """The commands of all examples as one shell script, and all that they should print.

    Each answer is on a line of its own, as a person sees them who runs one command after the other; those that are
    asked for with -N are so by themselves.
    """
    script: list[str] = []
    output = []
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL):
        in_command = False
        for line in block.splitlines():
            if line.startswith("$ "):
                script.append(line[2:])
            elif in_command and line.startswith("  "):
                script[-1] += f"\n{line}"
            else:
                output.append(line)
            in_command = line.startswith(("$ ", "  "))
    script = [f"{one}; echo" if one.startswith("curl ") and "-sSN" not in one else one for one in script]
    return "\n".join(script), "\n".join(output)


def comparable(output: str) -> list[str]:
    """Lines, with the same revision for all commits."""
    return re.sub(r'("revision":|id: )[1-9]\d*', r"\g<1>1", output).splitlines()


@pytest_twisted.ensureDeferred
async def test_the_examples_do_what_the_page_shows(live: LiveSite) -> None:
    """All commands in one shell, in the order of the page."""
    script, expected = examples()
    script = script.replace("http://127.0.0.1:8080", f"http://127.0.0.1:{live.port}")
    output, errors, _ = await getProcessOutputAndValue("/bin/sh", ["-c", script], env=CLIENT_ENVIRONMENT)
    assert (errors.decode(), comparable(output.decode())) == ("", comparable(expected))


def test_the_page_has_every_route() -> None:
    """Each path, with its method, in the table."""
    for path, methods in DOCUMENT["paths"].items():
        for method in methods:
            assert re.search(rf"`{re.escape(path)}`.*\| {method.upper()} \|", PAGE), (path, method)


def test_the_page_says_what_each_route_requires() -> None:
    """In the table of routes."""
    for route in ROUTES:
        path = re.escape(route.path.partition("<")[0])
        (required,) = re.findall(rf"^\| \[?`{path}[^`/]*`[^|]* \| {route.method} \| `(\w+)` \|", PAGE, re.MULTILINE)
        assert required == route.requirement, route.name


def test_the_page_has_every_code() -> None:
    """In the table of errors, and no other."""
    codes = DOCUMENT["components"]["schemas"]["Error"]["properties"]["code"]["enum"]
    assert sorted(re.findall(r"^\| \d{3} \| `(\w+)` \|", PAGE, re.MULTILINE)) == codes


def test_the_page_has_every_parameter_of_scan() -> None:
    """In the table of its section."""
    for name in urls.ScanArguments._fields:
        assert f"\n| `{name}` |" in PAGE


def test_the_page_has_the_headers_of_cors() -> None:
    """Of answers and of preflights, with their values."""
    origin = "https://app.example.com"
    request = Headers({b"origin": [origin.encode()], b"access-control-request-method": [b"GET"]})
    cors = Cors([origin])
    preflight = cors.preflight(b"OPTIONS", request)
    assert preflight is not None
    for name, value in (*cors.headers(request), *preflight.headers):
        shown = "that origin" if value == origin else f"`{value}`"
        assert f"\n| `{name}` | {shown}" in PAGE
