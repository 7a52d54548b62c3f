"""A store whose large values go to a folder, for tests."""

from __future__ import annotations

from pathlib import Path

from kvtwisted.backends.local.large_values import ValueFiles

from ...support.storage import Storage

THRESHOLD = 1000
BIG, OTHER = b"x" * THRESHOLD, b"y" * (THRESHOLD + 5)


class Scene(Storage):
    """A store whose large values go to a folder."""

    def __init__(self, folder: Path, *, cache_bytes: int = 0) -> None:
        self.folder = folder
        super().__init__(cache_bytes=cache_bytes, files=ValueFiles(str(folder)), spill_threshold=THRESHOLD)

    def restart_files(self) -> None:
        """A new start, which knows of files what the records and the folder tell."""
        self._files = ValueFiles(str(self.folder))
        self.restart()

    def files(self) -> list[Path]:
        """All files below the folder."""
        return sorted(path for path in self.folder.rglob("*") if path.is_file())
