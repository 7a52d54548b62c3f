"""Data that is many times larger than the server's caches: GETs of random keys, over HTTP.

The server's own caches are set to 8 MiB each, so that most GETs read a file. Whether such a read costs the disk depends
on the kernel's page cache, so there are two cases: with the files in it, and with the files thrown out of it before
each round (posix_fadvise, which needs no root; the GETs fill it again). /proc tells how much really came from the disk,
and the report says so.
"""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from .. import wrk
from ..plan import Group, Plan, each_tree, start_server
from ..rounds import Probe, Sample, say
from ..server import Server
from ..trees import Tree
from . import http
from .http import CONNECTIONS, LANES

#: Bytes of one value, and of each cache.
VALUE_BYTES, CACHE_BYTES = 1000, 8 << 20
KEPT, DROPPED = "GET, files in the page cache", "GET, page cache dropped"
_OPTIONS = (
    "--cache-max-bytes", str(CACHE_BYTES),
    "--rocksdb-options-block-cache-size", str(CACHE_BYTES),
    # Memtables are a cache too.
    "--rocksdb-options-write-buffer-size", str(CACHE_BYTES // 4),
    "--rocksdb-options-max-write-buffer-number", "2",
)  # fmt: skip


def random_values(seed: int) -> str:
    """A long text that compresses badly, to cut values from."""
    source = random.Random(seed)
    return "".join(source.choices("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-", k=1 << 20))


def set_page_cache(folder: Path, keep: bool) -> int:
    """Read the files below a folder into the kernel's page cache, or throw them out of it; returns their bytes.

    What is not on the disk yet is written first, since it could not be thrown out.
    """
    total = 0
    for file in folder.rglob("*.sst"):
        try:
            descriptor = os.open(file, os.O_RDONLY)
        except FileNotFoundError:
            # A compaction has removed it.
            continue
        try:
            if keep:
                while os.read(descriptor, 1 << 20):
                    pass
            else:
                os.fdatasync(descriptor)
                os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            total += os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
    return total


class Load(http.Load):
    """GETs that read files, and how much of it came from the disk."""

    def __init__(self, server: Server, keys: int, seconds: int, kept: bool) -> None:
        super().__init__(server, http.get(), keys, CONNECTIONS, seconds)
        self._kept = kept

    def run(self) -> Sample:
        """One turn."""
        set_page_cache(self._server.folder / "data", self._kept)
        read, from_disk = self._server.bytes_read()
        outcome = self.load(self._seconds)
        read_now, from_disk_now = self._server.bytes_read()
        each = (read_now - read) / outcome.requests
        aside = {
            "KiB read from files for each GET": each / 1024,
            "KiB of it from the disk": (from_disk_now - from_disk) / outcome.requests / 1024,
        }
        return outcome.sample()._replace(aside=aside)


def open_cold(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server with small caches for each lane and tree."""
    keys = max(1, plan.cold_bytes // VALUE_BYTES)
    text = random_values(1)
    probes: list[Probe] = []

    def add(form: str, options: Sequence[str], tree: Tree) -> None:
        server = start_server(stack, plan, tree, f"cold-{form}", (*options, *_OPTIONS))
        # Places in the text that are never the same for two keys that share a block.
        server.fill(keys, lambda key: text[key * 7919 % (len(text) - VALUE_BYTES) :][:VALUE_BYTES])
        stored = set_page_cache(server.folder / "data", keep=True)
        say(f"cold, {form}: {keys:,} keys, {stored / 2**20:,.0f} MiB of files")
        for case in cases:
            load = Load(server, keys, plan.whole_seconds, case == KEPT)
            probes.append(http.probe("cold", case, (form, tree.name), load))

    for form, options in LANES.items():
        each_tree(plan, f"cold, {form}", partial(add, form, options))
    return probes


GROUP = Group("cold", dict.fromkeys((KEPT, DROPPED), wrk.PROGRAM), open_cold)
