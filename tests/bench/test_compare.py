"""A worktree of another revision, and code that is run over it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.compare import NoSuchRevision, base_tree
from bench.plan import Plan, each_tree
from bench.trees import NOW, NotInTree, Tree, git, revision
from bench.worker import Worker


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two revisions of a package named kvtwisted, the later one checked out."""
    folder = tmp_path / "repository"
    (folder / "kvtwisted").mkdir(parents=True)
    git(folder, "init", "--quiet")
    for text in ("old", "new"):
        (folder / "kvtwisted" / "__init__.py").write_text(f"AGE = {text!r}\n", encoding="ascii")
        git(folder, "add", ".")
        git(folder, "-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "-m", text)
    return folder


def test_worktree(repository: Path, tmp_path: Path) -> None:
    """The base is there meanwhile, in its own folder, and leaves nothing; also when the comparison fails."""
    (repository / "kvtwisted" / "__init__.py").write_text("AGE = 'not committed'\n", encoding="ascii")

    def compare() -> None:
        with base_tree("HEAD~1", tmp_path, repository) as tree:
            assert tree.name == "base"
            assert "old" in (tree.folder / "kvtwisted" / "__init__.py").read_text("ascii")
            (tree.folder / "left.pyc").write_bytes(b"")
            raise RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough"):
        compare()
    assert len(git(repository, "worktree", "list").splitlines()) == 1
    assert not (tmp_path / "base").exists()
    assert "not committed" in (repository / "kvtwisted" / "__init__.py").read_text("ascii")
    assert revision(repository).endswith("+")
    assert not revision(repository).startswith("unknown")


@pytest.mark.parametrize("name", ["nonsense", "--help", ""])
def test_no_such_revision(repository: Path, tmp_path: Path, name: str) -> None:
    """What is not a commit is refused, by name."""
    with pytest.raises(NoSuchRevision, match=repr(name)), base_tree(name, tmp_path, repository):
        pass


def test_code_comes_from_the_tree(repository: Path, tmp_path: Path) -> None:
    """This harness runs over the tree's kvtwisted, not over its own."""
    tree = Tree("base", repository)
    command = tree.python("bench.trees")
    shown = "import bench; print(kvtwisted.AGE, bench.__file__)"
    command[2] = command[2].replace('runpy.run_module(module, run_name="__main__")', shown)
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout.split() == ["new", str(NOW.folder / "bench" / "__init__.py")]


def test_older_code(repository: Path, tmp_path: Path) -> None:
    """A base without the classes is left out with a line; the present tree must have them."""
    plan = Plan([Tree("base", repository)], tmp_path, left_out=[])

    def start(tree: Tree) -> None:
        with Worker(tree, "bench.cases.service_worker", tmp_path / tree.name, "auto", "10", "10"):
            pass

    each_tree(plan, "service layer", start)
    (line,) = plan.left_out
    assert line.startswith("service layer of the base: ")
    assert "kvtwisted" in line
    with pytest.raises(NotInTree):
        each_tree(plan._replace(trees=[Tree("now", repository)]), "it", _refuse)


def _refuse(_: Tree) -> None:
    raise NotInTree("too old")


def test_present_tree() -> None:
    """What is compared with the base is the repository of this harness."""
    assert (NOW.folder / "kvtwisted" / "__init__.py").exists()
