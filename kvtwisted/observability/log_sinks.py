"""Where log lines are written: a file that other programs may change too, or a stream such as standard output.

One thread at a time uses a sink, and may have to wait for the disk or the reader without a limit.

Note [Log files that others move]: other programs change log files too. logrotate moves a file, or copies and truncates
it; somebody removes it to free space; a disk fills up in the middle of a line. So files are opened for appending, which
leaves no hole in a truncated file. Whole lines are written in one call. Before each batch the path is checked: if
another file is there, writing goes on in that one. If there is no file, a new one is made; but while the old file still
exists under another name there is a short wait, since logrotate is about to make the new file with the mode it was
told. Nothing is closed before its successor is open. A FIFO without a reader is waited for, as long as it is at its
path.
"""

from __future__ import annotations

import errno
import os
import select
import stat
from bisect import bisect_right
from collections.abc import Sequence
from contextlib import suppress
from itertools import accumulate
from time import monotonic
from typing import Callable

from ..core.clock import pause

#: Seconds for which a file that was moved is still written to while no other has taken its place.
MOVED_SECONDS = 1.0
#: Seconds until a rotation that failed is tried again.
ROTATION_SECONDS = 5.0
#: Seconds between two looks whether a FIFO that is waited for is still there.
FIFO_SECONDS = 0.2
#: Bytes of one write at most, so that a hanging disk holds up only little.
_MAX_WRITE = 1 << 20


class Sink:
    """One thread at a time. What a sink has no need of does nothing."""

    #: What is wrong although lines are written, or empty.
    trouble = ""

    def open(self) -> None:
        """Be ready to write. Raises OSError. Once; may block."""

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """Write whole lines; without lines only check that it is possible. Returns how many were written, and why not
        the rest. May block."""
        raise NotImplementedError

    def reopen(self) -> None:
        """Open again. Any thread; takes effect before the next line."""

    def rotate(self) -> None:
        """Rotate. Any thread; takes effect before the next line."""

    def close(self) -> None:
        """Close everything."""


