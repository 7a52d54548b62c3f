"""A wall clock that tests set while a server runs by it; time goes on passing at its own pace all the same."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

#: Where Debian's package libfaketime puts it.
_LIBRARY = "faketime/libfaketimeMT.so.1"


class WallClock:
    """The wall clock of the processes that are started with `environment`. Skips the test without libfaketime."""

    def __init__(self, file: Path) -> None:
        """`file` is made; the processes read from it how far their clock is off, once a second."""
        library = _find()
        if library is None:
            pytest.skip("libfaketime is not installed (Debian package libfaketime)")
        self._file = file
        #: Seconds that it is off.
        self.offset = 0
        self.step(0)
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            # Read again when a second is over by the real clock: each time would slow the processes down a lot.
            "FAKETIME_CACHE_DURATION": "0",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }

    def step(self, seconds: int) -> None:
        """Set the clock forward, or back. Returns when processes that look at it from now on see that."""
        self.offset += seconds
        new = self._file.with_suffix(".new")
        new.write_text(f"{self.offset:+d}\n", encoding="ascii")
        os.replace(new, self._file)
        time.sleep(1.01 - time.time() % 1)


@functools.cache
def _find() -> Path | None:
    for folder in ("/usr/lib", "/usr/lib64", "/usr/local/lib"):
        for found in sorted([*Path(folder).glob(_LIBRARY), *Path(folder).glob(f"*/{_LIBRARY}")]):
            # It must go with this machine and this Python.
            command = [sys.executable, "-c", "import time; print(time.time() > 2e9)"]
            env = {**os.environ, "LD_PRELOAD": str(found), "FAKETIME": "+1000000000"}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
            if done.stdout.strip() == "True":
                return found
    return None
