"""The token file: whose it may be, how it is changed, and how a server follows it."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path
from typing import Any

import pytest

from kvtwisted.core import durable
from kvtwisted.sessions import token_file
from kvtwisted.sessions.entries import InvalidTokens, TokenEntry, write_entries
from kvtwisted.sessions.token_file import MAX_FILE_BYTES, TokenFile, edit, load

from .support import grant, made

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A good file with one token, `app`."""
    file = tmp_path / "tokens.json"
    edit(str(file), lambda _: [made("app")[1]], create=True)
    return file


def add(token_id: str) -> Any:
    """A change that adds a token."""
    return lambda entries: [*entries, made(token_id, grant("get"))[1]]


def ids(entries: list[TokenEntry]) -> list[str]:
    """Their ids."""
    return [entry.id for entry in entries]


def refusal(path: Path) -> str:
    """Why the file is refused, without its name."""
    with pytest.raises(InvalidTokens) as refused:
        load(str(path))
    begin, _, reason = str(refused.value).partition(f"token file {path}: ")
    assert begin == ""
    return reason


def test_a_new_file(path: Path) -> None:
    """For its owner alone, with the lock beside it, and nothing else."""
    assert ids(load(str(path))) == ["app"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(os.listdir(path.parent)) == ["tokens.json", "tokens.json.lock"]


@pytest.mark.parametrize("mode", [0o604, 0o644, 0o666, 0o777])
def test_modes_that_others_could_use(open_folder: Path, mode: int) -> None:
    """Refused, to read it and to change it; the answer says what mends it."""
    path = open_folder / "tokens.json"
    edit(str(path), lambda _: [made("app")[1]], create=True)
    path.chmod(mode)
    assert refusal(path).startswith(f"its mode is {mode:04o}, and ")
    assert "chmod 600 mends it" in refusal(path)
    with pytest.raises(InvalidTokens):
        edit(str(path), add("x"))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_modes_of_the_owner_alone(path: Path, mode: int) -> None:
    """These are fine."""
    path.chmod(mode)
    assert ids(load(str(path))) == ["app"]


def test_what_is_no_plain_file(path: Path, tmp_path: Path) -> None:
    """Folders and pipes are refused at once: nobody waits for a pipe's writer. A link is read, but never replaced."""
    link = tmp_path / "link"
    link.symlink_to(path)
    assert ids(load(str(link))) == ["app"]
    (tmp_path / "folder").mkdir()
    assert refusal(tmp_path / "folder") == "it is not a regular file"
    os.mkfifo(tmp_path / "pipe", 0o600)
    assert refusal(tmp_path / "pipe") == "it is not a regular file"
    assert refusal(tmp_path / "none") == "there is no such file; `kvtwisted token create` makes it"
    assert refusal(path / "below") == "it cannot be read: Not a directory"
    with pytest.raises(InvalidTokens, match=rf"it is a symbolic link, to {path}; name the file itself"):
        edit(str(link), add("x"), create=True)
    assert link.is_symlink()
    assert ids(load(str(path))) == ["app"]


@needs_root
def test_files_of_others(path: Path) -> None:
    """Whoever owns it could change it; a command of root's may read it all the same."""
    os.chown(path, 12345, 12345)
    assert refusal(path) == "it belongs to user 12345; it must be user 0's, or root's"
    assert ids(load(str(path), any_owner=True)) == ["app"]


@needs_root
def test_roots_command_does_not_take_the_file_away(path: Path) -> None:
    """The file stays its owner's, else the server could not read it any more."""
    os.chown(path, 12345, 12346)
    edit(str(path), add("second"))
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (12345, 12346, 0o600)
    assert ids(load(str(path), any_owner=True)) == ["app", "second"]


@needs_root
def test_a_change_keeps_the_group_that_may_read(path: Path) -> None:
    """A file of root's that the service reads by its group is still that after a command of root's."""
    os.chown(path, 0, 12346)
    path.chmod(0o640)
    edit(str(path), add("second"))
    status = path.stat()
    assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, 12346, 0o640)


