"""Holders of a lock that stand still for longer than its ttl do no harm: by the examples of docs/recipes.md."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ..docs.pages import ROOT, blocks
from ..docs.test_recipes import generate
from .harness import PATIENCE, Launcher, Server, environment, eventually

#: What each holder does: it takes the lock, and writes with its token for as long as it may, guarded in both ways.
HOLDER = """
import http.client, json, sys
name, resource = sys.argv[1:]

def tell(**what):
    connection = http.client.HTTPConnection(resource)
    connection.request("POST", "/", json.dumps({"name": name, **what}))
    return connection.getresponse().status == 200

def known(call, *arguments):
    # False if no answer came in its time, which may be that of the pause.
    try:
        return call(*arguments)
    except grpc.RpcError:
        return False

lock = Lock("paused", ttl=1)
while not (token := lock.acquire()):
    time.sleep(0.02)
tell(held=token)
while True:
    written = tell(token=token)
    guarded = known(write_guarded, lock, "guarded", name)
    renewed = known(lock.renew)
    if not (written and guarded and renewed):
        tell(lost=[written, guarded, renewed, known(lock.release)])
        break
    time.sleep(0.05)
"""
#: What the lock guards: the process that keeps the highest token, and a list of what was let through.
RESOURCE = """
import http.server, json, sys, threading
guarded, told, lock = Guarded(), open(sys.argv[1], "a"), threading.Lock()

class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        what = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        status = 200
        with lock:
            if "token" in what:
                try:
                    guarded.write(what["token"], what["name"])
                except PermissionError:
                    status = 409
            print(json.dumps({**what, "status": status}), file=told, flush=True)
        self.send_response(status)
        self.end_headers()

    def log_message(self, *arguments):
        pass

serving = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(serving.server_port, flush=True)
serving.serve_forever()
"""


class Scene:
    """The programs, made of the page's examples, and what the guarded process was told."""

    def __init__(self, server: Server, folder: Path) -> None:
        generate(folder)
        self.server = server
        text = blocks(ROOT / "docs" / "recipes.md", "python")
        recipes = [text[0], *(block for block in text if "class Lock" in block or "class Guarded" in block)]
        recipes += [block for block in text if "def write_guarded" in block]
        # The classes and functions alone: what follows them shows how they are used.
        code = "\n".join(part for block in recipes for part in _definitions(block))
        self._code = code.replace("127.0.0.1:50051", server.grpc_address)
        self._folder = folder
        self._told = folder / "told"
        self._processes: list[subprocess.Popen[str]] = []
        self._resource = f"127.0.0.1:{self._start('resource', RESOURCE, str(self._told)).stdout.readline().strip()}"  # type: ignore[union-attr]

    def _start(self, name: str, program: str, *arguments: str) -> subprocess.Popen[str]:
        (self._folder / f"{name}.py").write_text(self._code + program, encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, f"{name}.py", *arguments],
            cwd=self._folder, env=environment(), stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._processes.append(process)
        return process

    def hold(self, name: str) -> subprocess.Popen[str]:
        """A holder that wants the lock."""
        return self._start(name, HOLDER, name, self._resource)

    @property
    def told(self) -> list[dict[str, object]]:
        """All that the guarded process was told."""
        return [json.loads(line) for line in self._told.read_text("utf-8").splitlines()] if self._told.exists() else []

    def of(self, name: str, what: str) -> list[object]:
        """What a holder has told of one kind."""
        return [line[what] for line in self.told if line["name"] == name and what in line]

    def end(self) -> None:
        """End the programs."""
        for process in self._processes:
            process.kill()
            process.communicate()


def _definitions(block: str) -> list[str]:
    """Imports, the client, classes and functions of a block, not what is checked after them."""
    parts = [part.strip("\n") for part in block.split("\n\n\n")]
    return [part for part in parts if part.startswith(("import", "class", "def"))]


@pytest.fixture
def scene(launch: Launcher, tmp_path: Path) -> Scene:
    """A server, with the programs in a folder."""
    folder = tmp_path / "programs"
    folder.mkdir()
    return Scene(launch("--eviction-protected-prefixes", "locks/"), folder)


def test_a_paused_holder_is_kept_out(scene: Scene) -> None:
    """It is stopped, its ttl ends, another takes the lock; when it goes on, neither of its guarded writes is let in."""
    try:
        first = scene.hold("first")
        eventually(lambda: len(scene.of("first", "token")) > 2)
        first.send_signal(signal.SIGSTOP)
        second = scene.hold("second")
        eventually(lambda: len(scene.of("second", "token")) > 2)
        first.send_signal(signal.SIGCONT)
        assert first.wait(PATIENCE) == 0
        (lost,) = scene.of("first", "lost")
        before = len(scene.of("second", "token"))
        eventually(lambda: len(scene.of("second", "token")) > before + 2)
        second.send_signal(signal.SIGTERM)
        # Each had another token, and the second's was higher: so of the first one's writes none came after.
        (old,), (new,) = scene.of("first", "held"), scene.of("second", "held")
        assert isinstance(old, int) and isinstance(new, int) and old < new  # noqa: PT018
        passed = [line["token"] for line in scene.told if line.get("status") == 200 and "token" in line]
        assert passed == sorted(passed, key=int)  # type: ignore[call-overload]
        # What it was in the middle of when it was stopped may have been done before that.
        assert isinstance(lost, list)
        assert lost[2:] == [False, False]
        with scene.server.grpc() as client:
            assert client.call("Get", key="guarded").value == "second"
    finally:
        scene.end()


@pytest.mark.long
def test_many_holders_that_pause(scene: Scene) -> None:
    """Six at once, stopped at random moments for longer than the ttl: tokens that are let in never go back."""
    try:
        holders = {f"holder{number}": scene.hold(f"holder{number}") for number in range(6)}
        for turn in range(12):
            name = sorted(holders)[turn % len(holders)]
            process = holders[name]
            if process.poll() is not None:
                holders[name] = scene.hold(name)
                continue
            process.send_signal(signal.SIGSTOP)
            threading.Event().wait(1.2)
            process.send_signal(signal.SIGCONT)
        passed = [line["token"] for line in scene.told if line.get("status") == 200 and "token" in line]
        assert passed == sorted(passed, key=int)  # type: ignore[call-overload]
        assert len(set(map(str, passed))) > 3
    finally:
        scene.end()
