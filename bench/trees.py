"""A folder of source code that is measured: the present one, or a worktree of another revision.

This harness is always the present one; only `kvtwisted` and the plugin of twistd come from the tree. All trees run with
the packages of the environment that the harness runs in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

#: The repository that this harness is part of.
HERE = Path(__file__).resolve().parents[1]
#: What a process prints, before the reason, when the tree has not got what it is to measure.
UNABLE = "unable: "
# The tree first, for kvtwisted; then this harness, in place of the tree's own.
_START = f"""
import runpy, sys
tree, harness, module = sys.argv[1:4]
del sys.argv[1:4]
sys.path.insert(0, tree)
import kvtwisted
sys.path[0] = harness
try:
    runpy.run_module(module, run_name="__main__")
except ImportError as error:
    print(f"{UNABLE}{{error}}", flush=True)
"""


class NotInTree(Exception):
    """A tree has not got what a case measures, being older than it."""


class Tree(NamedTuple):
    """One folder of source code; `name` is `now` or `base`."""

    name: str
    folder: Path

    def python(self, module: str, *arguments: str) -> list[str]:
        """The command that runs a module of this harness over the tree's `kvtwisted`."""
        return [sys.executable, "-c", _START, str(self.folder), str(HERE), module, *arguments]

    def environment(self) -> dict[str, str]:
        """Ours without any KV_ or GRPC_ variable, with the tree's modules and plugin before all others."""
        ours = {name: text for name, text in os.environ.items() if not name.startswith(("KV_", "GRPC_"))}
        return {**ours, "PYTHONPATH": str(self.folder)}


NOW = Tree("now", HERE)


def revision(folder: Path) -> str:
    """The commit of a folder, with a plus sign when files differ from it; `unknown` outside a repository."""
    try:
        commit = git(folder, "rev-parse", "--short=12", "HEAD")
        return commit + ("+" if git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (subprocess.CalledProcessError, FileNotFoundError):
        return "unknown"


def git(folder: Path, *arguments: str) -> str:
    """What git prints. Raises CalledProcessError with its standard error."""
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603
    return done.stdout.strip()
