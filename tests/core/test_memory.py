"""Memory goes back to the system."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kvtwisted.core.memory import give_back

ROOT = Path(__file__).parents[2]
#: Frees all blocks but each hundredth, so that the heap stays as long as it was. Prints bytes: before, with, after.
PROGRAM = """
import os
from kvtwisted.core.memory import give_back

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
blocks = [b"x" * 100_000 for _ in range(2000)]
most = resident()
blocks = blocks[::100]
give_back()
print(before, most, resident())
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="the C library is not glibc")
def test_freed_memory_is_given_back() -> None:
    """Also from the middle of the heap."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True, env=environment)
    before, most, after = map(int, done.stdout.split())
    assert most - before > 150_000_000
    assert after - before < 50_000_000


def test_other_c_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens."""
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())
    give_back()
