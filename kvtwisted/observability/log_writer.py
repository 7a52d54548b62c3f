"""Log writers: each log has a thread of its own, the only one that ever waits for its file.

Code that logs adds a line and goes on. A hanging disk, a pipe without a reader or a full file system therefore holds up
one log and nothing else. The lines that wait are bounded. Lost lines are counted, and the log itself says how many are
missing once it can be written again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from time import monotonic

from twisted.logger import Logger

from ..config.settings import LoggingSettings
from ..core.clock import pause
from .log_sinks import FileSink, Sink

#: Bytes of lines that wait for each log at most, and what a line counts besides its own. What the log's thread has
#: taken already counts by itself.
MAX_BYTES, LINE_BYTES = 32 << 20, 64
#: Seconds between two looks at a log: its file, and lines that are gathered.
LOOK_SECONDS = 1.0
#: Seconds until a failed write is tried again.
RETRY_SECONDS = 1.0
#: A log is stuck when one write has taken so many seconds.
STUCK_SECONDS = 5.0
#: Seconds that a start waits for a log to be open; and that a start, or a stop, waits for all logs to be written.
OPEN_SECONDS = 2.0
CLOSE_SECONDS = 1.5

_log = Logger(namespace="kvtwisted")

#: Makes the line that says how many lines are missing.
LinesLost = Callable[[int], bytes]


class LogWriter:
    """One log, and its thread from `start` to `close`. Any thread, unless said."""

    def __init__(self, name: str, sink: Sink, lines_lost: LinesLost) -> None:
        """`name` is for people."""
        self.name = name
        self._sink = sink
        self._lines_lost = lines_lost
        self._waiting: list[bytes] = []
        self._bytes = 0
        self._backlog: list[bytes] = []
        self._room = MAX_BYTES
        # Free while there is something to do. Not an Event: `set` holds a lock for a moment, and a signal handler or
        # finalizer that logs just then would wait for itself.
        self._wake = threading.Lock()
        self._wake.acquire()
        self._closing = threading.Event()
        self._opened = threading.Event()
        self._open_error: OSError | None = None
        self._lock = threading.RLock()
        self._busy: float | None = None
        self._failure = ""
        self._said = ""
        # Lost lines that the log has not mentioned yet.
        self._unsaid = 0
        #: Lines that were not written and never will be.
        self.dropped = 0
        self._thread: threading.Thread | None = None

    # Whoever logs.

    def add(self, line: bytes) -> None:
        """Have `line`, which ends in a line feed, written at once. Never blocks.

        What is added before `start` waits for it; after `end` nothing is kept.
        """
        self.gather(line)
        self.nudge()

    def gather(self, line: bytes) -> None:
        """The same within LOOK_SECONDS: for many lines. A tenth of a microsecond."""
        # Two threads at once may count wrong; it begins anew with each batch.
        self._bytes = size = self._bytes + len(line) + LINE_BYTES
        if size <= self._room:
            self._waiting.append(line)
        else:
            self._drop(1)

    # For the owner.

    def start(self) -> None:
        """Open the log and begin to write. Raises OSError when that is known within OPEN_SECONDS."""
        # Made only now: Python takes one that was made before a fork for one that has ended.
        self._thread = threading.Thread(target=self._run, name=f"log-{self.name}", daemon=True)
        self._thread.start()
        if self._opened.wait(OPEN_SECONDS) and self._open_error is not None:
            self._thread.join()
            raise self._open_error

    def nudge(self) -> None:
        """Have it look after its file and its lines now. Pythons before 3.11 wait by the wall clock, which may be set
        back: left to itself it might wait for that to catch up."""
        if self._wake.locked():
            with suppress(RuntimeError):  # another thread was faster
                self._wake.release()

    def reopen(self) -> None:
        """Open the file at its path anew, before the next line."""
        self._sink.reopen()
        self.nudge()

    def rotate(self) -> None:
        """Put aside the file as it is now, before the next line."""
        self._sink.rotate()
        self.nudge()

    @property
    def waiting(self) -> int:
        """Lines that are not written yet."""
        return len(self._waiting) + len(self._backlog)

    @property
    def hangs(self) -> bool:
        """Whether a write has not ended for STUCK_SECONDS."""
        busy = self._busy
        return busy is not None and monotonic() - busy > STUCK_SECONDS

    @property
    def stuck(self) -> bool:
        """Whether it hangs, or the last write failed."""
        return bool(self._failure) or self.hangs

    @property
    def trouble(self) -> str:
        """What is wrong with the log, as a sentence, or empty."""
        if self.hangs:
            return f"{self.name} takes no lines: a write to it does not end"
        if self._failure:
            return f"{self.name} cannot be written: {self._failure}"
        return f"{self.name} {self._sink.trouble}" if self._sink.trouble else ""

    def end(self) -> None:
        """Accept no more lines, and write those that wait."""
        self._room = 0
        self._closing.set()
        self.nudge()

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """`end`, and wait at most so long for it. What is not written then never will be, and is counted."""
        self.end()
        if self._thread is not None:
            self._thread.join(max(seconds, 0))

    def settle(self, seconds: float) -> None:
        """Wait until everything is written, at most so long. A log that was never started is written here and now."""
        if self._thread is None:
            self._write()
            return
        deadline = monotonic() + seconds
        while self.waiting and self._thread.is_alive() and monotonic() < deadline:
            self.nudge()
            pause(0.002)

    # Its thread.

    def _run(self) -> None:
        self._busy = monotonic()
        try:
            self._sink.open()
        except OSError as error:
            self._open_error = error
            self._room = 0
            return
        finally:
            self._busy = None
            self._opened.set()
        while not self._closing.is_set():
            self._wake.acquire(timeout=LOOK_SECONDS)
            self._write()
            if self._failure:
                self._await_retry()
        self._write()
        if not self._failure:
            self._write()  # what was added meanwhile
        self._drop(self.waiting)
        self._sink.close()

    def _await_retry(self) -> None:
        deadline = monotonic() + RETRY_SECONDS
        while not self._closing.is_set() and monotonic() < deadline:
            pause(0.05)

    def _write(self) -> None:
        if not self._backlog:
            self._take()
        self._busy = monotonic()
        try:
            written, error = self._sink.write(self._backlog)
        except Exception:  # a defect, which must not end the log
            written, error = len(self._backlog), None
            self._drop(written)
            _log.failure("{name}: lines could not be written", name=self.name)
        finally:
            self._busy = None
        del self._backlog[:written]
        if error is None:
            self._failure = ""
        else:
            self._failure = error.strerror or str(error)
            self._sink.reopen()
        self._say()

    def _take(self) -> None:
        waiting = self._waiting
        # Cut off the front instead of changing the list: another thread may be about to append to this one.
        count = len(waiting)
        self._backlog = waiting[:count]
        del waiting[:count]
        self._bytes = 0
        with self._lock:
            lost, self._unsaid = self._unsaid, 0
        if lost:
            # What was lost came after all that waited.
            self._backlog.append(self._lines_lost(lost))

    def _drop(self, lines: int) -> None:
        with self._lock:
            self.dropped += lines
            self._unsaid += lines

    def _say(self) -> None:
        """Tell the other logs of a change, once."""
        trouble = self.trouble
        if trouble == self._said:
            return
        self._said = trouble
        if trouble:
            _log.error("{trouble}", trouble=trouble)
        else:
            _log.info("{name} is written again", name=self.name)


class LogWriters:
    """All logs of the server. Reactor thread, unless said."""

    def __init__(self) -> None:
        #: By label.
        self.all: dict[str, LogWriter] = {}
        self._hanging: set[str] = set()

    def add(self, label: str, writer: LogWriter) -> LogWriter:
        """One more; `label` is what metrics call it."""
        self.all[label] = writer
        return writer

    def open(self, label: str, settings: LoggingSettings, lines_lost: LinesLost) -> LogWriter:
        """Start one for a file of the folder of logs. Raises OSError."""
        name = f"{label}.log"
        sink = FileSink(os.path.join(settings.directory, name), settings.max_bytes, settings.max_files)
        writer = LogWriter(name, sink, lines_lost)
        writer.start()
        return self.add(label, writer)

    def reopen(self) -> None:
        """See `LogWriter.reopen`."""
        for writer in self.all.values():
            writer.reopen()

    def troubles(self) -> list[str]:
        """What is wrong with any of them. Any thread."""
        return [writer.trouble for writer in list(self.all.values()) if writer.trouble]

    def look(self) -> None:
        """Have each look after its file. Say, once, which logs hang, and which no longer do: they cannot do so
        themselves. Every LOOK_SECONDS."""
        for writer in self.all.values():
            writer.nudge()
        hanging = {writer.name: writer.trouble for writer in self.all.values() if writer.hangs}
        for name in sorted(hanging.keys() - self._hanging):
            _log.error("{trouble}", trouble=hanging[name])
        for name in sorted(self._hanging - hanging.keys()):
            _log.info("{name} is written again", name=name)
        self._hanging = set(hanging)

    def settle(self) -> None:
        """Wait until all that was logged so far is written; CLOSE_SECONDS at most for all. Blocks."""
        deadline = monotonic() + CLOSE_SECONDS
        for writer in self.all.values():
            writer.settle(deadline - monotonic())

    def close(self, *labels: str) -> None:
        """Write what waits of those logs, and no more of them; CLOSE_SECONDS at most for all. Blocks."""
        writers = [self.all[label] for label in labels if label in self.all]
        for writer in writers:
            writer.end()
        deadline = monotonic() + CLOSE_SECONDS
        for writer in writers:
            writer.close(deadline - monotonic())
