"""The three log files."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from twisted.logger import LogEvent, Logger, LogLevel, LogPublisher
from twisted.python.failure import Failure

from kvtwisted.config.settings import LoggingSettings
from kvtwisted.core.errors import Unavailable
from kvtwisted.observability.log_writer import LogWriters
from kvtwisted.observability.logs import LogFiles, as_json, as_text

PERFORMANCE = "test.performance"
#: Seconds after which a wait has failed.
PATIENCE = 30.0


class Scene:
    """Log files in a folder of their own, and loggers that write to them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = LoggingSettings(directory=str(folder))
        self.publisher = LogPublisher()
        self.log = Logger("test.part", observer=self.publisher)
        self.performance = Logger(PERFORMANCE, observer=self.publisher)
        self.writers = LogWriters()
        self.files = LogFiles(self.publisher, lambda: self.settings, PERFORMANCE, self.writers)

    def open(self, **changes: object) -> None:
        """Open the files, with some settings other than the defaults."""
        self.settings = replace(self.settings, **changes)  # type: ignore[arg-type]
        self.files.open()

    def text(self, name: str) -> str:
        """What is in a log, once all that was logged is there."""
        self.settle()
        return (self.folder / f"{name}.log").read_text()

    def settle(self) -> None:
        """Wait until what was logged is written."""
        for writer in self.writers.all.values():
            writer.settle(PATIENCE)

    def records(self, name: str) -> list[dict[str, object]]:
        """The lines of a log in JSON form; each must be an object."""
        return [json.loads(line) for line in self.text(name).splitlines()]

    def messages(self, name: str) -> list[object]:
        """The messages of a log in JSON form."""
        return [record["message"] for record in self.records(name)]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """One whose files are not open yet, and are closed afterwards."""
    scene = Scene(tmp_path / "logs")
    yield scene
    scene.files.close()


def _failure(message: str = "broken\nin two lines") -> Failure:
    try:
        raise ValueError(message)
    except ValueError:
        return Failure()


def test_folder_and_files_are_made(scene: Scene) -> None:
    """All three exist from the start, empty."""
    scene.open()
    assert sorted(os.listdir(scene.folder)) == ["error.log", "performance.log", "running.log"]
    assert scene.text("running") == scene.text("error") == scene.text("performance") == ""


def test_who_writes_where(scene: Scene) -> None:
    """Running has everything from its level on, error the errors, performance its own namespace alone."""
    scene.open(format="json")
    scene.log.debug("too little")
    scene.log.info("something happened")
    scene.log.warn("take care")
    scene.log.error("went wrong")
    scene.log.critical("went very wrong")
    scene.performance.info("fast")
    assert scene.messages("running") == ["something happened", "take care", "went wrong", "went very wrong"]
    assert scene.messages("error") == ["went wrong", "went very wrong"]
    assert scene.messages("performance") == ["fast"]


def test_event_without_a_level_is_information(scene: Scene) -> None:
    """Events of old Twisted code go to the running log."""
    scene.open(format="json")
    scene.publisher({"log_time": 0.0, "log_format": "legacy"})
    (record,) = scene.records("running")
    assert (record["level"], record["logger"], record["message"]) == ("info", "", "legacy")
    assert scene.text("error") == ""


def test_level_changes_at_once(scene: Scene) -> None:
    """The level is asked for at each event, for the running log only."""
    scene.open(format="json", level="error")
    scene.log.info("one")
    scene.settings = replace(scene.settings, level="debug")
    scene.log.debug("two")
    scene.settings = replace(scene.settings, level="warn")
    scene.log.info("three")
    scene.log.warn("four")
    assert scene.messages("running") == ["two", "four"]