@needs_root
def test_roots_command_in_the_folder_of_another(tmp_path: Path) -> None:
    """A new file, and its lock, belong to whom the folder belongs."""
    folder = tmp_path / "of-another"
    folder.mkdir()
    os.chown(folder, 12345, 12346)
    edit(str(folder / "tokens.json"), add("x"), create=True)
    for name in ("tokens.json", "tokens.json.lock"):
        assert (folder / name).stat().st_uid == 12345


@needs_root
def test_a_lock_that_stands_there_is_never_given_away(tmp_path: Path) -> None:
    """It could be another name of any file: a link that the folder's owner has put there."""
    folder = tmp_path / "of-another"
    folder.mkdir()
    os.chown(folder, 12345, 12346)
    precious = tmp_path / "precious"
    precious.write_text("x")
    os.link(precious, folder / "tokens.json.lock")
    edit(str(folder / "tokens.json"), add("x"), create=True)
    assert precious.stat().st_uid == 0


def test_sizes(path: Path) -> None:
    """A file over the limit is refused before it is parsed, and never written."""
    content = path.read_bytes()
    path.write_bytes(content + b" " * (MAX_FILE_BYTES - len(content)))
    assert ids(load(str(path))) == ["app"]
    path.write_bytes(content + b" " * MAX_FILE_BYTES)
    assert refusal(path) == "it has more than 1048576 bytes"
    path.write_bytes(content)
    many = tuple(grant("get", b"x" * 1024) for _ in range(64))
    with pytest.raises(InvalidTokens, match="and may have 1048576"):
        edit(str(path), lambda _: [made(f"t{number}", *many)[1] for number in range(20)])
    assert path.read_bytes() == content


def test_a_change_that_is_refused_changes_nothing(path: Path) -> None:
    """Nor does one after which the file could not be read, or that breaks off."""
    content = path.read_bytes()

    def refused(_: list[TokenEntry]) -> list[TokenEntry]:
        raise InvalidTokens("no")

    with pytest.raises(InvalidTokens, match=r"^no$"):
        edit(str(path), refused)
    with pytest.raises(InvalidTokens, match="is the id of"):
        edit(str(path), add("app"))
    with pytest.raises(ZeroDivisionError):
        edit(str(path), lambda _: [1 / 0])  # type: ignore[list-item]
    assert path.read_bytes() == content
    edit(str(path), add("later"))  # the lock is free again


def test_a_damaged_file_is_not_overwritten(path: Path) -> None:
    """A change of it is refused like the file."""
    path.write_bytes(b"{")
    with pytest.raises(InvalidTokens, match="invalid JSON"):
        edit(str(path), add("x"), create=True)
    assert path.read_bytes() == b"{"


def test_a_full_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the file, and the old content stays."""
    content = path.read_bytes()

    def fsync(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable.os, "fsync", fsync)
        with pytest.raises(InvalidTokens, match=r"tokens\.json: it cannot be written: No space left on device"):
            edit(str(path), add("x"))
    assert path.read_bytes() == content
    assert sorted(os.listdir(path.parent)) == ["tokens.json", "tokens.json.lock"]


def test_places_where_no_file_can_be(tmp_path: Path) -> None:
    """One sentence, whatever the place."""
    with pytest.raises(InvalidTokens, match=r"tokens\.json\.lock cannot be opened: No such file or directory"):
        edit(str(tmp_path / "none" / "tokens.json"), add("x"), create=True)
    with pytest.raises(InvalidTokens, match="there is no such file"):
        edit(str(tmp_path / "tokens.json"), add("x"))
    assert os.listdir(tmp_path) == []


def test_one_change_at_a_time(path: Path) -> None:
    """No change is lost, whoever makes it meanwhile."""
    threads = [threading.Thread(target=edit, args=(str(path), add(f"t{number}"))) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ids(load(str(path)))) == sorted(["app", *(f"t{number}" for number in range(20))])


def test_waiting_for_the_lock_ends(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds it for too long is named as the reason."""
    monkeypatch.setattr(token_file, "LOCK_SECONDS", 0.05)

    def meanwhile(entries: list[TokenEntry]) -> list[TokenEntry]:
        with pytest.raises(InvalidTokens, match="another command has been changing it"):
            edit(str(path), add("second"))
        return [*entries, made("first")[1]]

    edit(str(path), meanwhile)
    assert ids(load(str(path))) == ["app", "first"]


