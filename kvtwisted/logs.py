"""The three logs: running.log, error.log and performance.log, as text or JSON lines, rotated by size.

They stand beside whatever twistd itself logs to. An observer runs on the thread that logs; writing is serialised by a
lock. A log that cannot be written (a full disk) is left out by Twisted's publisher, and the server goes on.
"""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from datetime import datetime, timezone
from typing import Callable, cast

from twisted.logger import (
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogPublisher,
    eventAsText,
    formatEvent,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from .config.settings import LoggingSettings
from .lifecycle import make_folder

_PLAIN = (str, int, float, bool, type(None))


def as_text(event: LogEvent) -> str:
    """The event as Twisted writes it: time, [namespace#level], message, and the traceback of a failure.

    Empty when the event has no message and no failure.
    """
    return eventAsText(event).replace("\n", "\n\t")


def as_json(event: LogEvent) -> str:
    """The event as one JSON object: time (UTC), level, logger, message, its plain fields, and a traceback."""
    line = {
        "time": datetime.fromtimestamp(event["log_time"], timezone.utc).isoformat(),
        "level": _level(event).name,
        "logger": event.get("log_namespace", ""),
        "message": formatEvent(event),
    }
    for name, value in event.items():
        if not name.startswith("log_") and name not in line and type(value) in _PLAIN:
            # JSON has no infinity.
            line[name] = str(value) if type(value) is float and not math.isfinite(value) else value
    if "log_failure" in event:
        line["traceback"] = event["log_failure"].getTraceback()
    return json.dumps(line, ensure_ascii=False)


class StandardLibraryBridge(logging.Handler):
    """Carries warnings and errors of the standard library's `logging` (by config, for one) to a Twisted publisher."""

    def __init__(self, publisher: LogPublisher) -> None:
        super().__init__(logging.WARNING)
        self._publisher = publisher

    def emit(self, record: logging.LogRecord) -> None:
        """Log `record`, with its traceback if it has one."""
        failure = Failure(record.exc_info[1]) if record.exc_info and record.exc_info[1] else None
        facts = {} if failure is None else {"log_failure": failure}
        level = LogLevel.error if record.levelno >= logging.ERROR else LogLevel.warn
        Logger(record.name, observer=self._publisher).emit(level, "{message}", message=record.getMessage(), **facts)


class _FileObserver:
    """Writes those events to a rotated file that `wanted` lets through."""

    def __init__(self, path: str, settings: LoggingSettings, wanted: Callable[[LogEvent], bool]) -> None:
        directory, name = os.path.split(path)
        self._file = LogFile(name, directory, rotateLength=settings.max_bytes, maxRotatedFiles=settings.max_files)
        self._format = as_json if settings.format == "json" else as_text
        self._wanted = wanted
        self._lock = threading.Lock()

    def __call__(self, event: LogEvent) -> None:
        if self._wanted(event):
            line = self._format(event)
            if line:
                # As bytes: the file would refuse lone surrogates (file names have them), and count text by characters.
                with self._lock:
                    self._file.write(f"{line}\n".encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()


class LogFiles:
    """The three files, from `open` to `close`."""

    def __init__(
        self, publisher: LogPublisher, settings: Callable[[], LoggingSettings], performance_namespace: str
    ) -> None:
        """`settings` is asked again for the level at each event, so that a change takes effect at once."""
        self._publisher = publisher
        self._settings = settings
        self._performance = performance_namespace
        self._observers: list[_FileObserver] = []
        self._bridge = StandardLibraryBridge(publisher)

    def open(self) -> None:
        """Open and append to the files. Raises OSError when the folder cannot be made or written."""
        logging.getLogger("kvtwisted").addHandler(self._bridge)
        settings = self._settings()
        if not settings.directory:
            return
        make_folder("logging.directory", settings.directory)
        logs = {"running": self._is_running, "error": _is_error, "performance": self._is_performance}
        for name, wanted in logs.items():
            observer = _FileObserver(os.path.join(settings.directory, f"{name}.log"), settings, wanted)
            self._observers.append(observer)
            self._publisher.addObserver(cast(ILogObserver, observer))

    def close(self) -> None:
        """Write no more."""
        logging.getLogger("kvtwisted").removeHandler(self._bridge)
        for observer in self._observers:
            self._publisher.removeObserver(cast(ILogObserver, observer))
            observer.close()
        self._observers = []

    def _is_performance(self, event: LogEvent) -> bool:
        return event.get("log_namespace") == self._performance

    def _is_running(self, event: LogEvent) -> bool:
        least = LogLevel.levelWithName(self._settings().level)
        return not self._is_performance(event) and bool(_level(event) >= least)


def _is_error(event: LogEvent) -> bool:
    return bool(_level(event) >= LogLevel.error)


def _level(event: LogEvent):  # type: ignore[no-untyped-def]  # constantly's constants have no type
    return event.get("log_level") or LogLevel.info
