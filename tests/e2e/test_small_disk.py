"""A disk of 64 MiB filled three times over: the server evicts, refuses, answers, never runs out of space, recovers."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import grpc
import pytest

from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.core.errors import NoInodes, Unavailable
from kvtwisted.reactor.lifecycle import make_folder

from .harness import Launcher, Server, eventually
from .small_disks import MIB, Load, bound, can_mount, mounted, text

pytestmark = pytest.mark.skipif(not can_mount(), reason="this user may not mount a small file system of memory")

_DISK = 64 * MIB
#: Bytes that all clients together write.
_TOTAL = 200 * MIB
_SIZES = (100, 1000, 10_240, 40_000, 100_000, 300_000)
#: RocksDB's options are the defaults.
_OPTIONS = ("--eviction-check-interval", "1", "--value-disk-threshold", "65536", "--monitoring-sample-interval", "1")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The disk that holds everything of the server that `launch` starts."""
    with mounted(tmp_path / "server", _DISK) as folder:
        yield folder


def _write(loads: list[Load], server: Server) -> None:
    """Let the loads write everything, and keep an eye on the server."""
    for load in loads:
        load.start()
    for load in loads:
        eventually(lambda load=load: not load.is_alive(), 120)  # type: ignore[misc]
        assert load.failure is None, (load.name, load.failure)
    assert server.process.poll() is None


def _held(loads: list[Load], server: Server) -> set[str]:
    """The keys that are there, each with the value that was acknowledged last."""
    for load in loads:
        load.use(server)
    return {key for load in loads for key in load.written if load.holds(key)}


def _never_full(folder: Path) -> bool:
    """Whether no log of the server's or RocksDB's tells of a lack of space."""
    logs = [*folder.glob("data/LOG*"), *folder.glob("logs/*.log"), *folder.glob("output-*.txt")]
    assert len(logs) >= 5
    return not any("No space left" in _text(log) for log in logs)


def _text(log: Path) -> str:
    """What stands in a log; nothing if RocksDB, which keeps the last ones alone, has removed it meanwhile."""
    try:
        return log.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _files(folder: Path) -> int:
    return sum(1 for path in folder.glob("value_data/*/*") if re.fullmatch("[0-9a-f]{32}", path.name))


