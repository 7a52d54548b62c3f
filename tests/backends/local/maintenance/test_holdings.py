"""What the server has on a disk, and who gives it back. See Note [What deleting gives back]."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvtwisted.backends.local.engines.engine import Statistics
from kvtwisted.backends.local.maintenance import holdings as holdings_module
from kvtwisted.backends.local.maintenance.holdings import Folders, Holdings

KIB = 1024
NAME = b"\xab" * 16


class Scene:
    """Folders with files of whole blocks."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.figures = Statistics()
        self.named = {NAME}
        for name in ("data", "values/ab", "values/tmp", "backups"):
            (root / name).mkdir(parents=True)

    def file(self, path: str, kib: int) -> Path:
        """A file of so many KiB."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(os.urandom(kib * KIB))
        return target

    def link(self, source: Path, path: str) -> None:
        """Another name for a file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(source, target)

    def backup(self, name: str) -> None:
        """What makes a folder a backup."""
        self.file(f"backups/{name}/backup.json", 0)

    def holdings(self, *, data: bool = True, values: bool = True) -> Holdings:
        """Those of a disk that has these folders."""
        return Folders(
            data=str(self.root / "data") if data else None,
            values=str(self.root / "values") if values else None,
            backups=str(self.root / "backups"),
            figures=lambda: self.figures,
            named=lambda: self.named,
        ).holdings()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """One without files."""
    return Scene(tmp_path)


def test_tables_and_values_come_back(scene: Scene) -> None:
    """Nothing else in the folders does: neither logs nor RocksDB's small files."""
    scene.file("data/000010.sst", 40)
    scene.file("data/000011.log", 8)
    scene.file("data/LOG.old.1", 400)
    scene.file("data/MANIFEST-000001", 16)
    scene.file(f"values/ab/{NAME.hex()}", 20)
    scene.figures = Statistics(file_bytes=40 * KIB)
    assert scene.holdings() == Holdings(60 * KIB, 0, log=8 * KIB)
    assert scene.holdings(values=False) == Holdings(40 * KIB, 0, log=8 * KIB)
    assert scene.holdings(data=False) == Holdings(20 * KIB)


def test_what_passes_by_itself(scene: Scene) -> None:
    """Tables that are being written or that a scan holds, values that no record names any more, a copy in the
    making."""
    scene.file("data/000010.sst", 40)
    scene.file("data/000012.sst", 28)
    scene.figures = Statistics(file_bytes=40 * KIB)
    scene.file(f"values/ab/{'ab' * 15}cd", 12)
    scene.file(f"values/tmp/{NAME.hex()}", 8)
    scene.file("data/backup.tmp/000007.sst", 4)
    scene.file("data/backup.tmp.tmp/shared/1.sst", 4)
    scene.file("data/elsewhere/not-ours", 100)
    assert scene.holdings() == Holdings(40 * KIB, (28 + 12 + 8 + 4 + 4) * KIB)


def test_backups_pass_with_the_operator(scene: Scene) -> None:
    """What they alone hold is counted once, finished or not; what else is in their folder is somebody else's."""
    scene.figures = Statistics(file_bytes=40 * KIB)
    table = scene.file("data/000010.sst", 40)
    scene.backup("monday")
    scene.backup("tuesday")
    gone = scene.file("backups/monday/data/000001.sst", 24)
    scene.link(gone, "backups/tuesday/data/000001.sst")
    scene.file("backups/.unfinished-friday/data/000001.sst", 8)
    scene.file("backups/pictures/1.jpeg", 80)
    assert scene.holdings() == Holdings(40 * KIB, backups=32 * KIB)
    assert scene.holdings(data=False) == Holdings(0, backups=32 * KIB)
    scene.link(table, "backups/tuesday/data/000010.sst")
    assert scene.holdings() == Holdings(0, held=40 * KIB, share=0.0, backups=32 * KIB)


def test_backups_on_another_disk_do_not_matter(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they are is found out once."""
    asked: list[tuple[str, str]] = []
    monkeypatch.setattr(holdings_module, "on_one_disk", lambda *paths: bool(asked.append(paths)))
    scene.backup("monday")
    scene.file("backups/monday/data/000001.sst", 24)
    folders = Folders(
        data=str(scene.root / "data"), values=None, backups=str(scene.root / "backups"),
        figures=Statistics, named=set,
    )  # fmt: skip
    assert folders.holdings() == folders.holdings() == Holdings(0)
    assert len(asked) == 1


def test_what_a_backup_holds_does_not_come_back(scene: Scene) -> None:
    """A value's file with a second name, and tables: a part of a record's bytes, or nothing when most are held."""
    scene.backup("monday")
    value = scene.file(f"values/ab/{NAME.hex()}", 20)
    scene.link(value, f"backups/monday/value_data/ab/{NAME.hex()}")
    scene.file("data/000010.sst", 60)
    held = scene.file("data/000011.sst", 20)
    scene.link(held, "backups/monday/data/000011.sst")
    scene.figures = Statistics(file_bytes=80 * KIB)
    assert scene.holdings() == Holdings(60 * KIB, 0, held=40 * KIB, share=0.75)
    more = scene.file("data/000012.sst", 44)
    scene.link(more, "backups/monday/data/000012.sst")
    scene.figures = Statistics(file_bytes=124 * KIB)
    assert scene.holdings() == Holdings(0, 0, held=84 * KIB, share=0.0)


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    """There are no backups yet, and no values."""
    folders = Folders(
        data=str(tmp_path), values=str(tmp_path / "none"), backups=str(tmp_path / "none"), figures=Statistics, named=set
    )
    assert folders.holdings() == Holdings(0)
