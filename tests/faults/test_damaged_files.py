"""Files that are cut short, overwritten or gone: never a wrong byte, never a silent loss of what could be told."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.core.errors import Corruption
from tests.backends.local.engines.support import PERSISTENT, opened, python
from tests.docs.pages import ROOT, blocks
from tests.e2e.clients import Grpc
from tests.e2e.harness import Launcher, Server, run_twistd
from tests.e2e.harness import engine as engine_name

from .causes import overwrite
from .test_failing_writes import all_pairs

PLAIN = ("--rocksdb-options-compression", "none", "--rocksdb-options-bottommost-compression", "none")
KEYS = [f"key{number:04}" for number in range(800)]
ENGINE = PERSISTENT[0] if engine_name() == "auto" else engine_name()


def killed_after_writing(launch: Launcher) -> tuple[Server, Path]:
    """A server that acknowledged all KEYS one by one and was killed, and the log that has them."""
    server = launch(*PLAIN)
    with server.grpc() as client:
        assert all(client.call("Set", key=key, value=key * 60).success for key in KEYS)
    server.kill()
    return server, max((server.folder / "data").glob("*.log"), key=lambda log: log.stat().st_size)


def assert_serves(launch: Launcher, lost: int) -> None:
    """A server starts, has all KEYS but at most `lost` of them, and takes writes."""
    with launch(*PLAIN).grpc() as client:
        found = all_pairs(client)
        assert {key: value for key, value in found.items() if value != key * 60} == {}
        assert len(KEYS) - lost <= len(found) <= len(KEYS)
        assert client.call("Set", key="after", value="v").success


TAILS: dict[str, tuple[Callable[[Path], object], int]] = {
    "cut": (lambda log: os.truncate(log, log.stat().st_size - 37), 1),
    "garbage": (lambda log: append(log, b"\xde\xad\xbe\xef" * 1000), 0),
    "zeros": (lambda log: append(log, bytes(5000)), 0),
    "overwritten": (lambda log: overwrite(log, log.stat().st_size - 40, 20), 1),
}


@pytest.mark.parametrize("tail", ["cut", pytest.param("overwritten", marks=pytest.mark.long)])
def test_torn_log(tail: str, launch: Launcher) -> None:
    """The last bytes of the log, which a crash of the machine may spoil: everything before them is there."""
    damage, lost = TAILS[tail]
    _, log = killed_after_writing(launch)
    damage(log)
    assert_serves(launch, lost)


@pytest.mark.long
def test_log_damaged_in_the_middle(launch: Launcher) -> None:
    """Acknowledged writes behind the damage: the start is refused in one line; the page's program goes on without them.

    lbry-rocksdb cannot tell, and starts with what is before the damage.
    """
    server, log = killed_after_writing(launch)
    overwrite(log, log.stat().st_size // 2)
    if ENGINE == "rocksdict":
        arguments = ("-n", "--pidfile=", "kvtwisted", "--http-port", "0", "--grpc-port", "0", *PLAIN)
        done = run_twistd(*arguments, folder=server.folder)
        (line,) = re.findall(r"kvtwisted: .*", done.stdout + done.stderr)
        assert re.search(r"the write-ahead log in '\./data' is damaged, and \d+ changes behind the damage", line)
        assert done.returncode == 1
        (program,) = blocks(ROOT / "docs" / "failures.md", "python")
        with python(program, str(server.folder / "data")) as repair:
            assert repair.wait() == 0
    assert_serves(launch, lost=450)
    with launch.servers[-1].grpc() as client:
        found = sorted(all_pairs(client).keys() - {"after"})
        assert found == KEYS[: len(found)]
        assert 350 < len(found) < 450


def with_table(launch: Launcher) -> tuple[Server, Path]:
    """A stopped server whose KEYS are in one table file, which is returned."""
    server = launch(*PLAIN)
    with server.grpc() as client:
        assert client.call("MSet", key_values={key: key * 60 for key in KEYS}).success
    server.stop()
    engine = opened(ENGINE, server.folder / "data", compression="none", bottommost_compression="none")
    engine.compact(b"", b"\xff")
    engine.close()
    return server, max((server.folder / "data").glob("*.sst"), key=lambda table: table.stat().st_size)


def statuses(client: Grpc, keys: list[str]) -> dict[str, grpc.StatusCode]:
    """The keys whose Get failed, and with what; the others must have their value."""
    failed = {}
    for key in keys:
        try:
            assert client.call("Get", key=key).value == key * 60
        except grpc.RpcError as error:
            failed[key] = error.code()
    return failed


def test_damaged_table(launch: Launcher) -> None:
    """A damaged block is an error of its keys alone, with an incident in the log; all else is read and written."""
    _, table = with_table(launch)
    overwrite(table, table.stat().st_size // 2)
    server = launch(*PLAIN)
    with server.http() as http, server.grpc() as client:
        failed = statuses(client, KEYS)
        assert 0 < len(failed) < 100
        assert set(failed.values()) == {grpc.StatusCode.INTERNAL}
        answer = http.get(f"/api/v1/get/{min(failed)}")
        assert (answer.status, answer.body["code"]) == (500, "corruption")
        server.wait_for_log("error", answer.body["incident"])
        assert http.metric("kv_get_errors_total") == len(failed) + 1
        with pytest.raises(grpc.RpcError, match="stored data is damaged"):
            client.call("ScanKeys")
        assert client.call("MGet", keys=[KEYS[0], KEYS[-1]]).key_values[KEYS[0]] == KEYS[0] * 60
        assert client.call("Set", key=min(failed), value="new").success
        assert client.call("Get", key=min(failed)).value == "new"
        assert http.get("/api/v1/health").status == 200


def test_missing_table(launch: Launcher) -> None:
    """A table file that is gone: the start is refused in one line that names it."""
    server, table = with_table(launch)
    table.unlink()
    options = ("--storage-engine", ENGINE, "--http-port", "0", "--grpc-port", "0")
    done = run_twistd("-n", "--pidfile=", "kvtwisted", *options, folder=server.folder)
    (line,) = re.findall(r"kvtwisted: .*", done.stdout + done.stderr)
    assert "the data folder './data' is damaged" in line
    assert f"{table.stem}." in line  # lbry-rocksdb names it by the ending that LevelDB used
    assert done.returncode == 1


VALUE_DAMAGES: dict[str, Callable[[Path], object]] = {
    "overwritten": lambda file: overwrite(file, 70_000),
    "short": lambda file: os.truncate(file, 100),
    "missing": lambda file: file.unlink(),
}


def test_damaged_value_files(launch: Launcher) -> None:
    """A large value whose file is damaged or gone is an error for that key alone, which a new Set heals."""
    server = launch("--value-disk-threshold", "100000")
    with server.http() as http, server.grpc() as client:
        folder = server.folder / "value_data"
        files: dict[str, Path] = {}
        for name in [*VALUE_DAMAGES, "whole"]:
            before = set(folder.glob("??/*"))
            assert client.call("Set", key=name, value=name * 50_000).success
            (files[name],) = set(folder.glob("??/*")) - before
        assert client.call("Set", key="small", value="v").success
        for name, damage in VALUE_DAMAGES.items():
            damage(files[name])
            errors = http.metric("kv_get_errors_total")
            answer = http.get(f"/api/v1/get/{name}")
            assert (answer.status, answer.body["code"]) == (500, "corruption"), name
            server.wait_for_log("error", answer.body["incident"])
            server.wait_for_log("error", files[name].name)
            with pytest.raises(grpc.RpcError, match="stored data is damaged") as failed:
                client.call("Get", key=name)
            assert failed.value.code() is grpc.StatusCode.INTERNAL
            assert http.metric("kv_get_errors_total") == errors + 2
        assert client.call("Get", key="whole").value == "whole" * 50_000
        assert sorted(client.call("ScanKeys").keys) == sorted([*files, "small"])
        assert http.get("/api/v1/health").status == 200
        for name in VALUE_DAMAGES:
            assert client.call("Set", key=name, value="healed" * 50_000).success
            assert client.call("Get", key=name).value == "healed" * 50_000


def test_engine_tells_where_a_log_is_damaged(tmp_path: Path) -> None:
    """At its end or in the middle, by what an engine says that opens the folder; the end is the last 32 KiB."""
    if "rocksdict" not in PERSISTENT:
        pytest.skip("lbry-rocksdb cannot tell")
    for tail, (damage, lost) in TAILS.items():
        damage(crashed(tmp_path / tail))
        engine = opened("rocksdict", tmp_path / tail)
        assert len(list(engine.scan(b"", None, DATA))) == 1000 - lost, tail
        engine.close()
    log = crashed(tmp_path / "middle")
    overwrite(log, log.stat().st_size - 70_000)
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(Corruption, match=r"and \d+ changes behind the damage would be lost"):
            opened("rocksdict", tmp_path / "middle")


def append(log: Path, garbage: bytes) -> None:
    """Lengthen a file."""
    with log.open("ab") as stream:
        stream.write(garbage)


def crashed(folder: Path) -> Path:
    """The log of an engine that wrote a thousand keys to `folder` and was killed."""
    with python(WRITER, str(folder)) as writer:
        writer.wait()
    (log,) = folder.glob("*.log")
    return log


#: Writes a thousand keys and dies.
WRITER = """
import os, signal, sys
from kvtwisted.core.options import EngineOptions
from kvtwisted.backends.local.engines import open_engine

engine = open_engine("rocksdict", sys.argv[1], EngineOptions())
for number in range(1000):
    engine.write([("default", b"%04d" % number, b"x" * 100)])
os.kill(os.getpid(), signal.SIGKILL)
"""
