"""The three logs: running.log, error.log and performance.log, as text or JSON lines, rotated by size.

They are beside twistd's own log. An observer makes the line on the thread that logs; the log's own thread writes it
(`log_writer`).
"""

from __future__ import annotations

import json
import logging
import math
from datetime import datetime, timezone
from functools import partial
from time import time
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

from ..config.settings import LoggingSettings
from ..reactor.lifecycle import make_folder
from .log_writer import LogWriters

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


def encoded(line: str) -> bytes:
    """`line` as it is written. A lone surrogate, which file names may have, is escaped."""
    return f"{line}\n".encode("utf-8", "backslashreplace")


def lines_lost(form: Callable[[LogEvent], str], lines: int) -> bytes:
    """The line that says how many lines are missing here."""
    event = {
        "log_time": time(),
        "log_level": LogLevel.warn,
        "log_namespace": "kvtwisted",
        "log_format": "{lines} lines lost: this log could not be written, or not fast enough",
        "lines": lines,
    }
    return encoded(form(event))


def log_observer(
    add: Callable[[bytes], None], form: Callable[[LogEvent], str], wanted: Callable[[LogEvent], bool]
) -> ILogObserver:
    """Makes lines of those events that `wanted` lets through and that say anything, and gives them to `add`."""

    def observe(event: LogEvent) -> None:
        if wanted(event) and (line := form(event)):
            add(encoded(line))

    return cast(ILogObserver, observe)


class LogFiles:
    """The three files, from `open` to `close`."""

    def __init__(
        self,
        publisher: LogPublisher,
        settings: Callable[[], LoggingSettings],
        performance_namespace: str,
        writers: LogWriters,
    ) -> None:
        """`settings` is asked again for the level at each event, so that a change takes effect at once."""
        self._publisher = publisher
        self._settings = settings
        self._performance = performance_namespace
        self._writers = writers
        self._observers: list[ILogObserver] = []
        self._bridge = StandardLibraryBridge(publisher)

    def open(self) -> None:
        """Open and append to the files. Raises OSError when the folder cannot be made or written."""
        logging.getLogger("kvtwisted").addHandler(self._bridge)
        settings = self._settings()
        if not settings.directory:
            return
        make_folder("logging.directory", settings.directory)
        form = as_json if settings.format == "json" else as_text
        for name, wanted in self._logs().items():
            writer = self._writers.open(name, settings, partial(lines_lost, form))
            observer = log_observer(writer.add, form, wanted)
            self._observers.append(observer)
            self._publisher.addObserver(observer)

    def close(self) -> None:
        """Write no more."""
        logging.getLogger("kvtwisted").removeHandler(self._bridge)
        for observer in self._observers:
            self._publisher.removeObserver(observer)
        self._observers = []
        self._writers.close(*self._logs())

    def _logs(self) -> dict[str, Callable[[LogEvent], bool]]:
        return {"running": self._is_running, "error": _is_error, "performance": self._is_performance}

    def _is_performance(self, event: LogEvent) -> bool:
        return event.get("log_namespace") == self._performance

    def _is_running(self, event: LogEvent) -> bool:
        least = LogLevel.levelWithName(self._settings().level)
        return not self._is_performance(event) and bool(_level(event) >= least)


def _is_error(event: LogEvent) -> bool:
    return bool(_level(event) >= LogLevel.error)


def _level(event: LogEvent):  # type: ignore[no-untyped-def]  # constantly's constants have no type
    return event.get("log_level") or LogLevel.info
