"""A process that measures calls of a tree's own Python code, when it is told to.

Both ends are here. The process prints `ready`; for each name that it reads it makes one run and prints its figure.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Callable

from .rounds import Sample
from .trees import UNABLE, NotInTree, Tree


class Worker:
    """A running process; `with` ends it."""

    def __init__(self, tree: Tree, module: str, folder: Path, *arguments: str) -> None:
        """Start `module` over the tree's code, in the new folder. Blocks until it is ready.

        Raises NotInTree when the tree's classes are not those that the module knows.
        """
        folder.mkdir(parents=True)
        self._process = subprocess.Popen(  # noqa: S603 - built here
            tree.python(module, *arguments),
            cwd=folder,
            env=tree.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._line()
        if line.startswith(UNABLE):
            self._end()
            raise NotInTree(line[len(UNABLE) :])

    def sample(self, name: str) -> Sample:
        """One run."""
        assert self._process.stdin is not None  # noqa: S101 - Popen was told to make a pipe
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return Sample(float(self._line()))

    def _line(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 - Popen was told to make a pipe
        line = self._process.stdout.readline().strip()
        if not line:
            self._end()
            raise RuntimeError(f"a measuring process ended with status {self._process.returncode}; see its error above")
        return line

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()


def serve(make: Callable[[], Mapping[str, Callable[[], float]]]) -> None:
    """The process's end: make the runs by name, then do as told until standard input ends."""
    try:
        runs = make()
    except (AttributeError, TypeError) as error:
        print(f"{UNABLE}{type(error).__name__}: {error}".replace("\n", " "), flush=True)
        return
    print("ready", flush=True)
    for line in sys.stdin:
        print(runs[line.strip()](), flush=True)


def seconds(run: Callable[[], object]) -> float:
    """How long one run takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started
