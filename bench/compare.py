"""Two revisions: the present tree, whatever is in it, against a worktree of the base in a temporary folder."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .trees import HERE, Tree, git


class NoSuchRevision(Exception):
    """git knows no commit of that name."""


@contextmanager
def base_tree(name: str, folder: Path, repository: Path = HERE) -> Iterator[Tree]:
    """A worktree of a revision below `folder`; it is removed at the end, and git's note of it too.

    Raises NoSuchRevision.
    """
    try:
        commit = git(repository, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
    except subprocess.CalledProcessError:
        raise NoSuchRevision(f"there is no revision {name!r}") from None
    worktree = folder / "base"
    git(repository, "worktree", "add", "--quiet", "--detach", str(worktree), commit)
    try:
        yield Tree("base", worktree)
    finally:
        # By force, since Python has left compiled files.
        git(repository, "worktree", "remove", "--force", str(worktree))
