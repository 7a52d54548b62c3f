"""Folders of format 1, as every server since the first reads them: written out here once more, and not to be changed.

A server of before values were bytes knows these column families, envelopes and entries, and refuses to start on others.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, FILES, META
from kvtwisted.backends.local.large_values import ValueFiles
from kvtwisted.core.options import EngineOptions

from ...e2e.harness import engine
from ...support.clocks import START_MS
from ...support.engines import FaultyEngine
from ...support.storage import Storage

#: The column families that a server of format 1 opens.
FAMILIES = {"default", "expiry", "meta", "files"}
VALUES = {
    b"text": "Zürich".encode(),
    b"empty": b"",
    b"like an envelope": b"\xff\x01\x00" + bytes(8) + b"inside",
    b"one byte": b"\xff",
    b"no text": bytes(range(256)),
    b"NULs": bytes(100),
    b"large": b"\xff\xfe" * 2048,
}


def as_format_1_reads(stored: bytes, folder: Path) -> tuple[bytes, int]:
    """Value and deadline of a record."""
    if stored[:1] != b"\xff":
        return stored, 0
    version, flags, deadline = struct.unpack_from(">BBQ", stored, 1)
    assert version == 1
    assert flags in (0, 1)
    if not flags:
        return stored[11:], deadline
    name, length, _ = struct.unpack(">16sQI", stored[11:])
    value = (folder / name.hex()[:2] / name.hex()).read_bytes()
    assert len(value) == length
    return value, deadline


@pytest.mark.parametrize("ttl", [0, 60])
def test_bytes_are_stored_as_an_earlier_server_reads_them(tmp_path: Path, ttl: int) -> None:
    """Any bytes, small and large, that expire or do not."""
    data, large = tmp_path / "data", tmp_path / "large"
    storage = Storage(
        FaultyEngine(open_engine(engine(), str(data), EngineOptions())),
        files=ValueFiles(str(large)), spill_threshold=4096,
    )  # fmt: skip
    for key, value in VALUES.items():
        storage.store.set(key, value, ttl)
    deadline = START_MS + 60_000 if ttl else 0
    for key, value in VALUES.items():
        assert storage.store.get(key) == (value, ttl)
        stored = storage.engine.get(key)
        assert stored is not None
        assert as_format_1_reads(stored, large) == (value, deadline)
    index = [entry for entry, _ in storage.engine.scan(b"", None, EXPIRY)]
    assert index == [deadline.to_bytes(8, "big") + key for key in sorted(VALUES) if ttl]
    assert storage.engine.get(b"format", META) == b"1"
    assert {DATA, EXPIRY, META, FILES} == FAMILIES
    assert [key for key, _ in storage.engine.scan(b"", None, FILES)] == [b"large"]
    storage.engine.close()
