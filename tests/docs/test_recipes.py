"""docs/recipes.md: its examples are run as they stand there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.harness import PATIENCE, REPOSITORY, Server, environment

from .pages import ROOT, Step, blocks, session
from .test_readme import MARK, at, run

PAGE = ROOT / "docs" / "recipes.md"
#: What a revision looks like: microseconds since 1970, some decades long.
REVISION = re.compile(r"\b[12]\d{15}\b")


def generate(folder: Path) -> None:
    """The client that the examples import."""
    protoc = [sys.executable, "-m", "grpc_tools.protoc", f"--proto_path={REPOSITORY / 'proto'}"]
    subprocess.run(
        [*protoc, f"--python_out={folder}", f"--grpc_python_out={folder}", "keyvalue.proto"],
        check=True,
        timeout=PATIENCE,
    )


def test_examples(server: Server, tmp_path: Path) -> None:
    """The Python examples in one program, and then the commands in one shell, in the order of the page."""
    generate(tmp_path)
    (tmp_path / "recipes.py").write_text(at(server, "\n".join(blocks(PAGE, "python"))), encoding="utf-8")
    python = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        [sys.executable, "recipes.py"],
        cwd=tmp_path, env=environment({"PATH": python}), capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = session(PAGE)
    script = "".join(f"{step.command}printf '\\n{MARK}\\n'\n" for step in steps)
    printed = run(at(server, script), tmp_path).split(f"\n{MARK}\n")[:-1]
    shown = [Step(step.command, settled(step.output)) for step in steps]
    assert [Step(step.command, settled(text)) for step, text in zip(steps, printed)] == shown


def settled(text: str) -> str:
    """With one revision for all."""
    return REVISION.sub("1795967452000001", text).rstrip("\n")


def test_the_limiter_has_ten_lines() -> None:
    """With its checks; and the page says what locks need of the configuration."""
    (limiter,) = [block for block in blocks(PAGE, "python") if "def allowed" in block]
    assert len([line for line in limiter.splitlines() if line]) <= 10
    text = PAGE.read_text("utf-8")
    assert "`rocksdb.options.sync`" in text
    assert "`eviction.protected_prefixes`" in text
