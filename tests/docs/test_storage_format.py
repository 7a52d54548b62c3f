"""docs/storage-format.md: every byte on the page is computed with the code that writes it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from kvtwisted.backends.local import records
from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA, EXPIRY, FAMILIES, META, Engine
from kvtwisted.backends.local.writer import Writer
from kvtwisted.core.limits import Limits
from kvtwisted.core.options import EngineOptions
from tests.e2e.harness import PATIENCE, engine, environment
from tests.support.clocks import START_MS, ManualClock
from tests.support.storage import BlockingStore as Store

from .pages import ROOT, blocks, prose, tables

PAGE = ROOT / "docs" / "storage-format.md"
TTL = 60


def store_over(opened: Engine) -> Store:
    """A store whose clock stands at START_MS."""
    return Store(opened, Writer(opened), ManualClock().clock(), limits=Limits())


def in_hex(data: bytes) -> str:
    """Bytes as the page shows them."""
    return f"`{data.hex(' ')}`" if data else "(no bytes)"


def test_examples_are_what_is_stored() -> None:
    """Record and index entry of each example, written by a store at the time that the page gives."""
    rows = [row for row in tables(PAGE, "key") if row[2] in ("0", str(TTL))]
    assert [row[2] for row in rows] == ["0", "0", "60", "60", "0"]
    for key, value, ttl, *shown in rows:
        opened = open_engine("memory", "", EngineOptions())
        name = key.strip("`").encode()
        text = value.rpartition("the bytes ")[2].strip("`")
        store_over(opened).set(name, bytes.fromhex(text) if text != value.strip("`") else text.encode(), int(ttl))
        stored = opened.get(name)
        assert stored is not None
        entries = [in_hex(entry) for entry, _ in opened.scan(b"", None, EXPIRY)]
        assert [in_hex(stored), *(entries or ["none"])] == shown, key
    deadline = START_MS + TTL * 1000
    assert f"All written at {START_MS:,} ms" in prose(PAGE)
    assert f"the deadline {deadline:,} ms (`{deadline:#014x}`)" in prose(PAGE)


def test_envelope_is_laid_out_as_the_table_says() -> None:
    """Offset and length of each part."""
    stored = records.encode(b"value", START_MS)
    parts = {}
    for offset, size, content in tables(PAGE, "offset"):
        end = None if size == "the rest" else int(offset) + int(size)
        parts[content.partition(":")[0]] = stored[int(offset) : end]
    assert parts == {
        "`0xFF`": b"\xff",
        "version": bytes([records.VERSION]),
        "flags": b"\0",
        "deadline": START_MS.to_bytes(8, "big"),
        "the value's bytes": b"value",
    }


def test_families_and_meta_entries(tmp_path: Path) -> None:
    """The tables name the column families, and all that a store writes into `meta`."""
    assert [row[0] for row in tables(PAGE, "column family")] == [f"`{family}`" for family in FAMILIES]
    opened = open_engine(engine(), str(tmp_path), EngineOptions())
    store = store_over(opened)
    store.set(b"k", b"v")
    store.metadata.mark_clock()
    store.metadata.identity()
    meta = dict(opened.scan(b"", None, META))
    opened.close()
    assert sorted(row[0] for row in tables(PAGE, "entry")) == sorted(f"`{name.decode()}`" for name in meta)
    assert meta[b"clock"] == b"%d" % START_MS


@pytest.mark.parametrize("running", [True, False], ids=["running", "stopped"])
def test_data_can_be_looked_at(tmp_path: Path, running: bool) -> None:
    """The page's program prints the page's lines, while the folder is open elsewhere and when it is not."""
    opened = open_engine(engine(), str(tmp_path / "data"), EngineOptions())
    store = store_over(opened)
    store.set(b"city", "Zürich".encode())
    store.set(b"session", b"abc", TTL)
    if not running:
        opened.close()
    (program,) = blocks(PAGE, "python")
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if running:
        assert opened.get(b"city", DATA) == "Zürich".encode()
        opened.close()
    # The revision's reservation goes by the time.
    printed = re.sub(r"(b'revision' b)'\d{16}'", r"\1'1700000000000000'", done.stdout)
    assert (done.stderr, printed) == ("", blocks(PAGE, "text")[0])
