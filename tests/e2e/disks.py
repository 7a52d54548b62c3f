"""A file system of its own in a file, whose power can be cut: what was not on the disk by then is gone.

`xfs_io -x -c shutdown` stops the file system as it stands. It writes nothing more to its device, neither data that
waits in the page cache nor its own journal, and every later call fails. Mounting it again replays the journal, as after
a power loss. Works for xfs and ext4. What it cannot show is a drive that lies about its write cache.

Note that the machine goes on, other than at a power loss. An fsync that is under way in this moment may even report
success although its data is gone, on both file systems. So nothing that is heard after `cut` was called counts.
"""

from __future__ import annotations

import functools
import shutil
import subprocess
import tempfile
from pathlib import Path

#: mkfs and the least size in bytes, as a sparse file, by file system.
_MAKE = {
    "xfs": (("mkfs.xfs", "-q"), 320 * 1024 * 1024),
    "ext4": (("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0"), 128 * 1024 * 1024),
}


class Disk:
    """A mounted file system in a sparse file; a context manager that leaves neither mount nor loop device behind."""

    def __init__(self, image: Path, folder: Path, kind: str = "xfs") -> None:
        """`image` is made when the context is entered, and mounted at `folder`, which is made too."""
        self._image = image
        self._kind = kind
        self._mounted = False
        #: Where it is mounted.
        self.folder = folder

    def __enter__(self) -> Disk:
        """Make the file system and mount it."""
        command, size = _MAKE[self._kind]
        with open(self._image, "wb") as image:
            image.truncate(size)
        _run(*command, str(self._image))
        self.folder.mkdir(parents=True)
        self.mount()
        return self

    def __exit__(self, *exception: object) -> None:
        """Unmount, whoever still uses it; the loop device goes with its last user."""
        if self._mounted:
            _run("umount", "--lazy", str(self.folder))
        self._image.unlink()

    def cut(self) -> None:
        """Cut the power. Then kill what has an open file here, `unmount` and `mount`."""
        _run("xfs_io", "-x", "-c", "shutdown", str(self.folder))

    def unmount(self) -> None:
        """Take it away. No process may use it any more."""
        _run("umount", str(self.folder))
        self._mounted = False

    def mount(self) -> None:
        """Put it back, with the journal replayed."""
        # The loop device that mount makes is detached by itself when the file system is unmounted.
        _run("mount", "-t", self._kind, "-o", "loop", str(self._image), str(self.folder))
        self._mounted = True


@functools.cache
def why_not(kind: str = "xfs") -> str | None:
    """Why no disk can be made here, or None."""
    missing = [program for program in (_MAKE[kind][0][0], "xfs_io", "mount", "umount") if not shutil.which(program)]
    if missing:
        return f"{', '.join(missing)}: not installed (scripts/test-tools)"
    with tempfile.TemporaryDirectory() as folder:
        try:
            with Disk(Path(folder, "image"), Path(folder, "disk"), kind) as disk:
                disk.cut()
        except subprocess.CalledProcessError as error:
            return f"cannot make, mount and cut a file system here: {error.stderr.strip()}"
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
