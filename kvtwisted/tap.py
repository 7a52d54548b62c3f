"""`twistd kvtwisted`: the command line's options, and makeService.

The global reactor is named here and nowhere else.
"""

# ruff: noqa: E402 - see open_closed_streams
from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, ClassVar, cast

from twisted.application.service import IService, MultiService
from twisted.logger import ILogObserver, Logger, globalLogPublisher
from twisted.python import usage
from twisted.python.components import Componentized

from .reactor.process import calm_collector, keep_true_time, open_closed_streams

# Here, since the reactor opens descriptors of its own as soon as it is imported.
open_closed_streams()

from twisted.internet import reactor

from . import __version__
from .config.manager import DEFAULT_RUNTIME_FILE, ConfigManager
from .config.schema import KEYS
from .config.settings import LoggingSettings
from .core.errors import KvError
from .observability.log_writer import LogWriters
from .observability.twistd_log import LABEL, TwistdLog, of_application_file
from .server.assembly import Server

_log = Logger(namespace="kvtwisted")


def _shown(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


class Options(usage.Options):
    """Options of `twistd kvtwisted`: where the configuration is, and one flag for each of its keys."""

    synopsis = "[options]"
    longdesc = (
        "A persistent key-value server: RocksDB behind gRPC and HTTP. Values come from the configuration file, then "
        "run-time updates, then KV_* environment variables, then these flags; the later wins. "
        "Without any option it serves HTTP on 127.0.0.1:8080 and gRPC on 127.0.0.1:50051 and keeps its data in ./data."
    )
    optParameters: ClassVar[list[list[Any]]] = [
        ["config", "c", None, "Configuration file, TOML or JSON by its suffix."],
        ["runtime-config", None, None, "File of run-time updates; by default it stands beside the configuration file."],
        ["rocksdb-options", None, None, "All rocksdb.options at once, as a JSON object."],
        *([key.flag[2:], None, None, f"{key.help} [{_shown(key.default)}]"] for key in KEYS.values()),
    ]

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"kvtwisted {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """Read the configuration; what is wrong with it ends the command with one line."""
        ours = ("config", "runtime-config")
        flags = {f"--{name}": text for name, text in self.items() if name not in ours and text is not None}
        runtime_path = self["runtime-config"]
        if runtime_path is None and self["config"] is None and self.parent is not None:
            # A daemon's relative folders lie in its --rundir, to which twistd changes only after this.
            runtime_path = os.path.join(self.parent.get("rundir", "."), DEFAULT_RUNTIME_FILE)
        try:
            self.manager = ConfigManager.load(self["config"], os.environ, flags, runtime_path)
        except (KvError, OSError) as error:
            raise SystemExit(f"kvtwisted: {error}") from None


class _Command(MultiService):
    """The server as a command: what stops it from starting is one line on standard error and exit status 1."""

    def __init__(
        self,
        reactor: Any,
        server: Server,
        twistd: Mapping[str, Any],
        logging: LoggingSettings,
        writers: LogWriters,
    ) -> None:
        """`twistd` is its options, to which it adds while it starts; `writers` are those of the server."""
        super().__init__()
        self._reactor = reactor
        self._server = server
        server.setServiceParent(self)
        self._twistd = twistd
        self._logging = logging
        self._writers = writers
        self._log: TwistdLog | None = None

    def setServiceParent(self, parent: Any) -> None:
        """Set `parent`; if that is twistd's application, give it our log. Ends the process if that cannot be opened."""
        super().setServiceParent(parent)
        # What runs an application file keeps twistd's options to itself.
        if isinstance(parent, Componentized) and self._twistd and not self._twistd.get("logger"):
            parent.setComponent(ILogObserver, self._open_log(self._twistd))

    def privilegedStartService(self) -> None:
        """Start to write twistd's log, since it forks no more, and take the ports while it may have any."""
        if self._log is None:
            options = of_application_file(globalLogPublisher)
            if options is not None:
                globalLogPublisher.addObserver(self._open_log(options))
        if self._log is not None:
            self._log.start(self._reactor)
        with self._ending():
            super().privilegedStartService()

    def _open_log(self, options: Mapping[str, Any]) -> TwistdLog:
        try:
            self._log = TwistdLog(options, self._logging)
        except OSError as error:
            raise SystemExit(f"kvtwisted: twistd's log cannot be opened: {error}") from None
        self._writers.add(LABEL, self._log.writer)
        return self._log

    def startService(self) -> None:
        """Start the server, or end the process. From now on SIGHUP reads tokens and certificates again."""
        keep_true_time(self._reactor)
        # Before anything shows that the server runs: without a handler this signal ends the process.
        signal.signal(signal.SIGHUP, lambda number, frame: self._reactor.callFromThread(self._server.reload))
        with self._ending():
            super().startService()
        calm_collector()
        # Who starts a daemon may look into its log when the command has ended.
        self._writers.settle()
        # Once it runs, the reactor has its own handlers.
        self._reactor.callWhenRunning(self._take_signals)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        try:
            yield
        except (KvError, OSError) as error:
            message = self._server.explained(error)
            if not self._twistd.get("nodaemon"):
                # A daemon's standard error leads nowhere.
                _log.critical("it does not start: {message}", message=message)
                self._writers.settle()
            self._clean_up(f"kvtwisted: {error}")
            raise SystemExit(f"kvtwisted: {message}") from None

    def _take_signals(self) -> None:
        """Let the first signal stop the reactor, and no other: Twisted shows a traceback for a second one.

        One that is ignored stays so: a shell has its background jobs ignore SIGINT.
        """
        handlers = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        stops = {number: stop for number, stop in handlers.items() if callable(stop)}
        came: list[int] = []

        def stop_once(number: int, frame: FrameType | None) -> None:
            came.append(number)
            if len(came) == 1:
                stops[number](number, frame)

        for number in stops:
            signal.signal(number, stop_once)

    def _clean_up(self, message: str) -> None:
        """What twistd does only after ordinary exceptions, which it shows with a traceback."""
        pidfile, status = self._twistd.get("pidfile"), self._twistd.get("statusPipe")
        if pidfile and os.path.exists(pidfile):
            os.unlink(pidfile)
        if status is not None:
            # The process that the user started waits for this, and shows what it can read at once: 100 bytes.
            os.write(status, b"1 " + message.encode("ascii", "backslashreplace")[:98])


def makeService(options: Options) -> IService:
    """The service that twistd runs. Only constructs: twistd may still fork."""
    writers = LogWriters()
    server = Server(reactor, options.manager, writers)
    return cast(IService, _Command(reactor, server, options.parent or {}, options.manager.running.logging, writers))