class FileSink(Sink):
    """Appends to a path, and rotates what is there by size. Note [Log files that others move]."""

    def __init__(self, path: str, max_bytes: int, max_files: int, seconds: Callable[[], float] = monotonic) -> None:
        """A regular file never has more than `max_bytes`, unless it is one line; so many old ones are kept."""
        self._path = os.path.abspath(path)
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._seconds = seconds
        self._fd = -1
        self._reopen = self._rotate_now = False
        self._moved: float | None = None
        # Whether the file may end in the middle of a line.
        self._torn = False
        self._size = 0
        self._regular = False
        self._rotate_from = 0.0

    def open(self) -> None:
        """See `Sink.open`."""
        if self._fd < 0:
            self._open()

    def _open(self) -> None:
        """Open the path in place of what is open. A folder that is not there any more is made."""
        try:
            fd = self._opened()
        except FileNotFoundError:
            os.makedirs(os.path.dirname(self._path), 0o700, exist_ok=True)
            fd = self._opened()
        if self._fd >= 0:
            os.close(self._fd)
        self._fd, self._moved, self._reopen = fd, None, False
        status = os.fstat(fd)
        self._regular, self._size = stat.S_ISREG(status.st_mode), status.st_size
        self._torn = self._regular and self._size > 0 and not self._ends_a_line()

    def _opened(self) -> int:
        """The path opened. Waits for the reader of a FIFO."""
        while True:
            try:
                # A call that waits for the reader would do so for ever when another file takes the FIFO's place.
                return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOCTTY | os.O_NONBLOCK, 0o666)
            except OSError as error:
                if error.errno != errno.ENXIO or not stat.S_ISFIFO(os.stat(self._path).st_mode):
                    raise
            pause(FIFO_SECONDS)

    def reopen(self) -> None:
        """See `Sink.reopen`."""
        self._reopen = True

    def rotate(self) -> None:
        """See `Sink.rotate`."""
        self._rotate_now = True

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """See `Sink.write`. Without lines it is only seen to that the file is there."""
        written, error = 0, None
        # Where each line begins, and the last ends.
        offsets = [0, *accumulate(map(len, lines))]
        try:
            self._look()
            while written < len(lines) and error is None:
                count, error = self._write_some(lines, offsets, written)
                written += count
        except OSError as broken:
            error = broken
        return written, error

    def close(self) -> None:
        """See `Sink.close`."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _look(self) -> None:
        """See to it that the open file is the one at the path."""
        if self._fd < 0 or self._reopen:
            self._open_or_keep()
        status = os.fstat(self._fd)
        try:
            there: os.stat_result | None = os.stat(self._path)
        except OSError:
            there = None
        if there is not None and os.path.samestat(there, status):
            if self._moved is not None:  # it is back
                self._moved, self.trouble = None, ""
        elif there is not None or not status.st_nlink:
            self._open_or_keep()
        elif self._moved is None:
            self._moved = self._seconds()
        elif self._seconds() - self._moved >= MOVED_SECONDS:
            self._open_or_keep()
        status = os.fstat(self._fd)
        if status.st_size != self._size:
            # Somebody cut it, or wrote to it.
            self._size = status.st_size
            self._torn = self._torn and self._size > 0
        if self._rotate_now:
            self._rotate_now = False
            if self._regular and self._size:
                self._rotate()

    def _is_left(self) -> bool:
        """Whether the open file is no longer the one at the path."""
        try:
            return not os.path.samestat(os.stat(self._path), os.fstat(self._fd))
        except OSError:
            return True

    def _open_or_keep(self) -> None:
        """Open the path; where that cannot be, a file that is still somewhere is better than none."""
        try:
            self._open()
        except OSError as error:
            if self._fd < 0 or not os.fstat(self._fd).st_nlink:
                raise
            self._moved = self._seconds()
            self.trouble = f"cannot be opened anew: {error.strerror}"
        else:
            self.trouble = ""

    def _write_some(self, lines: Sequence[bytes], offsets: Sequence[int], start: int) -> tuple[int, OSError | None]:
        """Write as many lines from `start` on as one call and this file may take, at least one. See `Sink.write`."""
        limit = _MAX_WRITE
        if self._regular and self._may_rotate():
            if self._size and self._size + len(lines[start]) > self._max_bytes:
                self._rotate()
            if self._may_rotate():
                limit = min(limit, self._max_bytes - self._size)
        end = max(bisect_right(offsets, offsets[start] + limit, start) - 1, start + 1)
        before = b"\n" if self._torn else b""
        ends = [offset - offsets[start] + len(before) for offset in offsets[start + 1 : end + 1]]
        return self._put(before + b"".join(lines[start:end]), ends)

    def _put(self, data: bytes, ends: Sequence[int]) -> tuple[int, OSError | None]:
        """Write `data`, whose lines end at `ends`; how many of them are whole in the file, and why not the rest."""
        size = self._size
        done, whole, error = _write_all(self._fd, data, ends, len(data), self._is_left)
        kept = ends[whole - 1] if whole else 0
        if done > kept:
            done = self._take_back(size, done, kept)
            self._torn = done > kept
        elif error is None:
            self._torn = False
        self._size = size + done
        return whole, error

    def _take_back(self, size: int, done: int, kept: int) -> int:
        """Cut off half a line; how much is in the file afterwards of what was written to it when it had `size`."""
        with suppress(OSError):
            # Only where nobody has touched it meanwhile.
            if self._regular and os.fstat(self._fd).st_size == size + done:
                os.ftruncate(self._fd, size + kept)
                return kept
        return done

    def _may_rotate(self) -> bool:
        return self._seconds() >= self._rotate_from

    def _rotate(self) -> None:
        """Put the file aside. What keeps it from that is `trouble`, and the file is written on for a while."""
        status = os.fstat(self._fd)
        try:
            if not os.path.samestat(os.stat(self._path), status):
                return  # the next look finds out
            numbers = self._numbers()
            for number in numbers:
                if number > self._max_files:
                    os.remove(f"{self._path}.{number}")
            # Those up to the first gap move on. One that was made by a rotation that failed half way is used again.
            last = 1
            while last in numbers and last < self._max_files:
                last += 1
            for number in range(last - 1, 0, -1):
                os.rename(f"{self._path}.{number}", f"{self._path}.{number + 1}")
            os.rename(self._path, f"{self._path}.1")
            self._open()
            with suppress(OSError):
                os.fchmod(self._fd, stat.S_IMODE(status.st_mode))
            self.trouble = ""
        except OSError as error:
            self._rotate_from = self._seconds() + ROTATION_SECONDS
            self.trouble = f"cannot be rotated: {error.strerror}"

    def _numbers(self) -> set[int]:
        """Of the old files."""
        folder, name = os.path.split(self._path)
        suffixes = [entry[len(name) + 1 :] for entry in os.listdir(folder) if entry.startswith(f"{name}.")]
        return {int(suffix) for suffix in suffixes if suffix.isdecimal() and suffix[0] != "0"}

    def _ends_a_line(self) -> bool:
        try:
            with open(self._path, "rb") as file:
                file.seek(-1, os.SEEK_END)
                return file.read(1) == b"\n"
        except OSError:
            return True  # not to be known


class StreamSink(Sink):
    """Writes to a descriptor that the process was given, such as standard output."""

    def __init__(self, fd: int) -> None:
        """Uses a duplicate of `fd`, so that nobody else can close it or have its number. Raises OSError."""
        self._fd = os.dup(fd)
        self._torn = False

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        """See `Sink.write`. A reader that does not read is waited for."""
        if not lines:
            return 0, None
        before = b"\n" if self._torn else b""
        ends = [end + len(before) for end in accumulate(map(len, lines))]
        done, whole, error = _write_all(self._fd, before + b"".join(lines), ends, _MAX_WRITE)
        self._torn = done > (ends[whole - 1] if whole else 0)
        return whole, error

    def close(self) -> None:
        """See `Sink.close`."""
        os.close(self._fd)


def _write_all(
    fd: int, data: bytes, ends: Sequence[int], piece: int, given_up: Callable[[], bool] = lambda: False
) -> tuple[int, int, OSError | None]:
    """Write `data`, so many bytes at once: how many were written, how many of its lines, which end at `ends`, are whole
    by that, and why not the rest."""
    view, done = memoryview(data), 0
    try:
        while done < len(view):
            done += _write(fd, view[done : done + piece], given_up)
    except OSError as error:
        return done, bisect_right(ends, done), error
    return done, len(ends), None


def _write(fd: int, data: memoryview, given_up: Callable[[], bool]) -> int:
    while True:
        try:
            return os.write(fd, data)
        except BlockingIOError:
            # A FIFO; or somebody who has the descriptor too made it one that does not wait.
            waiting = select.poll()
            waiting.register(fd, select.POLLOUT)
            if not waiting.poll(FIFO_SECONDS * 1000) and given_up():
                raise
