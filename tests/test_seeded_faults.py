"""The list of mistakes by which the tests themselves are tried."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "seeded-faults"


def test_every_mistake_can_be_made() -> None:
    """Each stands exactly once in the code as it is now: who moves code gives the place in the list anew."""
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
