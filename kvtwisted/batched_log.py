"""A log of many lines: they are gathered in memory, and written by the batch on a thread that may wait for the disk.

The access log and the audit log are such logs. A line that was added and not written yet is lost when the process is
killed: up to INTERVAL seconds of them.
"""

from __future__ import annotations

import threading

from twisted.logger import Logger
from twisted.python.logfile import LogFile

from .config.settings import LoggingSettings

#: Seconds between two batches.
INTERVAL = 1.0
#: Lines that wait at most. More are dropped and counted, so that a disk that hangs does not cost the server its memory.
MAX_WAITING = 100_000

_log = Logger(namespace="kvtwisted")


class BatchedLog:
    """One file, rotated by size as the others are, from `open` to `close`."""

    def __init__(self, name: str, settings: LoggingSettings) -> None:
        """The file is `name`.log in the folder of `settings`, which must exist when `open` is called."""
        self.name = name
        self._settings = settings
        self._file: LogFile | None = None
        self._waiting: list[bytes] = []
        self._lock = threading.Lock()
        self._failed = False
        #: Lines that were not written.
        self.dropped = 0

    def open(self) -> None:
        """Append to the file from now on. Raises OSError."""
        settings = self._settings
        self._file = LogFile(
            f"{self.name}.log", settings.directory, rotateLength=settings.max_bytes, maxRotatedFiles=settings.max_files
        )

    def add(self, line: bytes) -> None:
        """Have `line`, which ends in a line feed, written soon. Any thread; a tenth of a microsecond.

        While the log is not open nothing is kept.
        """
        waiting = self._waiting
        if self._file is None:
            return
        if len(waiting) < MAX_WAITING:
            waiting.append(line)
        else:
            self.dropped += 1

    def write(self) -> None:
        """Write what waits. Blocks; any thread. A disk that takes it not is told of once in a row of failures."""
        with self._lock:
            # Cut off the front instead of changing the list: another thread may be about to append to this one.
            count = len(self._waiting)
            lines = self._waiting[:count]
            del self._waiting[:count]
            if not lines or self._file is None:
                return
            try:
                self._file.write(b"".join(lines))
            except OSError as error:
                self.dropped += count
                if not self._failed:
                    _log.error("{name}.log cannot be written: {reason}", name=self.name, reason=error.strerror)
                self._failed = True
            else:
                self._failed = False

    def close(self) -> None:
        """Write what waits, and no more. Blocks for that."""
        self.write()
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None


class BatchedLogs:
    """All logs of this kind. Without a folder in the settings they are never open."""

    def __init__(self, settings: LoggingSettings) -> None:
        self._settings = settings
        self._logs: list[BatchedLog] = []

    def open(self, name: str) -> BatchedLog:
        """One more. Raises OSError."""
        log = BatchedLog(name, self._settings)
        if self._settings.directory:
            log.open()
        self._logs.append(log)
        return log

    @property
    def dropped(self) -> int:
        """Lines that were not written."""
        return sum([log.dropped for log in self._logs])

    def write(self) -> None:
        """See `BatchedLog.write`."""
        for log in self._logs:
            log.write()

    def close(self) -> None:
        """See `BatchedLog.close`."""
        for log in self._logs:
            log.close()
