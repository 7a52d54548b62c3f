"""Expiry over the wire."""

from __future__ import annotations

from .harness import Server, eventually


def test_a_key_expires(server: Server) -> None:
    """Its ttl is told by both interfaces; after it the key is gone from reads and scans, and is counted as expired."""
    with server.http() as http, server.grpc() as client:
        expired = http.metric("kv_expirations_total")
        assert http.post("/api/v1/set", {"key": "expiry/http", "value": "1", "ttl": 1}).status == 200
        assert client.call("MSet", key_values={"expiry/grpc": "1", "expiry/other": "1"}, ttl=1).success
        assert http.post("/api/v1/set", {"key": "expiry/later", "value": "1", "ttl": 100}).status == 200
        answer = http.get("/api/v1/get/expiry/later").body
        assert answer == {"key": "expiry/later", "value": "1", "ttl": answer["ttl"]}
        assert 90 < answer["ttl"] <= 100
        assert 90 < client.call("Get", key="expiry/later").ttl <= 100
        eventually(lambda: list(client.call("ScanKeys", prefix="expiry/").keys) == ["expiry/later"])
        assert [http.get(f"/api/v1/get/expiry/{key}").status for key in ("http", "grpc")] == [404, 404]
        eventually(lambda: http.metric("kv_expirations_total") == expired + 3)


def test_a_set_without_ttl_clears_an_earlier_one(server: Server) -> None:
    """So does an MSet; and a new ttl replaces an old one."""
    with server.http() as http, server.grpc() as client:
        client.call("MSet", key_values={"one": "1", "two": "1", "three": "1"}, ttl=1)
        http.post("/api/v1/set", {"key": "one", "value": "2"})
        client.call("MSet", key_values={"two": "2"})
        client.call("Set", key="three", value="2", ttl=100)
        client.call("Set", key="witness", value="2", ttl=1)
        eventually(lambda: not client.call("Get", key="witness").found)
        assert http.get("/api/v1/get/one").body == {"key": "one", "value": "2"}
        assert (client.call("Get", key="two").value, client.call("Get", key="two").ttl) == ("2", 0)
        assert 90 < client.call("Get", key="three").ttl <= 100
