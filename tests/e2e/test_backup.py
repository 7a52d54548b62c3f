"""Backups of a server that is written to: each is a whole, from one moment, and a server starts on it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .harness import CLI, PATIENCE, Launcher, Server, environment, eventually
from .history import LARGE, Entry, Keys
from .ledger import Apply, Ledger, check_files, end, start_writers

#: Writes that are acknowledged before each of them.
WRITES = 100
#: Files that a backup has to link, so that it takes a while.
MANY = 2000

_SPILL = ("--value-disk-threshold", str(LARGE))


class History(Ledger):
    """A ledger that keeps every write, and can say what a copy may hold."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: dict[Keys, list[Entry]] = {}

    def write(self, writer: str, entry: Entry, apply: Apply) -> None:
        """Keep the entry, whatever becomes of it; a group has one writer."""
        self.entries.setdefault(entry.keys, [Entry(entry.keys, None)]).append(entry)
        super().write(writer, entry, apply)

    def possible(self, keys: Keys, begun: float, ended: float) -> list[Entry]:
        """Writes of which a copy made between two times may show a group: the last one acknowledged before, and all
        later ones that were on their way by the end."""
        entries = self.entries[keys]
        known = max((at for at, entry in enumerate(entries) if entry.acknowledged and entry.ended < begun), default=0)
        return [entry for entry in entries[known:] if entry.begun < ended]


def kvtwisted(server: Server, *arguments: str) -> Any:
    """Run the command to its end against `server`."""
    return subprocess.run(
        [*CLI, *arguments, "--url", f"http://{server.http_address}"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


class Taken(NamedTuple):
    """A backup: its folder, and the times between which it was made."""

    path: Path
    begun: float
    ended: float


def take(server: Server) -> Taken:
    """A backup by the command."""
    begun = time.monotonic()
    done = kvtwisted(server, "backup", "--json")
    ended = time.monotonic()
    assert done.returncode == 0, done.stderr
    return Taken(Path(json.loads(done.stdout)["path"]), begun, ended)


def start_on(launch: Launcher, folder: Path, name: str) -> Server:
    """A server whose data is a backup."""
    options = ("--rocksdb-path", str(folder / "data"), "--value-disk-path", str(folder / "value_data"))
    return launch(*options, *_SPILL, name=name)


def check(server: Server, ledger: History, taken: Taken) -> int:
    """Assert that the server has each group of keys whole and as a copy may have it; returns how many keys."""
    with server.grpc() as client, server.http() as http:
        everything = dict(client.call("ScanKeyValues").key_values)
        for keys in ledger.entries:
            asked = time.monotonic()
            found = dict(client.call("MGet", keys=keys).key_values)
            answered = time.monotonic()
            assert len(found) in (0, len(keys)), f"half-done: of {keys} there are {sorted(found)}"
            possible = ledger.possible(keys, taken.begun, taken.ended)
            assert any(entry.explains(found, asked, answered) for entry in possible), (found.keys(), possible)
        assert everything.keys() <= {key for keys in ledger.entries for key in keys}
        assert any(client.call("Get", key=key).ttl > 60 for key in everything)
        assert client.call("Set", key="after", value="y" * LARGE).success
        assert http.get("/api/v1/get/after").body["value"] == "y" * LARGE
        assert http.get("/api/v1/health").status == 200
    # No file is missing, and what came along without a record has gone at the start.
    assert check_files(server, spilled=True)
    return len(everything)


def exercise(launch: Launcher, backups: int, folder: Path | None = None) -> None:
    """Back up a server under load, into `folder` or the default one, and start a server on each backup."""
    server = launch(*_SPILL, *(("--backup-path", str(folder)) if folder else ()))
    ledger = History()
    writers = start_writers(server, ledger)
    taken: list[Taken] = []
    for _ in range(backups):
        ledger.wait_for_more(WRITES, PATIENCE)
        taken.append(take(server))
    listed = json.loads(kvtwisted(server, "backups", "--json").stdout)["backups"]
    assert sorted(backup["path"] for backup in listed) == sorted(str(backup.path) for backup in taken)
    assert all(writer.failure is None for writer in writers)
    server.kill()
    end(writers)
    for number, backup in enumerate(taken):
        # The first one is kept as it is: what is started on is a copy.
        place = backup.path if number else shutil.copytree(backup.path, launch.folder / "copy")
        restored = start_on(launch, place, f"restored-{number}")
        assert check(restored, ledger, backup) > len(writers)
        restored.stop()
    # The original goes on as if nothing had been.
    ledger.compare(launch(*_SPILL))


@pytest.mark.long
@pytest.mark.parametrize("backups", [2, 3])
def test_backups_under_load(launch: Launcher, backups: int) -> None:
    """What was acknowledged before is there, batches are whole, every large value can be read; the rest is as usual."""
    exercise(launch, backups)


@pytest.mark.long
def test_backups_on_another_file_system(launch: Launcher, tmp_path: Path) -> None:
    """The same where nothing can be linked."""
    with _elsewhere(tmp_path) as folder:
        exercise(launch, 1, folder)
        assert all(file.stat().st_nlink == 1 for file in folder.rglob("*") if file.is_file())


@contextmanager
def _elsewhere(here: Path) -> Iterator[Path]:
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK) or memory.stat().st_dev == here.stat().st_dev:
        pytest.skip("there is no second file system: /dev/shm is missing, or the tests' folder is on it")
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder) / "backups"


