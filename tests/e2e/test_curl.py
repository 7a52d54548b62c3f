"""All operations over HTTP with curl, and exactly the documented answers."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from .harness import PATIENCE, Server


def _curl(server: Server, *arguments: str) -> tuple[int, Any]:
    """The status and the JSON document that curl was answered with; the path comes last."""
    *options, path = arguments
    command = ["curl", "--silent", "--show-error", "--write-out", "\n%{http_code}", *options]
    url = f"http://{server.http_address}{path}"
    done = subprocess.run([*command, url], capture_output=True, text=True, timeout=PATIENCE, check=True)
    body, _, status = done.stdout.rpartition("\n")
    return int(status), json.loads(body)


def _post(server: Server, path: str, body: str) -> tuple[int, Any]:
    return _curl(server, "--json", body, path)


def test_all_operations(server: Server) -> None:
    """The ten operations and the health check, as the requirements' table prints them."""
    assert _post(server, "/api/v1/set", '{"key": "curl/a", "value": "1", "ttl": 0}') == (
        200, {"success": True, "message": "key set successfully"},
    )  # fmt: skip
    assert _curl(server, "/api/v1/get/curl/a") == (200, {"key": "curl/a", "value": "1"})
    assert _post(server, "/api/v1/mset", '{"key_values": {"curl/b": "2", "curl/c": "3"}}') == (
        200, {"success": True, "message": "keys set successfully"},
    )  # fmt: skip
    assert _post(server, "/api/v1/mget", '{"keys": ["curl/c", "curl/missing", "curl/a"]}') == (
        200, {"results": {"curl/c": "3", "curl/a": "1"}},
    )  # fmt: skip
    status, page = _curl(server, "/api/v1/scan?prefix=curl/&limit=100")
    assert status == 200
    assert list(page["results"].items()) == [("curl/a", "1"), ("curl/b", "2"), ("curl/c", "3")]
    assert page == {"prefix": "curl/", "limit": 100, "count": 3, "results": page["results"], "next_cursor": ""}
    assert _curl(server, "/api/v1/scan?prefix=curl/&limit=2&keys_only=true") == (
        200, {"prefix": "curl/", "limit": 2, "count": 2, "keys": ["curl/a", "curl/b"], "next_cursor": "curl/b"},
    )  # fmt: skip
    assert _curl(server, "--request", "DELETE", "/api/v1/delete/curl/a") == (
        200, {"success": True, "message": "key deleted successfully"},
    )  # fmt: skip
    status, refusal = _curl(server, "/api/v1/get/curl/a")
    assert status == 404
    assert refusal == {"success": False, "error": refusal["error"], "code": "key_not_found"}
    assert _post(server, "/api/v1/mdelete", '{"keys": ["curl/b", "curl/c", "curl/missing"]}') == (
        200, {"success": True, "message": "keys deleted successfully"},
    )  # fmt: skip
    assert _curl(server, "/api/v1/scan?prefix=curl/") == (
        200, {"prefix": "curl/", "limit": 100, "count": 0, "results": {}, "next_cursor": ""},
    )  # fmt: skip
    status, config = _curl(server, "/api/v1/config")
    assert (status, config["eviction"]["policy"], config["http"]["port"]) == (200, "lru", 0)
    assert _post(server, "/api/v1/config", '{"eviction": {"batch_size": 50}}') == (
        200, {"success": True, "message": "config updated successfully"},
    )  # fmt: skip
    assert _curl(server, "/api/v1/config")[1]["eviction"]["batch_size"] == 50
    assert _curl(server, "/api/v1/health") == (200, {"status": "ok"})


def test_deleting_a_missing_key(server: Server) -> None:
    """Delete is idempotent."""
    answer = (200, {"success": True, "message": "key deleted successfully"})
    assert [_curl(server, "-X", "DELETE", "/api/v1/delete/never%20there") for _ in range(2)] == [answer, answer]


def test_openapi(server: Server) -> None:
    """The description of the interface is served, and names every path that the other tests use."""
    status, document = _curl(server, "/api/v1/openapi.json")
    assert (status, document["openapi"][:3]) == (200, "3.1")
    paths = {"set", "get/{key}", "delete/{key}", "scan", "mset", "mget", "mdelete", "config", "health"}
    assert {f"/api/v1/{path}" for path in paths} <= set(document["paths"])
