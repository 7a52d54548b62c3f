"""twistd's own log, to standard output, a file or syslog, written by a thread as all others are.

twistd would write it on the thread that logs, mostly the reactor's. If standard output is a pipe that nobody reads,
that thread would wait for ever. So the application brings its own observer, as Twisted allows. It looks like twistd's,
honours `--logfile`, `--syslog` and `--prefix`, and rotates a file as `logging.max_bytes` says. With `--logger` twistd
uses the observer that the operator chose.

twistd may fork after the observer was made, and logs a little after the reactor has ended. The thread is started when
the server is; what was logged before waits for it. After the reactor has ended each line is waited for, briefly.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
import syslog
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Callable, cast

from twisted.logger import FileLogObserver, ILogObserver, LegacyLogObserverWrapper, LogEvent, LogPublisher
from twisted.python.logfile import LogFile
from twisted.python.syslog import SyslogObserver
from zope.interface import implementer

from ..config.settings import LoggingSettings
from .log_sinks import FileSink, Sink, StreamSink
from .log_writer import CLOSE_SECONDS, LogWriter
from .logs import as_text, encoded, lines_lost

#: What metrics call it.
LABEL = "twistd"
#: What twistd calls a daemon's log unless told otherwise.
_DEFAULT_FILE = "twistd.log"


@implementer(ILogObserver)
class TwistdLog:
    """twistd's log, from its first line to its last. Any thread may log."""

    def __init__(self, options: Mapping[str, Any], settings: LoggingSettings) -> None:
        """`options` are twistd's. The file is opened now, while twistd may do so. Raises OSError."""
        self._syslog = _syslog_lines(self._add, options.get("prefix") or "") if options.get("syslog") else None
        name, self._sink = _place(options, settings)
        self._sink.open()
        self.writer = LogWriter(name, self._sink, self._lines_lost)
        self._wait_until: float | None = None
        # For a start that fails; a process that twistd forks off ends without it.
        atexit.register(self._end)

    def __call__(self, event: LogEvent) -> None:
        """Have `event` written."""
        if self._syslog is not None:
            self._syslog(event)
        elif text := as_text(event):
            self._add(encoded(text))

    def start(self, reactor: Any) -> None:
        """Begin to write: twistd forks no more. Raises OSError."""
        self.writer.start()
        reactor.addSystemEventTrigger("after", "shutdown", self._end)
        if isinstance(self._sink, FileSink) and signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            # As twistd does; it would end the process otherwise.
            signal.signal(signal.SIGUSR1, lambda number, frame: reactor.callFromThread(self.writer.rotate))

    def _end(self) -> None:
        """From now on wait for each line, for at most CLOSE_SECONDS in all."""
        if self._wait_until is None:
            self._wait_until = monotonic() + CLOSE_SECONDS
        self.writer.settle(self._wait_until - monotonic())

    def _add(self, line: bytes) -> None:
        self.writer.add(line)
        if self._wait_until is not None:
            self._end()

    def _lines_lost(self, lines: int) -> bytes:
        line = lines_lost(as_text, lines)
        return line if self._syslog is None else b"%d %b" % (syslog.LOG_WARNING, line)


def of_application_file(publisher: LogPublisher) -> Mapping[str, Any] | None:
    """The options, as far as they can be told from twistd's observer, which then observes no more; None: not at all.

    Who runs an application file does not get twistd's options.
    """
    # Private to Twisted; without them that observer stays.
    for observer in list(getattr(publisher, "_observers", ())):
        out = getattr(observer, "_outFile", None)
        if isinstance(observer, FileLogObserver) and out is not None:
            publisher.removeObserver(observer)
            return {"logfile": out.path if isinstance(out, LogFile) else "-", "nodaemon": True}
    return None


def _place(options: Mapping[str, Any], settings: LoggingSettings) -> tuple[str, Sink]:
    """The log's name for people, and where twistd's options send it."""
    if options.get("syslog"):
        return "syslog", _SyslogSink()
    nodaemon = options.get("nodaemon")
    path = options.get("logfile") or ("-" if nodaemon else _DEFAULT_FILE)
    if path != "-":
        return os.path.basename(path), FileSink(path, settings.max_bytes, settings.max_files)
    if not nodaemon:
        raise SystemExit("kvtwisted: daemons cannot log to standard output")
    # Python has none where the process was started without.
    return "standard output", StreamSink(1) if sys.__stdout__ is not None else FileSink(os.devnull, 0, 0)


def _syslog_lines(add: Callable[[bytes], None], prefix: str) -> Callable[[LogEvent], None]:
    """Makes twistd's lines for syslog, each with its priority before it."""
    observer = SyslogObserver(prefix)
    observer.syslog = lambda priority, text: add(b"%d %b" % (priority, encoded(text)))
    return LegacyLogObserverWrapper(cast(Any, observer.emit))


class _SyslogSink(Sink):
    """Gives lines to the machine's logger, which may be stopped or busy. The C library opens it."""

    def write(self, lines: Sequence[bytes]) -> tuple[int, OSError | None]:
        for line in lines:
            priority, _, text = line.rstrip(b"\n").partition(b" ")
            syslog.syslog(int(priority), text.decode("utf-8"))
        return len(lines), None

    def close(self) -> None:
        syslog.closelog()
