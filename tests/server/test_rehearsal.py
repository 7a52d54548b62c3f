"""Changes that would keep the server from starting are refused when they are made, and trials leave nothing behind."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.backends.local.engines import is_persistent, open_engine
from kvtwisted.config.manager import ConfigManager
from kvtwisted.core.errors import InvalidConfig, KvError, StorageError
from kvtwisted.server import rehearsal
from kvtwisted.server.rehearsal import Rehearsal, memory, try_folder
from kvtwisted.sessions.connections import descriptors

from ..support.certificates import Pair


class Site:
    """A configuration as of a server that runs with folders below one folder."""

    def __init__(self, folder: Path, *, gave_up_root: bool = False) -> None:
        self.folder = folder
        # In a file, so that they may be changed.
        file = folder / "kv.json"
        paths = {
            "rocksdb.path": str(folder / "data"),
            "value.disk_path": str(folder / "values"),
            "backup.path": str(folder / "backups"),
            "logging.directory": str(folder / "logs"),
        }
        file.write_text(json.dumps(paths))
        self.config = ConfigManager.load(str(file), {}, {})
        self.values_fault: KvError | None = None
        self.config.rehearse = Rehearsal(
            lambda: self.config.running,
            lambda name, path, options: open_engine(name, path, options).close(),
            self._check_values,
            is_persistent=is_persistent,
            gave_up_root=gave_up_root,
        )

    def _check_values(self, _: object) -> None:
        if self.values_fault is not None:
            raise self.values_fault

    def refusal(self, **changes: object) -> str:
        """Why changes (rocksdb__path="x") are refused; nothing is taken, and nothing was left in the folder."""
        before, there = self.config.settings, sorted(os.listdir(self.folder))
        with pytest.raises(InvalidConfig) as refused:
            self.config.update({name.replace("__", "."): value for name, value in changes.items()})
        assert self.config.settings is before
        assert sorted(os.listdir(self.folder)) == there
        return str(refused.value)

    def take(self, **changes: object) -> None:
        """These are good; the trial leaves nothing in the folder."""
        there = {*os.listdir(self.folder), "kv.json.runtime.json"}
        self.config.update({name.replace("__", "."): value for name, value in changes.items()})
        assert set(os.listdir(self.folder)) <= there


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A new one."""
    return Site(tmp_path)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which somebody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield int(listening.getsockname()[1])


@pytest.mark.parametrize("name", ["rocksdb__path", "value__disk_path", "backup__path", "logging__directory"])
def test_folders(site: Site, name: str) -> None:
    """One that cannot be made is refused with the reason; of one that can be made nothing stays."""
    (site.folder / "file").touch()
    path = str(site.folder / "file" / "below")
    assert site.refusal(**{name: path}) == f"{name.replace('__', '.')} cannot be {path!r}: Not a directory"
    site.take(**{name: str(site.folder / "new" / "below")})


def test_a_folder_that_cannot_be_written(site: Site) -> None:
    """What decides is whether a file can be made there."""
    assert site.refusal(backup__path="/proc/none").startswith("backup.path cannot be '/proc/none': ")
    with pytest.raises(OSError, match="No such file"):
        try_folder("/proc/self/none")


