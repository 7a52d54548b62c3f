"""Choosing and opening an engine by the name in the configuration."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines import open_engine
from kvtwisted.backends.local.engines.engine import DATA
from kvtwisted.core.errors import InvalidConfig, StorageError
from kvtwisted.core.options import EngineOptions

from .support import INSTALLED, PERSISTENT, python

BINDINGS = {"rocksdict": "rocksdict", "lbry": "rocksdb"}
WHAT_TO_INSTALL = {
    "rocksdict": r"pip install rocksdict \(CPython 3\.9 or newer\)",
    "lbry": r"pip install lbry-rocksdb \(CPython 3\.7 to 3\.9\)",
}


def hide(monkeypatch: pytest.MonkeyPatch, *engines: str) -> None:
    """Make the bindings of these engines impossible to import, as if they were not installed."""
    for engine in engines:
        monkeypatch.delitem(sys.modules, f"kvtwisted.backends.local.engines.{engine}_engine", raising=False)
        monkeypatch.setitem(sys.modules, BINDINGS[engine], None)


@pytest.mark.parametrize("name", INSTALLED)
def test_engine_of_each_name(name: str, tmp_path: Path) -> None:
    """A name opens the engine that bears it."""
    engine = open_engine(name, str(tmp_path), EngineOptions())
    assert engine.name == name
    engine.close()


def test_auto_takes_the_first_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` prefers rocksdict, takes what is left without it, and never the engine that keeps nothing."""
    for at, expected in enumerate(PERSISTENT):
        engine = open_engine("auto", str(tmp_path / str(at)), EngineOptions())
        assert engine.name == expected
        engine.close()
        hide(monkeypatch, expected)
    with pytest.raises(StorageError, match=f"{WHAT_TO_INSTALL['rocksdict']}.*{WHAT_TO_INSTALL['lbry']}"):
        open_engine("auto", str(tmp_path / "none"), EngineOptions())
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", BINDINGS)
def test_missing_binding_is_explained(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without its binding an engine says in one line what to install and on which Python."""
    hide(monkeypatch, name)
    with pytest.raises(StorageError, match=WHAT_TO_INSTALL[name]) as refused:
        open_engine(name, str(tmp_path), EngineOptions())
    assert "\n" not in str(refused.value)


def test_unknown_name(tmp_path: Path) -> None:
    """Any other name is an error that lists the right ones."""
    with pytest.raises(InvalidConfig, match=r"auto, rocksdict, lbry, memory; got 'leveldb'"):
        open_engine("leveldb", str(tmp_path), EngineOptions())


def test_no_binding_is_imported_before_it_is_opened(tmp_path: Path) -> None:
    """The memory engine, and the package itself, need no binding; nor does memory touch the folder."""
    code = """
import sys
from kvtwisted.core.options import EngineOptions
from kvtwisted.backends.local.engines import open_engine

open_engine("memory", sys.argv[1], EngineOptions()).close()
print(*{"rocksdict", "rocksdb"} & set(sys.modules))
"""
    with python(code, str(tmp_path / "data")) as child:
        output, _ = child.communicate()
    assert (child.returncode, output) == (0, "\n")
    assert not (tmp_path / "data").exists()


def test_memory_keeps_nothing(tmp_path: Path) -> None:
    """A second memory engine of the same name starts empty."""
    first = open_engine("memory", str(tmp_path), EngineOptions())
    first.write([(DATA, b"k", b"v")])
    second = open_engine("memory", str(tmp_path), EngineOptions())
    assert second.get(b"k") is None
