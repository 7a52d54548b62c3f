"""What a power loss takes, by setting: docs/durability.md.

The server's files lie on a file system of their own, whose power is cut under load (`tests/e2e/disks.py`); a server on
what is left of it is compared with what clients were told. KVTWISTED_POWER_ROUNDS sets how often the power is cut in
each test (1), KVTWISTED_POWER_DISK the file system (xfs, or ext4), KVTWISTED_POWER_SEED repeats random moments.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Callable

import pytest

from .clients import Http
from .disks import Disk, why_not
from .harness import PATIENCE, Launcher, Server, eventually
from .history import LARGE, Entry
from .ledger import Ledger, Work, check_files, end, mixed, start_readers, start_writers
from .wall_clock import WallClock

ROUNDS = int(os.environ.get("KVTWISTED_POWER_ROUNDS", "1"))
KIND = os.environ.get("KVTWISTED_POWER_DISK", "xfs")
SEED = int(os.environ.get("KVTWISTED_POWER_SEED", time.time_ns() % 1_000_000))
#: Writes that are acknowledged before a cut, at most.
WRITES = 300
#: Seconds that an fsync, and a busy machine, may add to the interval between two fsyncs.
SLACK = 1.5

_SYNC = ("--rocksdb-options-sync", "true")
_FILES = ("--value-disk-threshold", str(LARGE))
#: So that every few writes a memtable is full and flushed.
_FLUSHING = ("--rocksdb-options-write-buffer-size", "65536", "--rocksdb-options-max-total-wal-size", "1048576")
_chance = random.Random(SEED)


def _interval(milliseconds: int) -> tuple[str, str]:
    return "--storage-wal-sync-interval-ms", str(milliseconds)


class Machine:
    """Servers whose files all lie on one disk, and the switch of its power."""

    def __init__(self, launch: Launcher, disk: Disk) -> None:
        self._launch = launch
        self._disk = disk
        #: Of the servers' environment.
        self.variables: Mapping[str, str] = {}

    def start(self, *options: str, folder: str = "", ready: bool = True) -> Server:
        """A server; one that got the same `folder` uses the same data."""
        at = Path(self._disk.folder.name, folder)
        paths = ("--rocksdb-path", str(at / "data"), "--value-disk-path", str(at / "value_data"))
        runtime = ("--runtime-config", str(Path(self._disk.folder.name, "runtime.json")))
        return self._launch(
            *paths, *runtime, "--storage-expiry-interval", "1", *options, env=self.variables, ready=ready
        )

    def cut(self, server: Server) -> float:
        """Cut the power and put it back; returns when, by `time.monotonic`. What is heard later does not count."""
        at = time.monotonic()
        self._disk.cut()
        server.kill()
        self._disk.unmount()
        self._disk.mount()
        return at


@pytest.fixture
def machine(tmp_path: Path, launch: Launcher) -> Iterator[Machine]:
    """A machine whose power can be cut."""
    reason = why_not(KIND)
    if reason:
        pytest.skip(reason)
    print(f"\nseed {SEED}")
    with Disk(tmp_path / "image", tmp_path / "server" / "disk", KIND) as disk:
        yield Machine(launch, disk)
        launch.end()


def _load_and_cut(
    machine: Machine,
    ledger: Ledger,
    options: Sequence[str],
    *,
    seconds: float = 0,
    work: Work = mixed,
    started: Callable[[], object] = lambda: None,
) -> float:
    """Let clients write for a while, and for at least `seconds`, then cut the power; returns when.

    `started` is called when they write.
    """
    server = machine.start(*options)
    begun = time.monotonic()
    writers = start_writers(server, ledger, work=work)
    readers = start_readers(server, writers)
    started()
    ledger.wait_for_more(_chance.randint(WRITES // 10, WRITES), PATIENCE)
    eventually(lambda: time.monotonic() >= begun + seconds)
    threading.Event().wait(_chance.uniform(0, 0.02))
    cut = machine.cut(server)
    end(writers)
    ledger.doubt(since=cut)
    for reader in readers:
        reader.join(PATIENCE)
        assert reader.halves == []
    return cut


def _report(what: str, ledger: Ledger, lost: int, window: float = 0) -> None:
    print(f"\n{what}: {ROUNDS} cuts, {len(ledger)} writes acknowledged, {lost} lost", end="")
    print(f" of the last {window:.3f} s" if window else "")


def test_with_sync_nothing_acknowledged_is_lost(machine: Machine) -> None:
    """Neither single values nor batches nor deletes, small or in files, with a deadline or none."""
    ledger = Ledger()
    for _ in range(ROUNDS):
        _load_and_cut(machine, ledger, (*_SYNC, *_FILES, *_interval(0)))
        server = machine.start(*_FILES)
        assert ledger.compare(server) == []
        assert check_files(server, spilled=True)
        server.stop()
    _report("sync", ledger, 0)


@pytest.mark.parametrize("interval", [100, pytest.param(1000, marks=pytest.mark.long)])
def test_the_interval_bounds_what_is_lost(machine: Machine, interval: int) -> None:
    """What goes was acknowledged just before, and what stays has no holes."""
    bound = interval / 1000 + SLACK
    ledger = Ledger()
    lost, window = 0, 0.0
    for _ in range(ROUNDS):
        cut = _load_and_cut(machine, ledger, _interval(interval), seconds=bound + 0.5)
        server = machine.start()
        gone = ledger.compare(server, kept=lambda entry, since=cut - bound: entry.ended < since)  # type: ignore[misc]
        lost += len(gone)
        window = max([window, *(cut - entry.ended for entry in gone)])
        server.stop()
    _report(f"an interval of {interval} ms", ledger, lost, window)


def _lasting(writer: str, numbers: Iterator[int]) -> Iterator[Entry]:
    """Without deadlines: while the clock is behind, the time that a server is down does not count for them."""
    for entry in mixed(writer, numbers):
        entry.ttl = 0
        yield entry


@pytest.mark.long
@pytest.mark.parametrize("interval", [100, 1000])
def test_a_clock_that_is_set_back(machine: Machine, interval: int, tmp_path: Path) -> None:
    """The interval bounds what is lost also while the wall clock is an hour behind, and an hour more."""
    wall = WallClock(tmp_path / "wall")
    machine.variables = wall.environment
    bound = interval / 1000 + SLACK
    ledger = Ledger()
    for _ in range(2 * ROUNDS):
        step = partial(wall.step, -3600)
        cut = _load_and_cut(machine, ledger, _interval(interval), seconds=bound + 2, work=_lasting, started=step)
        server = machine.start()
        ledger.compare(server, kept=lambda entry, since=cut - bound: entry.ended < since)  # type: ignore[misc]
        server.stop()


@pytest.mark.long
@pytest.mark.parametrize("options", [_SYNC, _interval(200)], ids=["sync", "interval"])
def test_what_has_expired_stays_expired(machine: Machine, options: tuple[str, ...], tmp_path: Path) -> None:
    """A key that was answered as absent stays so when the clock is set back and the power cut: at once, or soon."""
    wall = WallClock(tmp_path / "wall")
    machine.variables = wall.environment
    for turn in range(3 * ROUNDS):
        server = machine.start(*options, "--storage-expiry-interval", "60")
        key = f"key{turn}"
        with server.http() as http, server.grpc() as client:
            assert client.call("Set", key=key, value="1", ttl=2).success
            assert client.call("Set", key="stays", value="1").success
            wall.step(-3600)
            eventually(lambda: http.get(f"/api/v1/get/{key}").status == 404)  # noqa: B023 - called here
            if options != _SYNC:
                threading.Event().wait(0.2 + SLACK)
        machine.cut(server)
        server = machine.start()
        with server.grpc() as client:
            assert list(client.call("ScanKeys").keys) == ["stays"]
        server.stop()


@pytest.mark.long
@pytest.mark.parametrize("options", [(), _FLUSHING], ids=["log", "flushing"])
def test_without_an_interval_writes_are_lost(machine: Machine, options: tuple[str, ...]) -> None:
    """But what is there is whole, and without holes. So the cut of these tests does take what was not fsynced."""
    ledger = Ledger()
    lost = 0
    for _ in range(ROUNDS):
        _load_and_cut(machine, ledger, (*_interval(0), *options))
        server = machine.start()
        gone = len(ledger.compare(server, kept=lambda entry: False))
        assert gone or options
        lost += gone
        server.stop()
    _report("no fsync", ledger, lost)


def _replacing(writer: str, numbers: Iterator[int]) -> Iterator[Entry]:
    """Files that come and go: each write makes one, or takes the place of one, or both."""
    for turn in itertools.count():
        number = next(numbers)
        keys = (f"{writer}/{turn // 3 % 3}",)
        yield Entry(keys, None if turn % 6 == 5 else f"value {number}", size=0 if turn % 3 == 2 else LARGE)


@pytest.mark.parametrize(
    ("options", "work"),
    [
        ((), mixed),
        pytest.param(_FLUSHING, mixed, marks=pytest.mark.long),
        pytest.param(_FLUSHING, _replacing, marks=pytest.mark.long),
    ],
    ids=["log", "flushing", "replacing"],
)
def test_large_values_are_durable_at_once(machine: Machine, options: tuple[str, ...], work: Work) -> None:
    """What was acknowledged stays when it made or replaced a file, and so does all that was acknowledged before.

    No record is left without its file, and no file without its record.
    """
    ledger = Ledger()
    lost = 0
    for _ in range(ROUNDS):
        _load_and_cut(machine, ledger, (*_interval(0), *_FILES, *options), work=work)
        server = machine.start(*_FILES)
        lost += len(ledger.compare(server, kept=lambda entry: entry.changes_files))
        check_files(server, spilled=True)
        server.stop()
    _report("large values without sync", ledger, lost)


def _filling(writer: str, numbers: Iterator[int]) -> Iterator[Entry]:
    """Large values of single keys, overwritten and deleted now and then."""
    for turn in itertools.count():
        number = next(numbers)
        keys = (f"{writer}/{turn % 150 if turn % 3 else turn % 20}",)
        yield Entry(keys, f"value {number}" if number % 10 else None, size=50_000)


@pytest.mark.long
def test_eviction(machine: Machine) -> None:
    """While keys are evicted, overwritten and deleted, no file goes that a record on the disk still names."""
    ledger = Ledger()
    lost = 0
    for _ in range(ROUNDS):
        evicting = ("--eviction-check-interval", "1", "--eviction-disk-usage-threshold", "10")
        server = machine.start(*_interval(0), *_FILES, *evicting, "--eviction-batch-size", "10")
        writers = start_writers(server, ledger, work=_filling)
        with server.http() as http:
            eventually(lambda http=http: http.metric("kv_evictions_total", reason="lru"))  # type: ignore[misc]
        threading.Event().wait(_chance.uniform(0, 1))
        cut = machine.cut(server)
        end(writers)
        ledger.doubt(since=cut)
        server = machine.start(*_FILES, "--eviction-enabled", "false")
        lost += len(ledger.compare(server, kept=lambda entry: entry.changes_files, evicting=True))
        check_files(server, spilled=True)
        server.stop()
    _report("eviction", ledger, lost)


def test_configuration(machine: Machine) -> None:
    """An acknowledged change is there afterwards."""
    told = 0
    for _ in range(ROUNDS):
        server = machine.start()
        changes: list[tuple[int, float]] = []
        changing = threading.Thread(target=_change, args=(server.http(), changes, told), daemon=True)
        changing.start()
        eventually(lambda changes=changes: len(changes) > 5)  # type: ignore[misc]
        threading.Event().wait(_chance.uniform(0, 0.02))
        cut = machine.cut(server)
        changing.join(PATIENCE)
        server = machine.start()
        with server.http() as http:
            told = http.get("/api/v1/config").body["eviction"]["batch_size"]
        least = max(number for number, at in changes if at < cut)
        assert least <= told <= changes[-1][0] + 1
        server.stop()


def _change(http: Http, changes: list[tuple[int, float]], last: int) -> None:
    """Count `eviction.batch_size` up until that fails."""
    for number in itertools.count(last % 1000 + 1):
        try:
            if http.post("/api/v1/config", {"eviction": {"batch_size": number}}).status != 200:
                return
        except OSError:
            return
        changes.append((number, time.monotonic()))


@pytest.mark.long
def test_first_start(machine: Machine) -> None:
    """Whenever in its very first start the power goes, the next start works; and what is written at once stays."""
    begun = time.monotonic()
    machine.cut(machine.start(folder="trial"))
    to_start = time.monotonic() - begun
    for number in range(ROUNDS):
        server = machine.start(folder=str(number), ready=False)
        threading.Event().wait(_chance.uniform(0.3, 1.1) * to_start)
        machine.cut(server)
        server = machine.start(*_SYNC, *_FILES, folder=str(number))
        with server.grpc() as client:
            assert client.call("MSet", key_values={"small": "s", "large": "l" * LARGE}).success
        machine.cut(server)
        server = machine.start(folder=str(number))
        with server.grpc() as client:
            assert dict(client.call("ScanKeyValues").key_values) == {"small": "s", "large": "l" * LARGE}
        server.stop()
