"""What only some engines can: those have it, and the others say that they have not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvtwisted.backends.local.engines import is_persistent, open_engine
from kvtwisted.backends.local.engines.engine import (
    CanCheckpoint,
    CanCompact,
    CanDeleteRange,
    CanPeek,
    CanReopen,
    Engine,
    HasOptions,
    HasStatistics,
    Statistics,
    statistics_of,
)
from kvtwisted.core.options import EngineOptions

from .support import INSTALLED, PERSISTENT, opened, put

#: What is there for the sake of files.
OF_FILES = (CanCompact, CanCheckpoint, CanReopen, HasStatistics, HasOptions)


def test_who_has_files_has_what_is_for_them(engine: Engine) -> None:
    """Compaction, copies, reopening, figures and options: all of them, or none and no method by such a name either."""
    assert [isinstance(engine, capability) for capability in OF_FILES] == [engine.is_persistent] * len(OF_FILES)
    names = ("compact", "checkpoint", "copies", "reopen", "statistics", "effective_options")
    assert [hasattr(engine, name) for name in names] == [engine.is_persistent] * len(names)


def test_each_can_peek(engine: Engine) -> None:
    """Memory has a way to tell in each of them."""
    assert isinstance(engine, CanPeek)
    assert engine.peek(b"none") == (True, None)


def test_who_deletes_ranges(engine: Engine) -> None:
    """All but lbry-rocksdb, which has no method for it."""
    assert isinstance(engine, CanDeleteRange) == (engine.name != "lbry") == hasattr(engine, "delete_range")


def test_persistence_is_known_before_an_engine_is_opened(engine: Engine) -> None:
    """What is said of a name is what the engine says."""
    assert is_persistent(engine.name) == engine.is_persistent == (engine.name in PERSISTENT)


def test_what_is_taken_by_itself_is_persistent(tmp_path: Path) -> None:
    """`auto` never loses data."""
    assert is_persistent("auto")
    engine = open_engine("auto", str(tmp_path), EngineOptions())
    assert engine.is_persistent
    engine.close()


@pytest.mark.parametrize("name", INSTALLED)
def test_figures_of_each(name: str, tmp_path: Path) -> None:
    """Of one that tells none they are those of an empty one."""
    engine = opened(name, tmp_path)
    put(engine, b"a", b"b")
    found = statistics_of(engine)
    if engine.is_persistent:
        assert (found.keys, found.file_bytes) == (2, 0)
        assert found.figures["estimate-num-keys"] == 2
    else:
        assert found == Statistics()
    engine.close()
