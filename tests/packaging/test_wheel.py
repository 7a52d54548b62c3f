"""The wheel that people install: its files, and the server that it gives them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: What a build reads, and what it must leave alone.
SOURCES = ("LICENSE", "README.md", "kvtwisted", "proto", "pyproject.toml", "setup.cfg", "tests", "twisted")

TWISTD = "import sys; from twisted.scripts.twistd import run; sys.argv[0] = 'twistd'; run()"


def run(*command: object, cwd: Path) -> str:
    """The output of a command that must succeed, in an environment that does not know this tree."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH" and not k.startswith("KV_")}
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel, built from a copy of the tree without the network."""
    folder = tmp_path_factory.mktemp("wheel")
    tree = folder / "tree"
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "dropin.cache"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "-w", folder, tree, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has the wheel, and from this one only the dependencies.

    Python does not read the .pth files of a folder that a .pth file names, so this one's editable install of kvtwisted
    is out of sight.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin" / "python"


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Every file of kvtwisted/, data included, the plugin, the contract and the licence; no test, nothing else."""
    names = zipfile.ZipFile(wheel).namelist()
    own = {n for n in names if ".dist-info/" not in n}
    data = f"{'-'.join(wheel.name.split('-')[:2])}.data/data/share/kvtwisted/keyvalue.proto"
    tree = wheel.parent / "tree"
    files = {f.relative_to(tree).as_posix() for f in tree.glob("kvtwisted/**/*") if f.is_file()}
    assert own == files | {"twisted/plugins/kvtwisted_plugin.py", data}
    assert any(n.endswith("/licenses/LICENSE") for n in names)


def test_no_init_file_hides_twisted() -> None:
    """With an __init__.py in twisted/ or twisted/plugins/ the tree's folder would take the place of Twisted itself."""
    assert list((ROOT / "twisted").rglob("__init__.py")) == []


def test_installed_wheel_shows_its_plugin(python: Path, tmp_path: Path) -> None:
    """`twistd --help` lists kvtwisted with its description, from a folder that has nothing to do with the tree."""
    assert run(python, "-c", "import kvtwisted; print(kvtwisted.__file__)", cwd=tmp_path).startswith(
        str(python.parents[1])
    )
    (line,) = (s for s in run(python, "-c", TWISTD, "--help", cwd=tmp_path).splitlines() if "kvtwisted" in s)
    assert line.split(maxsplit=1) == ["kvtwisted", "Persistent key-value server: RocksDB behind gRPC and HTTP."]


def test_installed_wheel_can_construct_the_server(python: Path, tmp_path: Path) -> None:
    """All that the server imports is in the wheel: kv.tac, which makes the service from the default options, loads."""
    program = (
        "import sys; from twisted.application.service import IServiceCollection, loadApplication; "
        "print([type(s).__module__ for s in IServiceCollection(loadApplication(sys.argv[1], 'python'))])"
    )
    shutil.copy(ROOT / "kv.tac", tmp_path)
    assert run(python, "-c", program, "kv.tac", cwd=tmp_path) == "['kvtwisted.tap']\n"
    assert [p.name for p in tmp_path.iterdir()] == ["kv.tac"], "constructing must not open anything"
