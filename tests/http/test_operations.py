"""The ten operations over the wire: the exact answers of the contract."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from .support import METRICS, World, problem

#: Says that these tests run over every backend at every change.
BACKENDS_DIFFER = True

#: Says that these tests run on either lane at every change.
LANES_DIFFER = True


def test_set_get_delete() -> None:
    """One key, from its beginning to its end, with the exact bytes of each answer."""
    world = World()
    answer = world.request("POST", "/api/v1/set", b'{"key":"k","value":"caf\xc3\xa9 \\"1\\"","ttl":0}')
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"key set successfully"}')
    answer = world.request("GET", "/api/v1/get/k")
    assert (answer.status, answer.body) == (200, b'{"key":"k","value":"caf\xc3\xa9 \\"1\\""}')
    answer = world.request("DELETE", "/api/v1/delete/k")
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"key deleted successfully"}')
    assert problem(world.request("GET", "/api/v1/get/k"))[:2] == (404, "key_not_found")


def test_deleting_a_missing_key_succeeds() -> None:
    """Delete is idempotent."""
    assert World().request("DELETE", "/api/v1/delete/k").status == 200


def test_ttl_is_shown_while_it_runs() -> None:
    """Seconds left are rounded up; after the last one the key is gone."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": "v", "ttl": 10})
    world.storage.time.advance(1)
    assert world.request("GET", "/api/v1/get/k").body == b'{"key":"k","value":"v","ttl":10}'
    world.storage.time.advance(9_500)
    assert world.request("GET", "/api/v1/get/k").json()["ttl"] == 1
    world.storage.time.advance(500)
    assert world.request("GET", "/api/v1/get/k").status == 404


def test_a_set_without_ttl_clears_an_earlier_one() -> None:
    """The key then lives for ever."""
    world = World()
    world.post("/api/v1/set", {"key": "k", "value": "1", "ttl": 1})
    world.post("/api/v1/set", {"key": "k", "value": "2"})
    world.storage.time.advance(1_000_000)
    assert world.request("GET", "/api/v1/get/k").body == b'{"key":"k","value":"2"}'


def test_batches() -> None:
    """MSet, MGet and MDelete with the exact bytes of each answer; missing keys are left out and fine."""
    world = World()
    answer = world.request("POST", "/api/v1/mset", b'{"key_values":{"b":"2","a":"1"},"ttl":7}')
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"keys set successfully"}')
    assert world.request("GET", "/api/v1/get/a").json()["ttl"] == 7
    answer = world.request("POST", "/api/v1/mget", b'{"keys":["b","none","a","b"]}')
    assert (answer.status, answer.body) == (200, b'{"results":{"b":"2","a":"1"}}')
    answer = world.request("POST", "/api/v1/mdelete", b'{"keys":["b","none"]}')
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"keys deleted successfully"}')
    assert world.request("POST", "/api/v1/mget", b'{"keys":["a","b"]}').body == b'{"results":{"a":"1"}}'


def test_scan() -> None:
    """Results come in the order of the keys' bytes, under the prefix only."""
    world = World()
    world.post("/api/v1/mset", {"key_values": {"p/é": "3", "p/a": "1", "q": "x", "p/b": "2"}})
    answer = world.request("GET", "/api/v1/scan?prefix=p/")
    assert (answer.status, answer.body) == (
        200,
        '{"prefix":"p/","limit":100,"count":3,"results":{"p/a":"1","p/b":"2","p/é":"3"},"next_cursor":""}'.encode(),
    )
    answer = world.request("GET", "/api/v1/scan?prefix=p/&limit=2&keys_only=true")
    assert answer.body == b'{"prefix":"p/","limit":2,"count":2,"keys":["p/a","p/b"],"next_cursor":"p/b"}'


@pytest.mark.parametrize("keys_only", ["true", "false"])
def test_scan_pages_to_the_end(keys_only: str) -> None:
    """Following next_cursor yields every key once, in order; the end is an empty cursor."""
    world = World()
    keys = [f"k/{number:03} é+&" for number in range(25)]
    world.post("/api/v1/mset", {"key_values": dict.fromkeys(keys, "v")})
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        target = f"/api/v1/scan?prefix=k/&limit=7&keys_only={keys_only}&cursor={quote(cursor)}"
        page = world.request("GET", target).json()
        entries = list(page["keys"] if keys_only == "true" else page["results"])
        assert page["count"] == len(entries)
        seen += entries
        cursor = page["next_cursor"]
    assert (seen, cursor) == (keys, "")


def test_a_page_ends_before_it_is_too_large() -> None:
    """The limit on bytes ends a page like the limit on entries."""
    world = World()
    world.bounds.max_response_bytes = 2_500
    world.post("/api/v1/mset", {"key_values": dict.fromkeys("abc", "v" * 1000)})
    page = world.request("GET", "/api/v1/scan?limit=3").json()
    assert (list(page["results"]), page["next_cursor"]) == (["a", "b"], "b")


def test_mget_refuses_an_answer_that_is_too_large() -> None:
    """There is no cursor to go on with, so that nothing is cut."""
    world = World()
    world.bounds.max_response_bytes = 2_500
    world.post("/api/v1/mset", {"key_values": dict.fromkeys("abc", "v" * 1000)})
    status, code, sentence = problem(world.post("/api/v1/mget", {"keys": ["a", "b", "c"]}))
    assert (status, code) == (400, "response_too_large")
    assert "2500 bytes" in sentence


def test_config() -> None:
    """The configuration is passed on as it is; restart_required is there only when there is something to name."""
    world = World()
    answer = world.request("GET", "/api/v1/config")
    assert (answer.status, answer.body) == (200, b'{"http.port": 8080, "eviction.enabled": true}')
    answer = world.request("POST", "/api/v1/config", b'{"eviction.enabled":false}')
    assert (answer.status, answer.body) == (200, b'{"success":true,"message":"config updated successfully"}')
    answer = world.request("POST", "/api/v1/config", b'{"http.port":1}')
    assert (answer.status, answer.body) == (
        200,
        b'{"success":true,"message":"config updated successfully","restart_required":["http.port"]}',
    )
    assert world.request("GET", "/api/v1/config").json() == {"http.port": 1, "eviction.enabled": False}
    assert problem(world.request("POST", "/api/v1/config", b'{"x":1}')) == (400, "invalid_config", "x: unknown key")


def test_metrics() -> None:
    """Content type and text are passed on as they are."""
    answer = World().request("GET", "/metrics")
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, *METRICS)


def test_metrics_and_health_go_where_they_are_configured() -> None:
    """The default paths then are unknown."""
    world = World(metrics_path="/a/m", health_path="/h.txt")
    assert [world.request("GET", path).status for path in ("/a/m", "/h.txt")] == [200, 200]
    assert [world.request("GET", path).status for path in ("/metrics", "/api/v1/health")] == [404, 404]


def test_without_monitoring_there_are_no_metrics() -> None:
    """The path is unknown; health is still served."""
    world = World(metrics_text=None)
    assert [world.request("GET", path).status for path in ("/metrics", "/api/v1/health")] == [404, 200]


def test_json_is_utf8_without_escapes() -> None:
    """Text is sent as it is, compactly; only what JSON demands is escaped."""
    world = World()
    world.request("POST", "/api/v1/set", json.dumps({"key": "ключ", "value": '"\\\n\u2028😀'}).encode())
    expected = '{"key":"ключ","value":"\\"\\\\\\n\u2028😀"}'.encode()
    assert world.request("GET", f"/api/v1/get/{quote('ключ')}").body == expected
