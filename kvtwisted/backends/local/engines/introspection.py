"""What RocksDB itself says of an open database: its properties, and the options it wrote down.

RocksDB writes the options in force, after its own corrections, to a file OPTIONS-nnnnnn at every open. Both bindings
lack a way to ask for them, so that file is read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict
from typing import Callable, Optional

from ....core.options import EngineOptions
from .engine import DATA, FAMILIES, Statistics

#: Reads one property of a family as text, or None when this RocksDB does not have it.
ReadProperty = Callable[[str, str], Optional[str]]

#: Of the records alone: keys, which in the other families are not the user's.
_OF_RECORDS = ("estimate-num-keys",)
#: Of each family: the sum is reported.
_OF_FAMILIES = (
    "cur-size-all-mem-tables",
    "num-immutable-mem-table",
    "estimate-table-readers-mem",
    "estimate-live-data-size",
    "live-sst-files-size",
    "total-sst-files-size",
    "num-files-at-level0",
    "estimate-pending-compaction-bytes",
    "num-live-versions",
    "background-errors",
)
#: Of the whole database, or of the block cache that the families share.
_OF_DATABASE = (
    "block-cache-usage",
    "block-cache-pinned-usage",
    "block-cache-capacity",
    "num-running-flushes",
    "num-running-compactions",
    "num-snapshots",
    "is-write-stopped",
    "actual-delayed-write-rate",
)

#: Names of compression in `rocksdb.options`, and RocksDB's own.
COMPRESSIONS = {"none": "kNoCompression", "snappy": "kSnappyCompression", "lz4": "kLZ4Compression", "zstd": "kZSTD"}


def statistics(read: ReadProperty) -> Statistics:
    """RocksDB's figures; `figures` has all of them by short name."""
    families: dict[str, Sequence[str]] = dict.fromkeys(_OF_FAMILIES, FAMILIES)
    families.update(dict.fromkeys(_OF_RECORDS + _OF_DATABASE, (DATA,)))
    figures: dict[str, float] = {}
    for name, asked in families.items():
        values = [read(family, f"rocksdb.{name}") for family in asked]
        known = [float(value) for value in values if value is not None]
        if known:
            figures[name] = sum(known)
    return Statistics(
        keys=figures.get("estimate-num-keys", 0),
        file_bytes=figures.get("live-sst-files-size"),
        live_bytes=figures.get("estimate-live-data-size", 0),
        figures=figures,
    )


def rocksdb_version(path: str) -> str:
    """The version of the RocksDB that has the data folder `path` open. Raises OSError when its file cannot be read."""
    return _options_file(path)["rocksdb_version"]


def effective_options(configured: EngineOptions, path: str, read: ReadProperty) -> dict[str, object]:
    """Every option with the value in force for DATA, from RocksDB where it tells. Raises OSError like the above.

    The file lacks `sync`, which is the server's own, the size of the cache, which is a property, and the bits of the
    bloom filter: of that only its presence is written, so they are told as configured.
    """
    written = _options_file(path)
    in_force = {
        name: _value(written[name], value) if name in written else value for name, value in asdict(configured).items()
    }
    in_force["block_cache_size"] = int(read(DATA, "rocksdb.block-cache-capacity") or 0)
    return in_force


def _options_file(path: str) -> dict[str, str]:
    """The newest OPTIONS file in the data folder: RocksDB's version, the database's and the DATA family's options."""
    numbers = [int(name[8:]) for name in os.listdir(path) if re.fullmatch(r"OPTIONS-\d+", name)]
    newest = os.path.join(path, f"OPTIONS-{max(numbers, default=0):06d}")
    wanted = ("[Version]", "[DBOptions]", f'[CFOptions "{DATA}"]', f'[TableOptions/BlockBasedTable "{DATA}"]')
    section = ""
    found: dict[str, str] = {}
    with open(newest, encoding="utf-8") as lines:
        for line in map(str.strip, lines):
            if line.startswith("["):
                section = line
            elif section in wanted and "=" in line:
                name, _, value = line.partition("=")
                found[name] = value
    return found


def _value(text: str, configured: object) -> object:
    """The text of an OPTIONS file as the type that the option has in `rocksdb.options`."""
    if isinstance(configured, bool):
        return text == "true"
    if isinstance(configured, int):
        return int(text)
    return next((name for name, own in COMPRESSIONS.items() if own == text), text)
