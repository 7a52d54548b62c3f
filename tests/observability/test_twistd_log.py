"""twistd's own log: where its options send it, and how it looks there."""

from __future__ import annotations

import io
import syslog
from pathlib import Path

import pytest
from twisted.logger import Logger, LogPublisher, textFileLogObserver
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from kvtwisted.config.settings import LoggingSettings
from kvtwisted.observability.twistd_log import TwistdLog, of_application_file


def test_a_file(tmp_path: Path) -> None:
    """What is logged before the log is started is written at the latest at the end, in twistd's form."""
    path = tmp_path / "kv.log"
    log = TwistdLog({"logfile": str(path)}, LoggingSettings())
    Logger("test", observer=log).info("two\nlines")
    assert path.read_text() == ""
    log.writer.settle(30)
    assert path.read_text().partition(" ")[2] == "[test#info] two\n\tlines\n"


def test_syslog(monkeypatch: pytest.MonkeyPatch) -> None:
    """--syslog: lines with the priorities that twistd gives them, one for each line of a message."""
    told: list[tuple[int, str]] = []
    monkeypatch.setattr(syslog, "syslog", lambda priority, text: told.append((priority, text)))
    log = TwistdLog({"syslog": True, "prefix": "kv"}, LoggingSettings())
    logger = Logger("test", observer=log)
    logger.info("one\ntwo")
    logger.failure("it failed", Failure(ValueError("broken")))
    log.writer.settle(30)
    assert [priority for priority, _ in told[:3]] == [syslog.LOG_INFO, syslog.LOG_INFO, syslog.LOG_ALERT]
    assert [text.partition("] ")[2] for _, text in told[:3]] == ["one", "\ttwo", "it failed"]


def test_daemons_have_no_standard_output() -> None:
    """As twistd says it."""
    with pytest.raises(SystemExit, match="daemons cannot log to standard output"):
        TwistdLog({"logfile": "-"}, LoggingSettings())


def test_the_observer_of_an_application_file(tmp_path: Path) -> None:
    """It is taken off, and says where it wrote; other observers stay."""
    file = LogFile("kv.log", str(tmp_path))
    publisher = LogPublisher(textFileLogObserver(file))
    assert of_application_file(publisher) == {"logfile": str(tmp_path / "kv.log"), "nodaemon": True}
    assert of_application_file(publisher) is None
    assert of_application_file(LogPublisher(textFileLogObserver(io.StringIO()))) == {"logfile": "-", "nodaemon": True}
    file.close()
