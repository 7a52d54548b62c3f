"""What surrounds the operations: methods, paths, content types, headers."""

from __future__ import annotations

import pytest

from .support import World, problem


@pytest.mark.parametrize("path", ["set", "mset", "mget", "mdelete", "config"])
@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_bodies_must_be_json(path: str, content_type: str) -> None:
    """415 on every POST, also for what browsers send by themselves."""
    world = World()
    reply = world.request("POST", f"/api/v1/{path}", b"key=k&value=v", content_type=content_type)
    assert problem(reply)[:2] == (415, "unsupported_media_type")
    assert world.stored() == {}


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/api/v1/set", "POST"),
        ("/api/v1/get/a/b", "GET, HEAD"),
        ("/api/v1/delete/a/b", "DELETE"),
        ("/api/v1/scan", "GET, HEAD"),
        ("/api/v1/mset", "POST"),
        ("/api/v1/mget", "POST"),
        ("/api/v1/mdelete", "POST"),
        ("/api/v1/config", "GET, HEAD, POST"),
        ("/api/v1/openapi.json", "GET, HEAD"),
        ("/api/v1/health", "GET, HEAD"),
        ("/metrics", "GET, HEAD"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "OPTIONS", "PATCH", "BREW"])
def test_other_methods_are_refused(path: str, allowed: str, method: str) -> None:
    """405 with the methods that there are."""
    reply = World().request(method, path)
    assert problem(reply)[:2] == (405, "method_not_allowed")
    assert reply.headers["allow"] == allowed


@pytest.mark.parametrize(
    "target",
    [
        "/", "/api", "/api/v1", "/api/v1/", "/api/v1/set/", "/api/v1//set", "//api/v1/set", "/api//v1/set",
        "/api/v1/get", "/api/v1/delete", "/api/v1/sets", "/api%2Fv1%2Fset", "/api/v1/./set", "/api/v1/x/../set",
        "/metrics/", "*", "api/v1/set", "http://localhost", "http://localhost/", "/%ff", "/favicon.ico", "/<tail:tail>",
        "/API/V1/SET",
    ],
)  # fmt: skip
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_paths(target: str, method: str) -> None:
    """404, and never a redirect: a path is the one that was sent."""
    reply = World().request(method, target, b"{}" if method == "POST" else None)
    assert problem(reply)[:2] == (404, "not_found")
    assert "location" not in reply.headers


@pytest.mark.parametrize(
    "target", ["/api/v1/get/k", "/api/v1/scan", "/api/v1/config", "/api/v1/health", "/metrics", "/api/v1/get/none"]
)
def test_head_is_get_without_the_body(target: str) -> None:
    """Status and headers are those of GET."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": "v"})
    head, got = (world.request(method, target) for method in ("HEAD", "GET"))
    assert (head.status, head.headers, head.body) == (got.status, {**got.headers, "date": head.headers["date"]}, b"")
    assert int(head.headers["content-length"]) == len(got.body)


def test_answers_do_not_name_the_software_behind() -> None:
    """Server is ours, without a version."""
    assert World().request("GET", "/api/v1/health").headers["server"] == "kvtwisted"


@pytest.mark.parametrize(
    "host", ["a", "a..b", "x" * 300, "%ff", "", "a:80", "a:", "127.0.0.1:8080", "[::1]:80", "xn--a_b.c~", "%41"]
)
def test_the_host_header_does_not_matter(host: str) -> None:
    """As long as it is one, no route depends on it."""
    assert World().request("GET", "/api/v1/health", host=host).status == 200


def test_queries_elsewhere_are_ignored() -> None:
    """Health checkers and scrapers may add what they like."""
    world = World()
    assert [world.request("GET", f"{path}?x=%").status for path in ("/api/v1/health", "/metrics")] == [200, 200]


def test_absolute_form() -> None:
    """A target with scheme and host is the path in it, as RFC 9112 wants."""
    assert World().request("GET", "http://localhost:8080/api/v1/health").status == 200
    assert World().request("GET", "https://x/api/v1/get/http://y").status == 404
