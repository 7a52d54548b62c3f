"""The three logs, as text and as JSON lines."""

from __future__ import annotations

import json
import re

from .harness import Launcher, Server, eventually, occupy


def _provoke(server: Server) -> None:
    """A performance line and a warning."""
    occupy(server.folder)
    with server.http() as http:
        http.post("/api/v1/set", {"key": "a", "value": "1"})
        http.get("/api/v1/get/a")
        change = {"logging": {"performance_interval": 1}, "eviction": {"disk_usage_threshold": 1, "check_interval": 1}}
        assert http.post("/api/v1/config", change).status == 200
        eventually(lambda: "set_per_second" in server.log("performance"))
        eventually(lambda: "nothing is evicted" in server.log("running"))


def test_text(launch: Launcher) -> None:
    """Each event is one line with its time, logger and level, in the file where it belongs."""
    server = launch()
    _provoke(server)
    server.stop()
    running, performance = server.log("running"), server.log("performance")
    stamp = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+0000 "
    for line in (running + performance).splitlines():
        assert re.match(stamp + r"\[[\w.#-]+\] ", line), line
    assert f"HTTP on http://{server.http_address}\n" in running
    assert re.search(r"\[kvtwisted\.eviction#warn\] .* nothing is evicted$", running, re.MULTILINE)
    assert "set_per_second" not in running
    assert re.search(r"seconds=\S+ set_per_second=\S+ .*get_p99_us=\d+ .*disk_percent=\S+ data_bytes=\d+", performance)
    assert "HTTP on" not in performance
    assert server.log("error") == ""


def test_json(launch: Launcher) -> None:
    """Each line is a JSON object with the event's own fields."""
    server = launch("--logging-format", "json")
    _provoke(server)
    server.stop()
    running = [json.loads(line) for line in server.log("running").splitlines()]
    assert all({"time", "level", "logger", "message"} <= set(line) for line in running)
    listening = next(line for line in running if line["message"].startswith("HTTP on "))
    assert (listening["level"], listening["logger"], listening["address"]) == ("info", "kvtwisted", server.http_address)
    warning = next(line for line in running if line["level"] == "warn")
    assert (warning["threshold"], warning["policy"]) == (1, "lru")
    assert warning["needed"] > 0
    performance = [json.loads(line) for line in server.log("performance").splitlines()]
    assert {line["logger"] for line in performance} == {"kvtwisted.performance"}
    assert max(line["set_per_second"] for line in performance) > 0
    assert server.log("error") == ""