def test_an_engine_that_is_not_installed(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names what to install; options that the engine does not take are tried likewise."""

    def missing(name: str, path: str, options: object) -> Any:
        raise StorageError(f"storage.engine {name!r} needs a RocksDB binding that cannot be imported here")

    assert isinstance(site.config.rehearse, Rehearsal)
    monkeypatch.setattr(site.config.rehearse, "_try_engine", missing)
    assert site.refusal(storage__engine="lbry").startswith(
        "storage.engine cannot be 'lbry': storage.engine 'lbry' needs"
    )
    assert "rocksdb.options.block_size cannot be 8192" in site.refusal(rocksdb__options__block_size=8192)


def test_an_engine_that_opens(site: Site) -> None:
    """It is opened in a folder of its own with the changed options."""
    site.take(rocksdb__options__block_size=8192, rocksdb__options__compression="zstd")


def test_secrets(site: Site) -> None:
    """A file of tokens that is not there, or no such file; a certificate without its key's match."""
    none = str(site.folder / "none.json")
    assert f"security.tokens cannot be '{none}': token file {none}: there is no such file" in site.refusal(
        security__tokens=none
    )
    (site.folder / "tokens.json").write_text("{")
    (site.folder / "tokens.json").chmod(0o600)
    assert "security.tokens cannot be" in site.refusal(security__tokens=str(site.folder / "tokens.json"))
    pair, other = Pair(site.folder), Pair(site.folder, "other")
    files = {"http__tls_certificate": pair.certificate, "http__tls_private_key": other.private_key}
    assert "is not the key of the first certificate" in site.refusal(**files)
    site.take(http__tls_certificate=pair.certificate, http__tls_private_key=pair.private_key)


def test_ports_and_hosts(site: Site, taken: int) -> None:
    """One that somebody has, and an address that is not ours; but two ports of ours may be exchanged."""
    assert site.refusal(http__port=taken) == (
        f"http.port cannot be {taken}: http: cannot listen on 127.0.0.1:{taken}: Address already in use"
    )
    assert site.refusal(grpc__port=taken).startswith(f"grpc.port cannot be {taken}: grpc: cannot listen on")
    (site.folder / "tokens.json").write_text('{"version": 1, "tokens": []}')
    (site.folder / "tokens.json").chmod(0o600)
    refused = site.refusal(http__host="192.0.2.1", security__tokens=str(site.folder / "tokens.json"))
    assert refused.startswith("http.host cannot be '192.0.2.1': ")
    site.take(http__port=50051, grpc__port=8080)


def test_ports_below_1024(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After root's rights were given up they cannot be tried, and the next start has them; but grpcio never would."""

    def bound(name: str, host: str, port: int) -> Any:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr(rehearsal, "bound", bound)
    site = Site(tmp_path, gave_up_root=True)
    site.take(http__port=80, grpc__port=81)
    assert "Permission denied" in site.refusal(grpc__port=82, grpc__transport="threaded")


def test_amounts(site: Site) -> None:
    """Memory, descriptors and threads that this machine does not have."""
    most = memory() // 2
    assert site.refusal(cache__max_bytes=1 << 40) == (
        f"cache.max_bytes must be at most {most} here, half of the memory, not {1 << 40}"
    )
    assert "half of the memory" in site.refusal(rocksdb__options__block_cache_size=1 << 40)
    if descriptors() < 1_000_000:
        assert "limits.max_connections must be at most" in site.refusal(limits__max_connections=1_000_000)
    site.take(storage__threads=9, limits__max_connections=16)


def test_threads_that_cannot_be_started(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are tried for a moment."""

    class Thread:
        def __init__(self, **_: object) -> None:
            pass

        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(rehearsal.threading, "Thread", Thread)
    assert site.refusal(storage__threads=200) == "storage.threads cannot be 200: can't start new thread"


def test_folders_that_do_not_belong_together(site: Site) -> None:
    """Data and large values are one database's."""
    site.values_fault = StorageError("value.disk_path: /x holds the large values of another database")
    assert site.refusal(rocksdb__path=str(site.folder / "new")) == (
        f"value.disk_path cannot be '{site.folder / 'values'}': /x holds the large values of another database"
    )


def test_what_is_in_force_is_not_tried(site: Site, taken: int) -> None:
    """A change that awaits a restart may be taken back, whatever has become of the old value meanwhile."""
    (site.folder / "data").write_text("in the way")
    site.config.update({"rocksdb.path": str(site.folder / "new")})
    site.config.update({"rocksdb.path": str(site.folder / "data")})
    assert site.config.settings.rocksdb.path == str(site.folder / "data")