@pytest.mark.long
def test_three_times_its_size(disk: Path, launch: Launcher) -> None:
    """Everything acknowledged and not evicted is there, exactly, all the time and after a crash."""
    server = launch(*_OPTIONS)
    server.wait_for("rocksdb.options lowered")
    loads = [Load(server, name, _SIZES, _TOTAL // 4) for name in ("http-0", "http-1", "grpc-0")]
    loads.append(Load(server, "grpc-1", _SIZES, _TOTAL // 4, ttl=(0, 2, 3600)))
    _write(loads, server)
    with server.http() as http:
        eventually(lambda: http.get("/api/v1/health").status == 200)
        assert http.metric("kv_disk_nearly_full") == 0
        refused = sum(load.refused for load in loads)
        assert http.metric("kv_writes_refused_total") == refused > 0
        # Nothing is evicted any more, so that the same is there before and after the crash.
        assert http.post("/api/v1/config", {"eviction": {"enabled": False}}).status == 200
        held = _held(loads, server)
        written = sum(len(load.written) for load in loads)
        expired = http.metric("kv_expirations_total") + http.metric("kv_evictions_total", reason="expired")
        evicted = http.metric("kv_evictions_total", reason="lru")
        assert expired > 0
        assert 0 < written - len(held) <= evicted + expired
        assert http.metric("kv_evicted_bytes_total", reason="lru") > _TOTAL - 2 * _DISK
        assert http.metric("kv_evictions_futile_total") == 0
        assert http.metric("kv_rocksdb_background_errors") == 0
    assert len(held) > 50
    assert _never_full(disk)

    server.kill()
    server = launch(*_OPTIONS, "--eviction-enabled", "false")
    again = _held(loads, server)
    assert held - again <= {key for key in held if key.startswith("grpc-1/")}  # whose ttl has ended
    assert again <= held
    size = {key: size for load in loads for key, size in load.size.items()}
    with server.http() as http:
        eventually(lambda: _files(disk) == sum(size[key] >= 65_536 for key in _held(loads, server)))
        assert http.get("/api/v1/health").status == 200
    assert _never_full(disk)


def test_refused_at_the_mark(disk: Path, launch: Launcher) -> None:
    """Without eviction writes are refused and health says why; reads and deletes go on, and deletes make room."""
    server = launch(*_OPTIONS, "--eviction-enabled", "false")
    with server.http() as http:
        values: dict[str, str] = {}
        while True:
            key, value = f"key{len(values):05}", text(20_000)
            answer = http.post("/api/v1/set", {"key": key, "value": value})
            if answer.status == 507:
                break
            if answer.status == 200:
                values[key] = value
            else:
                assert answer.status == 429, answer
        assert answer.body["code"] == "storage_full"
        assert "eviction.high_water_mark is 95 %" in answer.body["error"]
        health = http.get("/api/v1/health")
        assert health.status == 503
        assert "nearly full" in health.body["reason"]
        assert http.metric("kv_disk_nearly_full") == 1
        for key in list(values)[::100]:
            assert http.get(f"/api/v1/get/{key}").body["value"] == values[key]
        gone = list(values)[: len(values) // 2]
        assert http.post("/api/v1/mdelete", {"keys": gone}).status == 200
        eventually(lambda: http.get("/api/v1/health").status == 200)
        assert http.post("/api/v1/set", {"key": "again", "value": "there is room"}).status == 200
        left = http.get("/api/v1/scan?limit=10000&keys_only=true").body["keys"]
        assert left == sorted([*list(values)[len(gone) :], "again"])
    assert _never_full(disk)


@pytest.mark.long
def test_full_of_something_else(disk: Path, launch: Launcher) -> None:
    """Nothing is destroyed when that cannot help; writes are refused until somebody makes room."""
    server = launch(*_OPTIONS)
    with server.http() as http:
        assert http.post("/api/v1/set", {"key": "mine", "value": "a" * 100_000}).status == 200
        filler = disk / "filler"
        filler.write_bytes(bytes(_DISK * 92 // 100))
        eventually(lambda: http.metric("kv_evictions_futile_total"))
        eventually(lambda: http.post("/api/v1/set", {"key": "k", "value": "v"}).status == 507)
        assert len(http.get("/api/v1/get/mine").body["value"]) == 100_000
        server.wait_for_log("running", "nothing is evicted")
        filler.unlink()
        eventually(lambda: http.get("/api/v1/health").status == 200)
        assert http.post("/api/v1/set", {"key": "k", "value": "v"}).status == 200
        assert http.metric("kv_evictions_total", reason="lru") == 0


@pytest.mark.long
def test_values_on_a_disk_of_their_own(disk: Path, tmp_path: Path, launch: Launcher) -> None:
    """Only keys with files go when the value folder's disk is full; others, which would free nothing there, stay."""
    with mounted(tmp_path / "values", _DISK // 2) as values:
        server = launch(*_OPTIONS, "--value-disk-path", str(values / "folder"))
        with server.http() as http:
            small = {f"small{number:03}": text(1000) for number in range(300)}
            assert http.post("/api/v1/mset", {"key_values": small}).status == 200
            load = Load(server, "http-large", (200_000,), _DISK)
            _write([load], server)
            eventually(lambda: http.get("/api/v1/health").status == 200)
            assert http.metric("kv_evictions_total", reason="lru") > 100
            assert http.post("/api/v1/mget", {"keys": list(small)}).body["results"] == small
            assert 0 < len(_held([load], server)) < len(load.written)
            server.wait_for_log("running", "the disk of value.disk_path was")
        assert _never_full(disk)


def _refresh(server: Server, keys: list[str], times: int, ttl: int) -> None:
    """Give all keys a new deadline, so often. What is refused until RocksDB has caught up is tried again."""
    with server.grpc() as client:

        def refreshed() -> bool:
            try:
                return bool(client.call("MSet", key_values=dict.fromkeys(keys, "v" * 10), ttl=ttl).success)
            except grpc.RpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    raise
                return False

        for _ in range(times):
            eventually(refreshed)


@pytest.mark.parametrize(
    "rounds", [30, pytest.param(1000, marks=pytest.mark.long)], ids=["as much as there is room", "more"]
)
def test_refreshed_keys_leave_nothing_behind(rounds: int, disk: Path, launch: Launcher) -> None:
    """Entries of the expiry index that nobody needs neither fill the disk nor have other keys evicted; also not those
    of an earlier run, which this one knows nothing of."""
    stay = {f"stay/{number:04}": "matters" for number in range(1000)}
    refreshed = [f"{number:04}{text(896)}" for number in range(1000)]
    server = launch(*_OPTIONS)
    with server.http() as http:
        assert http.post("/api/v1/mset", {"key_values": stay}).status == 200
        (disk / "else").write_bytes(bytes(28 * MIB))
    _refresh(server, refreshed, rounds, 86_400)
    with server.http() as http:
        # Two keys that share a place forget one another.
        assert (rounds - 1) * 990 <= (http.metric("kv_expiry_entries_replaced_total") or 0) <= (rounds - 1) * 1000
    server.kill()
    server = launch(*_OPTIONS)
    with server.http() as http:
        _refresh(server, refreshed, 5, 86_400)
        eventually(lambda: (http.metric("kv_expiry_entries_scrubbed_total") or 0) >= 1000)
        assert http.metric("kv_evictions_total", reason="lru") == 0
        assert http.metric("kv_evictions_futile_total") == 0
        assert http.post("/api/v1/mget", {"keys": list(stay)}).body["results"] == stay
        assert (http.metric("kv_disk_used_percent") or 100) < 80


@pytest.mark.parametrize(("others", "threshold"), [(0, 60), (18, 80)], ids=["fits", "does not"])
def test_a_backup_never_costs_data(others: int, threshold: int, disk: Path, launch: Launcher) -> None:
    """Between two mounts of one disk all must be copied. A backup that does not fit is refused with the numbers; one
    that does may fill the disk beyond the threshold, and not a key goes for it."""
    with ExitStack() as mounts:
        folders = {}
        for name in ("data", "values", "backups"):
            (disk / name).mkdir()
            folders[name] = str(mounts.enter_context(bound(disk / name, disk.parent / name)))
        server = launch(
            *_OPTIONS, "--rocksdb-path", folders["data"], "--value-disk-path", folders["values"],
            "--backup-path", folders["backups"], "--eviction-disk-usage-threshold", str(threshold),
        )  # fmt: skip
        with server.http() as http:
            (disk / "else").write_bytes(bytes(others * MIB))
            values = {f"key{number:03}": text(200_000) for number in range(100)}
            for key, value in values.items():
                # At the mark RocksDB may have to give something back first.
                eventually(
                    lambda key=key, value=value: http.post("/api/v1/set", {"key": key, "value": value}).status == 200
                )
            answer = http.post("/api/v1/admin/backup", {})
            assert answer.status == (507 if others else 200), answer
            if others:
                assert re.match(
                    r"a backup needs \d+ bytes in \S+, where \d+ are free, of which \d+", answer.body["error"]
                )
                assert list((disk / "backups").iterdir()) == [disk / "backups" / ".lock"]
            else:
                eventually(lambda: http.metric("kv_evictions_futile_total"))
                server.wait_for_log("running", "are backups, and what the server needs for a while")
            left = http.get("/api/v1/scan?limit=10000&keys_only=true").body["keys"]
            assert left == sorted(values)
            assert http.metric("kv_evictions_total", reason="lru") == 0
            assert http.post("/api/v1/set", {"key": "k", "value": "v"}).status == 200
        server.stop()


def _take_all_inodes(folder: Path) -> list[Path]:
    taken: list[Path] = []
    with suppress(OSError):
        while True:
            taken.append(folder / f"other{time.monotonic_ns()}")
            taken[-1].touch()
    return taken[:-1]


@pytest.mark.long
def test_without_inodes(tmp_path: Path, launch: Launcher) -> None:
    """A disk with bytes but no inodes: said in so many words; deletes go on, the server starts, all is well after."""
    with mounted(tmp_path / "disk", _DISK, inodes=600) as disk:
        folders = ("--rocksdb-path", str(disk / "data"), "--value-disk-path", str(disk / "values"))
        options = (*_OPTIONS, *folders, "--value-disk-threshold", "4096")
        server = launch(*options)
        with server.http() as http:
            number = 0
            while (answer := http.post("/api/v1/set", {"key": f"k{number}", "value": "v" * 5000})).status == 200:
                number += 1
            assert (answer.status, answer.body["code"]) == (507, "storage_full")
            assert "inodes" in answer.body["error"]
            taken = _take_all_inodes(disk)
            assert len(taken) < 60  # the server has left some
            answer = http.post("/api/v1/set", {"key": "small", "value": "v"})
            assert (answer.status, "inodes" in answer.body["error"]) == (507, True)
            assert "inodes" in http.get("/api/v1/health").body["reason"]
            assert http.call("DELETE", "/api/v1/delete/k0").status == 200
            assert http.post("/api/v1/mdelete", {"keys": ["k1", "small"]}).status == 200
            eventually(lambda: "spare ones are used" in server.log("running"))
            taken += _take_all_inodes(disk)
        server.kill()
        taken += _take_all_inodes(disk)
        server = launch(*options)
        with server.http() as http:
            assert http.get("/api/v1/health").status == 503
            assert http.metric("kv_inodes") == 600
            assert len(http.get("/api/v1/get/k2").body["value"]) == 5000
            assert http.get("/api/v1/get/k1").status == 404
            assert http.call("DELETE", "/api/v1/delete/k2").status == 200
            for path in taken:
                path.unlink()
            eventually(lambda: http.get("/api/v1/health").status == 200)
            assert http.post("/api/v1/set", {"key": "again", "value": "v" * 5000}).status == 200
            assert http.get("/api/v1/scan?limit=10000&keys_only=true").body["count"] == number - 2


def test_a_first_start_without_inodes(tmp_path: Path) -> None:
    """What makes the folders says that inodes are missing, and not that the disk is full."""
    with mounted(tmp_path / "disk", _DISK, inodes=60) as disk:
        values = ValueFiles(str(disk))
        with pytest.raises(NoInodes, match="no inode is free"):
            values.prepare()
        with pytest.raises(Unavailable, match=r"backup.path: cannot make the folder \S+: no inode is free"):
            make_folder("backup.path", str(disk / "backups" / "more"))
