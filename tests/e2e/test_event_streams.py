"""Watches with curl, over a real server: followed, cut, and resumed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .harness import Launcher, Server, eventually


class Message(NamedTuple):
    """One event: its name, its data, and the last id up to it."""

    event: str
    data: Any
    last_id: str


class Follower:
    """A curl that follows, and what it has written."""

    def __init__(self, server: Server, output: Path, query: str, *options: str) -> None:
        self._output = output
        url = f"http://{server.http_address}/api/v1/watch{query}"
        with open(output, "wb") as file:
            self.process = subprocess.Popen(["curl", "-sSN", *options, url], stdout=file)

    @property
    def messages(self) -> list[Message]:
        """All whole messages."""
        found, last_id = [], ""
        for block in self._output.read_text("utf-8").split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
            last_id = fields.get("id", last_id)
            if "data" in fields:
                found.append(Message(fields["event"], json.loads(fields["data"]), last_id))
        return found

    def wait_for(self, count: int) -> list[Message]:
        """The first so many messages about keys."""

        def look() -> list[Message]:
            found = [message for message in self.messages if message.event != "revision"]
            return found if len(found) >= count else []

        return eventually(look)[:count]


@contextmanager
def following(server: Server, output: Path, query: str = "", *options: str) -> Iterator[Follower]:
    """A curl that follows from the first message on, and is ended."""
    follower = Follower(server, output, query, *options)
    try:
        eventually(lambda: follower.messages)
        yield follower
    finally:
        follower.process.kill()
        follower.process.wait()


def test_a_watch_is_followed_and_resumed(server: Server, tmp_path: Path) -> None:
    """Each change once, in order; after a cut with Last-Event-ID there is neither gap nor repeat."""
    with server.http() as client:
        with following(server, tmp_path / "first", "?prefix=sse/&with_values=true") as first:
            for number in range(5):
                client.post("/api/v1/set", {"key": f"sse/{number}", "value": str(number)})
            client.post("/api/v1/set", {"key": "elsewhere", "value": "x"})
            client.post("/api/v1/mdelete", {"keys": ["sse/0", "sse/1"]})
            seen = first.wait_for(7)
        assert [(message.event, message.data["key"]) for message in seen] == [
            *[("set", f"sse/{number}") for number in range(5)], ("delete", "sse/0"), ("delete", "sse/1"),
        ]  # fmt: skip
        assert [message.data["value"] for message in seen[:5]] == list("01234")
        for number in range(5, 8):
            client.post("/api/v1/set", {"key": f"sse/{number}", "value": str(number)})
        cut = seen[2].last_id
        with following(server, tmp_path / "again", "?prefix=sse/", "-H", f"Last-Event-ID: {cut}") as again:
            assert [message.data["key"] for message in again.wait_for(7)] == [
                "sse/3", "sse/4", "sse/0", "sse/1", "sse/5", "sse/6", "sse/7",
            ]  # fmt: skip
        client.post("/api/v1/mdelete", {"keys": [f"sse/{number}" for number in range(8)] + ["elsewhere"]})


def test_export_and_then_watch_misses_nothing(server: Server, tmp_path: Path) -> None:
    """From the revision that the export's last line has."""
    with server.http() as client:
        client.post("/api/v1/set", {"key": "then/a", "value": "1"})
        url = f"http://{server.http_address}/api/v1/export?prefix=then/"
        exported = subprocess.run(["curl", "-sSN", url], capture_output=True, text=True, check=True).stdout
        revision = json.loads(exported.splitlines()[-1])["revision"]
        client.post("/api/v1/set", {"key": "then/b", "value": "2"})
        with following(server, tmp_path / "out", f"?prefix=then/&after_revision={revision}") as follower:
            assert [message.data["key"] for message in follower.wait_for(1)] == ["then/b"]
        client.post("/api/v1/mdelete", {"keys": ["then/a", "then/b"]})


def test_a_restart_is_said(launch: Launcher, tmp_path: Path) -> None:
    """The stream ends when the server stops; who comes again is told that what came between is not known."""
    server = launch("--limits-shutdown-grace", "1")
    with server.http() as client, following(server, tmp_path / "first") as first:
        client.post("/api/v1/set", {"key": "a", "value": "1"})
        last_id = first.wait_for(1)[0].last_id
        server.stop()
        first.process.wait()
        assert first.messages[-1].event == "failed"
        assert first.messages[-1].data["code"] == "unavailable"
    server = launch()
    follower = Follower(server, tmp_path / "again", "", "-H", f"Last-Event-ID: {last_id}")
    follower.process.wait()
    assert [message.event for message in follower.messages][-1] == "compacted"
