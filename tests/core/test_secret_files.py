"""Whose a secret's file is: by all that leads to it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kvtwisted.core import secret_files
from kvtwisted.core.secret_files import fault, reaches

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def secret(folder: Path, mode: int = 0o600) -> Path:
    """A file with a mode."""
    file = folder / "secret"
    file.write_text("x")
    file.chmod(mode)
    return file


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_the_owner_and_the_service_s_group(open_folder: Path, mode: int) -> None:
    """They may read it."""
    assert fault(str(secret(open_folder, mode))) is None


@pytest.mark.parametrize("mode", [0o604, 0o444, 0o644])
def test_readable_by_all(open_folder: Path, mode: int) -> None:
    """Refused where others can come to it; the sentence says what to do. A folder that lets nobody in is enough."""
    file = secret(open_folder, mode)
    sentence = fault(str(file))
    assert sentence is not None
    assert sentence.startswith(
        f"its mode is {mode:04o}, and every user of this machine can read it; chmod 600 mends it"
    )
    open_folder.chmod(0o750)
    assert fault(str(file)) is None
    assert not reaches(str(file))


@pytest.mark.parametrize("mode", [0o602, 0o620, 0o666])
def test_writable_by_others(tmp_path: Path, mode: int) -> None:
    """Refused wherever it lies."""
    assert (
        fault(str(secret(tmp_path, mode)))
        == f"its mode is {mode:04o}, and others must not write it; chmod 600 mends it"
    )


@needs_root
def test_a_group_of_strangers(open_folder: Path) -> None:
    """A group that the service is not in must not read it."""
    file = secret(open_folder, 0o640)
    os.chown(file, 0, 12345)
    sentence = fault(str(file))
    assert sentence is not None
    assert "group 12345, which the service is not in, can read it" in sentence


@needs_root
def test_files_folders_and_links_of_strangers(tmp_path: Path) -> None:
    """Whoever owns one of them could put another file there; root's commands may read it all the same."""
    folder, link = tmp_path / "folder", tmp_path / "link"
    folder.mkdir()
    file = secret(folder)
    link.symlink_to(folder)
    for strange in (file, folder, link):
        os.chown(strange, 12345, 12345, follow_symlinks=False)
        what = "it" if strange == file else str(strange)
        assert fault(str(link / "secret")) == f"{what} belongs to user 12345; it must be user 0's, or root's"
        assert fault(str(link / "secret"), any_owner=True) is None
        os.chown(strange, 0, 0, follow_symlinks=False)
    assert fault(str(link / "secret")) is None


def test_folders_that_others_can_write(tmp_path: Path) -> None:
    """Refused, also behind a link, but for the sticky bit, under which nobody replaces what is another's."""
    folder = tmp_path / "folder"
    folder.mkdir()
    secret(folder)
    (tmp_path / "link").symlink_to("folder/secret")
    folder.chmod(0o777)
    for path in (folder / "secret", tmp_path / "link"):
        assert fault(str(path)) == (
            f"others can write the folder {folder} (mode 0777), and so replace it; chmod go-w {folder} mends it"
        )
    folder.chmod(0o1777)
    assert fault(str(tmp_path / "link")) is None


def test_as_kubernetes_mounts_it(tmp_path: Path) -> None:
    """A folder with the sticky bit, links to a folder of root's, a file that all may read, on a private mount."""
    mount = tmp_path / "mount"
    (mount / "..2026_1").mkdir(parents=True)
    mount.chmod(0o1777)
    (mount / "..data").symlink_to("..2026_1")
    file = secret(mount / "..2026_1", 0o440)
    (mount / "tokens.json").symlink_to("..data/secret")
    assert fault(str(mount / "tokens.json")) is None
    file.chmod(0o444)
    assert fault(str(mount / "tokens.json")) is None  # the folders of pytest let nobody in


@pytest.mark.parametrize(
    ("mount", "options", "kind", "good"),
    [
        ("{folder}", "rw,relatime", "tmpfs", True),
        ("{folder}", "ro,relatime", "ext4", True),
        ("{folder}", "rw,relatime", "ext4", False),
        ("/tmp", "rw,relatime", "tmpfs", False),
        ("/", "ro,relatime", "ext4", False),
    ],
)
def test_private_mounts(
    open_folder: Path, monkeypatch: pytest.MonkeyPatch, mount: str, options: str, kind: str, good: bool
) -> None:
    """All may read what lies on a file system of its own, in memory or read-only; not what lies on everybody's."""
    lines = open_folder / "mountinfo"
    root = "22 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda rw\n"
    lines.write_text(root + f"23 22 0:21 / {mount.format(folder=open_folder)} {options} shared:2 - {kind} none rw\n")
    monkeypatch.setattr(secret_files, "_MOUNTS", str(lines))
    assert (fault(str(secret(open_folder, 0o444))) is None) == good


def test_links_without_end(tmp_path: Path) -> None:
    """They end in an error, as the kernel has it; so does a file that is not there."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        fault(str(tmp_path / "a"))
    with pytest.raises(FileNotFoundError):
        fault(str(tmp_path / "none"))
