"""All operations over HTTP with curl, and exactly the documented answers."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from .harness import PATIENCE, Server, environment, eventually


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
    paths = {"set", "get/{key}", "delete/{key}", "scan", "mset", "mget", "mdelete", "config", "health", "raw/{key}"}
    assert {f"/api/v1/{path}" for path in paths} <= set(document["paths"])


#: Adds 1 to a counter ROUNDS times: reads it with its ETag, and puts the sum if the ETag is still the same.
_ADDING = """
add() {
  done=0
  while [ "$done" -lt "$ROUNDS" ]; do
    curl -sS -D "head.$1" -o "value.$1" "$URL" || exit 1
    etag=$(tr -d '\\r' <"head.$1" | sed -n 's/^ETag: //p')
    status=$(curl -sS -o "answer.$1" -w '%{http_code}' -X PUT -H "If-Match: $etag" \\
      --data-binary "$(($(cat "value.$1") + 1))" "$URL") || exit 1
    case $status in
      200) done=$((done + 1)) ;;
      412) echo "$1 was late" ;;
      *) cat "answer.$1"; exit 1 ;;
    esac
  done
}
add one & first=$!
add two & second=$!
wait "$first" && wait "$second"
"""


def test_compare_and_set_by_curl_alone(server: Server, tmp_path: Path) -> None:
    """Two race for a counter with nothing but ETags: no update is lost, and whoever is late is told."""
    rounds, url = 12, f"http://{server.http_address}/api/v1/raw/curl/counter"
    assert (
        _curl(server, "-X", "PUT", "-H", "If-None-Match: *", "--data-binary", "0", "/api/v1/raw/curl/counter")[0] == 201
    )
    done = subprocess.run(
        ["/bin/sh", "-c", _ADDING], cwd=tmp_path, env={**environment(), "ROUNDS": str(rounds), "URL": url},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert _curl(server, "/api/v1/get/curl/counter") == (200, {"key": "curl/counter", "value": str(2 * rounds)})
    status, refusal = _curl(
        server, "-X", "PUT", "-H", 'If-Match: "0"', "--data-binary", "0", "/api/v1/raw/curl/counter"
    )
    assert (status, refusal["code"]) == (412, "condition_failed")
    assert _curl(server, "-X", "DELETE", "-H", f'If-Match: "{refusal["etag"]}"', "/api/v1/raw/curl/counter")[0] == 200


def test_a_file_goes_up_and_down(server: Server, tmp_path: Path) -> None:
    """Bytes of every kind, as curl uploads a file, with 100 Continue, and from a pipe, in chunks."""
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_bytes(bytes(range(256)) * 4096)
    for upload in ((str(file),), ("-",)):
        with file.open("rb") as content:
            subprocess.run(
                ["curl", "-sS", "-f", "-T", *upload, "-H", "Expect: 100-continue",
                 f"http://{server.http_address}/api/v1/raw/curl/file"],
                stdin=content, check=True, timeout=PATIENCE, capture_output=True,
            )  # fmt: skip
        url = f"http://{server.http_address}/api/v1/raw/curl/file"
        subprocess.run(["curl", "-sS", "-f", "-o", str(back), url], check=True, timeout=PATIENCE)
        assert back.read_bytes() == file.read_bytes()
        assert _curl(server, "-X", "DELETE", "/api/v1/raw/curl/file")[0] == 200


def test_following(server: Server, tmp_path: Path) -> None:
    """Server-sent events, followed by one curl after the other with the last id that was seen: each change once."""
    seen = tmp_path / "seen"
    url = f"http://{server.http_address}/api/v1/watch?prefix=curl/follow/&with_values=true"
    _post(server, "/api/v1/set", '{"key": "curl/follow/before", "value": "x"}')
    last: list[str] = []
    told: list[object] = []
    number = 0
    for turn in range(3):
        with open(seen, "wb") as output:
            following = subprocess.Popen(["curl", "-sSN", url, *last], stdout=output)
        try:
            if not turn:
                eventually(lambda: b"id:" in seen.read_bytes())
            for _ in range(10):
                _post(server, "/api/v1/set", f'{{"key": "curl/follow/{number % 7}", "value": "{number}"}}')
                number += 1
            eventually(lambda number=number: f'"{number - 1}"'.encode() in seen.read_bytes())  # type: ignore[misc]
        finally:
            following.kill()
            following.wait()
        messages = [message for message in seen.read_text("utf-8").split("\n\n")[:-1] if message]
        told += [json.loads(line[6:])["value"] for one in messages for line in one.split("\n") if '"value"' in line]
        last = ["-H", "Last-Event-ID: " + re.findall(r"^id: ?(\d+)$", "\n".join(messages), re.MULTILINE)[-1]]
        # What comes between two of them is told to the second.
        _post(server, "/api/v1/set", f'{{"key": "curl/follow/between", "value": "{number}"}}')
        number += 1
    assert told == [str(one) for one in range(number - 1)]
