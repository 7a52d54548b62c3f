"""RocksDB's messages as errors of kvtwisted."""

from __future__ import annotations

import re

import pytest

from kvtwisted.backends.local.engines import translate
from kvtwisted.backends.local.engines.translate import CLOSED, EngineClosed, Translating, translated
from kvtwisted.core.errors import (
    Corruption,
    KvError,
    NoInodes,
    StorageError,
    StorageFull,
    StorageLocked,
    Unavailable,
    WriteStalled,
)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Exception("Result incomplete: Write stall"), WriteStalled),
        (Exception("Result incomplete: Low priority write stall"), WriteStalled),
        (Exception("IO error: No space left on device: While appending to file: 8.log"), StorageFull),
        (Exception("IO error: While appending to file: 8.log: Disk quota exceeded"), StorageFull),
        (OSError(28, "No space left on device"), StorageFull),
        (Exception("IO error: While lock file: /d/LOCK: Resource temporarily unavailable"), StorageLocked),
        (Exception("IO error: lock hold by current process: /d/LOCK: No locks available"), StorageLocked),
        (Exception("IO error: While lock file: /d/LOCK: No locks available"), StorageError),
        (Exception(b"Corruption: block checksum mismatch"), Corruption),
        (Exception("Corruption: Corruption: IO error: No such file or directory"), Corruption),
        (Exception("IO error: While fdatasync: 8.log: Input/output error"), StorageError),
        (Exception(b"\xff"), StorageError),
        (Exception(), StorageError),
        (KeyError("raw mode only support bytes"), StorageError),
        (EngineClosed(), Unavailable),
    ],
)  # fmt: skip
def test_class_of_each_message(error: Exception, expected: type[KvError]) -> None:
    """Each text, as str or bytes, has exactly one meaning; what is not known is a plain StorageError."""
    assert type(translated(error, "./data")) is expected


def test_no_inode_is_told_from_no_space(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's words are the same for both."""
    monkeypatch.setattr(translate, "out_of_inodes", lambda path: path == "./data")
    error = Exception("IO error: No space left on device: While open a file for appending: 8.log")
    assert type(translated(error, "./data")) is NoInodes
    assert str(translated(error, "./data")).startswith("no inode is free for a file in the data folder './data'")
    assert type(translated(error, "./other")) is StorageFull


def test_no_descriptor_is_named() -> None:
    """With how many there are, and what sets their limit."""
    error = Exception("IO error: While open a file for random read: 8.sst: Too many open files")
    assert re.search(r"no file descriptor is free.*While open a file", str(translated(error, "./data")))


def test_messages_are_sentences() -> None:
    """The user reads which folder it is about, and RocksDB's own words where they help."""
    assert str(translated(Exception(b"IO error: disk on fire"), "./data")) == (
        "the storage in './data' failed: IO error: disk on fire"
    )
    assert "\n" not in str(translated(Exception("Corruption: bad\n  magic"), "./data"))


def test_block_translates_and_keeps_no_frames() -> None:
    """A `with` block turns a failure into ours, lets others pass, and of the binding's nothing is held."""
    cause = Exception("Corruption: bad")
    with pytest.raises(Corruption) as failure, Translating("./data"):
        raise cause
    assert failure.value.__context__ is cause
    assert cause.__traceback__ is None
    with pytest.raises(KeyboardInterrupt), Translating("./data"):
        raise KeyboardInterrupt
    with Translating("./data"):
        pass


def test_stand_in_of_a_closed_database() -> None:
    """Whatever is asked of a closed database is Unavailable."""
    with pytest.raises(Unavailable), Translating("./data"):
        CLOSED.anything(1, 2)