def _slow(launch: Launcher) -> tuple[Server, Path]:
    """A server whose next backup takes a while, for all the files that it has to link; and where it is being made."""
    server = launch(*_SPILL)
    with server.grpc() as client:
        assert client.call("MSet", key_values={"small": "v", "large": "x" * LARGE}).success
    for number in range(MANY):
        name = f"{number % 256:02x}{number:030x}"
        (server.folder / "value_data" / name[:2] / name).write_bytes(b"")
    return server, server.folder / "backups" / ".unfinished-monday"


def _start_backup(server: Server, unfinished: Path) -> Any:
    """The command as a running process, once it has got as far as linking values."""
    command = subprocess.Popen(
        [*CLI, "backup", "monday", "--url", f"http://{server.http_address}"],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (unfinished / "data").exists():
        assert command.poll() is None, command.communicate()
    return command


def _assert_no_backup(server: Server) -> None:
    done = kvtwisted(server, "backups")
    assert (done.returncode, done.stdout) == (0, "no backups\n")
    assert [path.name for path in (server.folder / "backups").iterdir()] == [".lock"]
    assert not (server.folder / "data" / "backup.tmp").exists()
    with server.grpc() as client:
        assert dict(client.call("ScanKeyValues").key_values) == {"small": "v", "large": "x" * LARGE}
    done = kvtwisted(server, "backup", "monday")
    assert (done.returncode, done.stderr) == (0, "")


def test_kill_in_the_middle(launch: Launcher) -> None:
    """What is left cannot be taken for a backup, and is gone after the next start."""
    server, unfinished = _slow(launch)
    command = _start_backup(server, unfinished)
    server.kill()
    _, said = command.communicate(timeout=PATIENCE)
    assert command.returncode == 1
    assert said.startswith("kvtwisted: http://")
    assert "gave no answer" in said
    assert unfinished.is_dir()
    assert not (unfinished / "backup.json").exists()
    assert not any(path.name[0] != "." for path in unfinished.parent.iterdir())
    _assert_no_backup(launch(*_SPILL))


@pytest.mark.long
def test_stop_in_the_middle(launch: Launcher) -> None:
    """The command is told, and the server does not wait for a backup that may take long."""
    server, unfinished = _slow(launch)
    command = _start_backup(server, unfinished)
    server.send(signal.SIGTERM)
    _, said = command.communicate(timeout=PATIENCE)
    assert (command.returncode, said) == (1, "kvtwisted: the server is stopping; no backup was made\n")
    assert server.wait() == -signal.SIGTERM
    assert [path.name for path in unfinished.parent.iterdir()] == [".lock"]
    _assert_no_backup(launch(*_SPILL))


def test_administration_of_a_running_server(launch: Launcher) -> None:
    """A dry run deletes nothing; orphans go and nothing else; a backup does not hold up requests."""
    server, unfinished = _slow(launch)
    done = kvtwisted(server, "eviction")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("the disk is ")
    command = _start_backup(server, unfinished)
    with server.http() as http:
        assert http.get("/api/v1/get/large").status == 200
        refused = http.post("/api/v1/admin/backup", {"name": "second"})
        # Unless the first one is done already, which would make this test a weaker one, but not a wrong one.
        if command.poll() is None and refused.status != 200:
            assert (refused.status, refused.body["code"]) == (429, "overloaded")
    out, said = command.communicate(timeout=PATIENCE)
    assert (command.returncode, said) == (0, "")
    assert out.startswith("backup monday: ")
    done = kvtwisted(server, "orphans")
    assert (done.returncode, done.stdout) == (0, f"removed {MANY} files, 0 bytes\n")
    server.wait_for_log("running", "backup monday made in")
    lines = [json.loads(line) for line in eventually(lambda: server.log("audit")).splitlines()]
    done_by = [(line["who"], line["operation"]) for line in lines if line["event"] == "administration"]
    assert {("anonymous", "eviction"), ("anonymous", "backup"), ("anonymous", "orphans")} <= set(done_by)
    with server.grpc() as client:
        assert dict(client.call("ScanKeyValues").key_values) == {"small": "v", "large": "x" * LARGE}
    eventually(lambda: len(list((server.folder / "value_data").glob("??/*"))) == 1)


def test_memory_has_no_backups(launch: Launcher) -> None:
    """The command says so."""
    server = launch("--storage-engine", "memory")
    done = kvtwisted(server, "backup")
    assert (done.returncode, done.stdout) == (1, "")
    assert "storage.engine is memory" in done.stderr
