"""Disks of memory that are as small as a test wants, and clients that write more to a server than its disk can hold."""

from __future__ import annotations

import base64
import functools
import hashlib
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import grpc

from .harness import PATIENCE, Server

MIB = 1024 * 1024


def mount(folder: str, size: int, inodes: int = 0) -> bool:
    """Mount a file system of `size` bytes of memory on `folder`; says whether that was allowed.

    It has that many inodes (0: enough).
    """
    options = f"size={size},nr_inodes={inodes}" if inodes else f"size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "kvtwisted", folder]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def unmount(folder: str) -> None:
    """Undo `mount`, also while files are open there."""
    subprocess.run(["umount", "--lazy", folder], check=True)


@functools.cache
def can_mount() -> bool:
    """Whether this user may mount a small file system of memory: on most machines only root."""
    with tempfile.TemporaryDirectory() as folder:
        can = mount(folder, 64 * MIB)
        if can:
            unmount(folder)
        return can


@contextmanager
def mounted(folder: Path, size: int, inodes: int = 0) -> Iterator[Path]:
    """A disk of `size` bytes on `folder`, which is made."""
    folder.mkdir(parents=True)
    assert mount(str(folder), size, inodes)
    try:
        yield folder
    finally:
        unmount(str(folder))


@contextmanager
def bound(folder: Path, place: Path) -> Iterator[Path]:
    """The same folder at another place, which is made, as a mount of its own: links between the two are refused."""
    place.mkdir(parents=True)
    subprocess.run(["mount", "--bind", str(folder), str(place)], check=True)
    try:
        yield place
    finally:
        unmount(str(place))


def text(size: int) -> str:
    """`size` characters that nothing compresses much, different each time."""
    return base64.b64encode(os.urandom(size * 3 // 4 + 3))[:size].decode()


class Load(threading.Thread):
    """One client that writes values of the given sizes until it has written `total` bytes, and reads some of them back.

    What is refused because the disk is nearly full is tried again until it is accepted. `failure` tells what was wrong.
    """

    def __init__(self, server: Server, name: str, sizes: Sequence[int], total: int, ttl: Sequence[int] = (0,)) -> None:
        """Over HTTP when the name begins with it, else over gRPC. Each write takes a ttl of `ttl` by chance."""
        super().__init__(name=name, daemon=True)
        self._sizes, self._total, self._ttl = sizes, total, ttl
        self.use(server)
        self._chance = random.Random(name)
        #: Digests of what was acknowledged, by key.
        self.written: dict[str, str] = {}
        #: The sizes of those values.
        self.size: dict[str, int] = {}
        self.refused = 0
        self.failure: BaseException | None = None

    def use(self, server: Server) -> None:
        """Connect to a server."""
        self._http = server.http() if self.name.startswith("http") else None
        self._grpc = None if self._http else server.grpc()

    def run(self) -> None:
        """Write and read."""
        try:
            left, number = self._total, 0
            while left > 0:
                size = self._chance.choice(self._sizes)
                # Every fifth write is to an earlier key.
                key = f"{self.name}/{self._chance.randrange(number + 1) if number % 5 == 4 else number:06}"
                self._write(key, text(size))
                left -= size
                number += 1
                if number % 3 == 0:
                    self.holds(self._chance.choice(list(self.written)[-50:]))
        except BaseException as error:
            self.failure = error

    def _write(self, key: str, value: str) -> None:
        ttl = self._chance.choice(self._ttl)
        deadline = time.monotonic() + PATIENCE
        self.written.pop(key, None)
        while not self._accepted(key, value, ttl):
            assert time.monotonic() < deadline, f"{key} was refused for {PATIENCE} s"
            time.sleep(0.05)
        self.written[key], self.size[key] = digest(value), len(value)

    def _accepted(self, key: str, value: str, ttl: int) -> bool:
        """Whether a write was accepted; False when it was refused for want of room, or of time."""
        if self._http is not None:
            answer = self._http.post("/api/v1/set", {"key": key, "value": value, "ttl": ttl})
            if answer.status == 507:
                assert answer.body["code"] == "storage_full", answer
                assert "eviction.high_water_mark" in answer.body["error"], answer
                self.refused += 1
            assert answer.status in (200, 429, 507), answer
            return bool(answer.status == 200)
        assert self._grpc is not None
        try:
            answer = self._grpc.call("Set", key=key, value=value, ttl=ttl)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise
            refused = "eviction.high_water_mark" in error.details()
            self.refused += refused
            if not refused and "stalled" not in error.details():
                raise
            return False
        assert answer.success, answer
        return True

    def holds(self, key: str) -> bool:
        """Whether a key is there; asserts that it then has the value that was acknowledged last."""
        value = self._read(key)
        assert value is None or digest(value) == self.written[key], f"{key} holds what was not written last"
        return value is not None

    def _read(self, key: str) -> str | None:
        """The value as the server has it, or None."""
        if self._http is not None:
            answer = self._http.get(f"/api/v1/get/{key}")
            assert answer.status in (200, 404), answer
            return str(answer.body["value"]) if answer.status == 200 else None
        assert self._grpc is not None
        found = self._grpc.call("Get", key=key)
        assert not found.error, found.error
        return str(found.value) if found.found else None


def digest(value: str) -> str:
    """What is kept of a value."""
    return hashlib.sha256(value.encode()).hexdigest()
