"""Who can change or read a file with secrets, by its own mode and by all folders and links that lead to it.

Note [Files that others can write or read]: whoever may change a link or a folder on the way to a file can put another
file in its place. So the whole path is checked, link by link. Everything on it must belong to root or to the server's
user, and nobody else may write it; in a folder with the sticky bit others may make entries, but not replace ours. Then
nobody else can change the file between the check and the opening. Kubernetes and systemd lay out secrets like that:
links to a folder of root's.

The file's mode may let others read it if they cannot reach it: because a folder above it lets nobody else in, or
because it is on a file system of its own that was mounted for it (in memory, or read-only), as in containers. A group
that the service is in may read it.

All functions block for a few calls of `stat`. Any thread.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

#: Links that are followed at most: the kernel's limit.
_MAX_LINKS = 40
#: File systems that everybody shares: that such a one is a tmpfs says nothing.
_EVERYBODYS = frozenset({"/", "/tmp", "/var/tmp", "/dev", "/dev/shm", "/run", "/run/lock", "/run/shm"})  # noqa: S108
_OF_MEMORY = frozenset({"tmpfs", "ramfs"})
_MOUNTS = "/proc/self/mountinfo"


def fault(path: str, *, any_owner: bool = False) -> str | None:
    """Why the file at `path` is not safe, and what mends it, as a sentence about "it"; None: it is safe.

    `any_owner` is for a command that root runs, which may work on anybody's file. Raises OSError when there is no such
    file.
    """
    way = [(os.path.join("/", name), status) for name, status in _way(os.path.abspath(path))]
    owners = None if any_owner else {0, os.geteuid()}
    for name, status in way:
        sentence = _writers(name, status, owners, is_file=status is way[-1][1])
        if sentence is not None:
            return sentence
    return _readers(path, [status for _, status in way])


def reaches(path: str) -> bool:
    """Whether others can reach the file that `path` leads to. Raises OSError when there is no such path."""
    folders = list(_way(os.path.realpath(path)))[:-1]
    return all(status.st_mode & stat.S_IXOTH for _, status in folders)


def _way(path: str) -> Iterator[tuple[str, os.stat_result]]:
    """Each folder and link from the root to the file that `path` leads to, and that file at last."""
    done, rest, links = "/", [part for part in path.split("/") if part], 0
    yield "/", os.lstat("/")
    while rest:
        part = rest.pop(0)
        if part == ".":
            continue
        if part == "..":
            done = os.path.dirname(done)
            continue
        name = os.path.join(done, part)
        status = os.lstat(name)
        yield name, status
        if not stat.S_ISLNK(status.st_mode):
            done = name
            continue
        links += 1
        if links > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), name)
        target = os.readlink(name)
        if target.startswith("/"):
            done = "/"
        rest = [part for part in target.split("/") if part] + rest


def _writers(name: str, status: os.stat_result, owners: set[int] | None, *, is_file: bool) -> str | None:
    mode, what = stat.S_IMODE(status.st_mode), "it" if is_file else name
    if owners is not None and status.st_uid not in owners:
        user = os.geteuid()
        return f"{what} belongs to user {status.st_uid}; it must be user {user}'s, or root's"
    if stat.S_ISLNK(status.st_mode) or (stat.S_ISDIR(status.st_mode) and mode & stat.S_ISVTX):
        return None
    others = stat.S_IWOTH if not is_file and _is_ours(status.st_gid) else stat.S_IWOTH | stat.S_IWGRP
    if not mode & others:
        return None
    if is_file:
        return f"its mode is {mode:04o}, and others must not write it; chmod 600 mends it"
    return f"others can write the folder {name} (mode {mode:04o}), and so replace it; chmod go-w {name} mends it"


def _readers(path: str, way: list[os.stat_result]) -> str | None:
    status = way[-1]
    mode = stat.S_IMODE(status.st_mode)
    for_others, for_group = bool(mode & stat.S_IROTH), bool(mode & stat.S_IRGRP) and not _is_ours(status.st_gid)
    if not (for_others or for_group) or not reaches(path) or _is_private_mount(os.path.realpath(path)):
        return None
    whose = "every user of this machine" if for_others else f"group {status.st_gid}, which the service is not in,"
    return (
        f"its mode is {mode:04o}, and {whose} can read it; chmod 600 mends it, or 640 with a group of the service's, "
        "or a folder around it that lets nobody else in"
    )


def _is_ours(group: int) -> bool:
    return group == 0 or group == os.getegid() or group in os.getgroups()


def _is_private_mount(path: str) -> bool:
    """Whether a file system of its own was mounted for it: not one of everybody's, and in memory or read-only."""
    try:
        with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.split() for line in file]
    except OSError:
        return False  # not on Linux, where containers are made otherwise
    best, private = "", False
    for fields in lines:
        mount, options, kind = _unescaped(fields[4]), fields[5].split(","), fields[fields.index("-") + 1]
        beneath = path == mount or path.startswith(mount.rstrip("/") + "/")
        # A later one covers an earlier one at the same place.
        if beneath and len(mount) >= len(best):
            best, private = mount, mount not in _EVERYBODYS and (kind in _OF_MEMORY or "ro" in options)
    return private


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