class Follower:
    """A server that follows the file."""

    def __init__(self, path: Path) -> None:
        self.ids: list[str] = []
        self.changes = 0
        self.failures: list[str] = []
        self.file = TokenFile(str(path), self._changed, self.failures.append)
        self.file.load()

    def _changed(self, entries: list[TokenEntry]) -> None:
        self.ids = ids(entries)
        self.changes += 1


def test_changes_are_followed(path: Path) -> None:
    """By a rename, in place, and back; a file that stays as it is, is not read again."""
    follower = Follower(path)
    assert (follower.ids, follower.changes) == (["app"], 1)
    assert not follower.file.refresh()
    edit(str(path), add("second"))
    assert follower.file.refresh()
    assert follower.ids == ["app", "second"]
    path.write_bytes(write_entries([made("third")[1]]))
    assert follower.file.refresh()
    assert not follower.file.refresh()
    assert (follower.ids, follower.changes, follower.failures) == (["third"], 3, [])


def test_an_unchanged_file_costs_a_stat(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not opened."""
    follower = Follower(path)

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the file was opened")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", never)
        assert not follower.file.refresh()
    assert follower.file.refresh(force=True)
    assert follower.changes == 2


def test_the_old_tokens_stay_on_any_error(path: Path) -> None:
    """Each reason is told once, and the next good file counts."""
    follower = Follower(path)
    content = path.read_bytes()

    def damaged() -> None:
        path.write_bytes(b"{")

    def opened() -> None:
        path.write_bytes(content)
        path.chmod(0o666)

    def removed() -> None:
        path.unlink()

    def grown() -> None:
        path.write_bytes(b" " * (MAX_FILE_BYTES + 1))
        path.chmod(0o600)

    for number, spoil in enumerate((damaged, opened, removed, grown), 1):
        spoil()
        for _ in range(3):
            assert not follower.file.refresh()
        assert (follower.ids, follower.changes, len(follower.failures)) == (["app"], 1, number)
        assert str(path) in follower.failures[-1]
    # On demand the answer is given again.
    assert not follower.file.refresh(force=True)
    assert len(follower.failures) == 5
    path.unlink()
    edit(str(path), lambda _: [made("new")[1]], create=True)
    assert follower.file.refresh()
    assert (follower.ids, len(follower.failures)) == (["new"], 5)


def test_a_mode_that_changes_alone_is_seen(path: Path) -> None:
    """The content is as it was, but others may read it now."""
    follower = Follower(path)
    path.chmod(0o666)
    assert not follower.file.refresh()
    assert "chmod 600" in follower.failures[0]
    path.chmod(0o600)
    assert follower.file.refresh()
    assert follower.ids == ["app"]


def test_the_very_same_file_again(path: Path) -> None:
    """Moved away and back: it is good again, and the next fault is told."""
    follower = Follower(path)
    away = path.with_name("away")
    path.rename(away)
    assert not follower.file.refresh()
    away.rename(path)
    assert follower.file.refresh()
    path.rename(away)
    assert not follower.file.refresh()
    assert len(follower.failures) == 2
    assert follower.ids == ["app"]


def test_the_first_time_it_must_be_good(path: Path) -> None:
    """A server does not start without knowing whom it serves."""
    path.chmod(0o666)
    with pytest.raises(InvalidTokens, match="chmod 600"):
        Follower(path)


def test_a_swapped_link_is_followed(tmp_path: Path) -> None:
    """Kubernetes renews a secret by a rename of the link `..data`: the file's own link stays as it is."""
    for name, token_id in (("..2026_1", "first"), ("..2026_2", "second")):
        (tmp_path / name).mkdir()
        edit(str(tmp_path / name / "tokens.json"), lambda _, token_id=token_id: [made(token_id)[1]], create=True)
        (tmp_path / name / "tokens.json").chmod(0o440)
    (tmp_path / "..data").symlink_to("..2026_1")
    (tmp_path / "tokens.json").symlink_to("..data/tokens.json")
    follower = Follower(tmp_path / "tokens.json")
    assert follower.ids == ["first"]
    (tmp_path / "..data_tmp").symlink_to("..2026_2")
    os.replace(tmp_path / "..data_tmp", tmp_path / "..data")
    assert follower.file.refresh()
    assert (follower.ids, follower.failures) == (["second"], [])