def test_text_form(scene: Scene) -> None:
    """Time, namespace and level, message; one line each."""
    scene.open()
    scene.log.info("{count} things", count=3)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\S+ \[test\.part#info\] 3 things\n", scene.text("running"))


def test_text_form_of_several_lines(scene: Scene) -> None:
    """The lines of a traceback or message after its first are indented, so that a record can be told from the next."""
    scene.open()
    scene.log.failure("it failed", _failure())
    scene.log.info("first\nsecond 2026-01-01T00:00:00+0000 [fake#info] entry")
    lines = scene.text("running").splitlines()
    starts = [line for line in lines if not line.startswith("\t")]
    assert [start.split(" ", 1)[1] for start in starts] == ["[test.part#critical] it failed", "[test.part#info] first"]
    assert any("ValueError: broken" in line for line in lines)
    assert scene.text("error").splitlines() == lines[: len(scene.text("error").splitlines())]


def test_event_that_says_nothing_is_left_out(scene: Scene) -> None:
    """Events without message and failure make no empty line."""
    scene.open()
    scene.log.info()
    scene.log.info("something")
    assert scene.text("running").count("\n") == 1


def test_json_form(scene: Scene) -> None:
    """One object: time in UTC, level, logger, message, and the event's plain fields."""
    scene.open(format="json")
    fields = {"text": "t", "number": 3, "share": 0.5, "flag": True, "nothing": None}
    scene.log.info("{number} things", other=object(), **fields)
    (record,) = scene.records("running")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+00:00", str(record.pop("time")))
    assert record == {"level": "info", "logger": "test.part", "message": "3 things", **fields}


def test_json_field_cannot_replace_what_is_ours(scene: Scene) -> None:
    """A field called like one of the record's own is left out."""
    scene.open(format="json")
    scene.publisher({"log_time": 0.0, "log_format": "{message}", "message": "field", "level": "high", "time": "never"})
    (record,) = scene.records("running")
    assert record == {"time": "1970-01-01T00:00:00+00:00", "level": "info", "logger": "", "message": "field"}


def test_json_traceback_stays_one_record(scene: Scene) -> None:
    """A failure is one line, with its traceback in a field."""
    scene.open(format="json")
    scene.log.failure("it\nfailed", _failure(), doing="set")
    (record,) = scene.records("error")
    assert (record["message"], record["level"], record["doing"]) == ("it\nfailed", "critical", "set")
    assert "ValueError: broken\nin two lines" in str(record["traceback"])
    assert scene.text("error").count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
@pytest.mark.parametrize("message", ["ключ \U0001f600", "lone \udcff surrogate", "nul \0 and \x1b", "\u2028"])
def test_any_text_can_be_logged(scene: Scene, form: str, message: str) -> None:
    """What a client sends or a file is called can be logged; the file is UTF-8, and JSON stays JSON."""
    scene.open(format=form)
    scene.log.info("{message}", message=message)
    scene.settle()
    data = (scene.folder / "running.log").read_bytes()
    assert data.count(b"\n") == 1
    if form == "json":
        assert json.loads(data)["message"] == message
        assert ("ключ" in message) == ("ключ".encode() in data)
    elif "\udcff" in message:
        assert b"lone \\udcff surrogate" in data
    else:
        assert message in data.decode()


@pytest.mark.parametrize("number", [math.inf, -math.inf, math.nan])
def test_json_has_no_infinity(number: float) -> None:
    """Numbers that JSON does not have are told as text."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    event: LogEvent = {"log_time": 0.0, "log_format": "x", "log_level": LogLevel.info, "number": number}
    assert json.loads(as_json(event), parse_constant=refuse)["number"] == str(number)


def test_message_that_cannot_be_formatted_is_still_logged() -> None:
    """A format that names a missing field does not raise."""
    event: LogEvent = {"log_time": 0.0, "log_format": "{missing}", "log_level": LogLevel.info}
    assert "missing" in json.loads(as_json(event))["message"]
    assert "missing" in as_text(event)


def test_empty_folder_name_writes_nothing(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a folder no file is made anywhere."""
    monkeypatch.chdir(tmp_path)
    scene.open(directory="")
    scene.log.error("nobody hears this")
    assert os.listdir(tmp_path) == []


def test_close_ends_writing(scene: Scene) -> None:
    """After `close` nothing is written or raised and no file is open; closing again does no harm."""
    scene.open()
    scene.log.info("one")
    scene.files.close()
    scene.log.info("two")
    scene.files.close()
    assert "two" not in scene.text("running")
    held = [os.path.realpath(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
    assert not [path for path in held if path.startswith(str(scene.folder))]


def test_open_appends(scene: Scene) -> None:
    """The next run keeps what the last one wrote."""
    scene.open(format="json")
    scene.log.info("one")
    scene.files.close()
    scene.files.open()
    scene.log.info("two")
    assert scene.messages("running") == ["one", "two"]


def test_rotation_by_bytes(scene: Scene) -> None:
    """A file that has reached the limit in bytes is put aside; so many old ones are kept."""
    scene.open(max_bytes=1000, max_files=2)
    for n in range(40):
        scene.log.info("{n} {filling}", n=n, filling="é" * 100)
    scene.settle()
    sizes = {name: (scene.folder / name).stat().st_size for name in os.listdir(scene.folder)}
    assert {name for name in sizes if name.startswith("running")} == {"running.log", "running.log.1", "running.log.2"}
    assert all(700 < sizes[name] <= 1000 for name in ("running.log.1", "running.log.2"))
    assert sizes["running.log"] <= 1000
    assert "39 é" in scene.text("running")


def test_warnings_of_the_standard_library(scene: Scene) -> None:
    """What our modules without Twisted log as a warning or an error is in the files, with its traceback."""
    logger = logging.getLogger("kvtwisted.config.test")
    scene.open(format="json")
    logger.info("too little")
    logger.warning("take %s", "care")
    try:
        raise ValueError("broken")
    except ValueError:
        logger.exception("went wrong")
    warning, error = scene.records("running")
    assert (warning["level"], warning["logger"], warning["message"]) == ("warn", "kvtwisted.config.test", "take care")
    assert (error["level"], error["message"]) == ("error", "went wrong")
    assert "ValueError: broken" in str(error["traceback"])
    assert scene.messages("error") == ["went wrong"]
    scene.files.close()
    heard: list[LogEvent] = []
    scene.publisher.addObserver(heard.append)  # type: ignore[arg-type]
    logger.warning("nobody hears this")
    assert heard == []


def test_warnings_of_other_libraries_are_left_alone(scene: Scene) -> None:
    """Only our own loggers are carried over."""
    scene.open()
    logging.getLogger("other").warning("not ours")
    assert scene.text("running") == ""


def test_folder_that_cannot_be_made(scene: Scene, tmp_path: Path) -> None:
    """A file in the way is an error at the start that names key and folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        Unavailable, match=r"^logging\.directory: cannot make the folder .*/file/logs: Not a directory$"
    ):
        scene.open(directory=str(tmp_path / "file" / "logs"))
