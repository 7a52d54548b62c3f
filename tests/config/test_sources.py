"""Files, environment and command line: what they give, and refusals that name the place and the key."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvtwisted.config.schema import KEYS
from kvtwisted.config.sources import environment_pins, flag_pins, load_file, load_runtime_file
from kvtwisted.core.errors import InvalidConfig

TOML = """
[http]
port = 8081

[rocksdb]
path = "/srv/data"
options.sync = true

[eviction]
enabled = false
"""
JSON = (
    '{"http": {"port": 8081}, "rocksdb": {"path": "/srv/data", "options": {"sync": true}}, "eviction.enabled": false}'
)
VALUES = {"http.port": 8081, "rocksdb.path": "/srv/data", "rocksdb.options.sync": True, "eviction.enabled": False}


def write(folder: Path, name: str, content: str | bytes) -> str:
    """The path of a new file in `folder`."""
    path = folder / name
    path.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return str(path)


# Files.


@pytest.mark.parametrize(("name", "content"), [("a.toml", TOML), ("a.json", JSON), ("A.TOML", TOML), ("b.Json", JSON)])
def test_toml_and_json_by_suffix(tmp_path: Path, name: str, content: str) -> None:
    """Both formats give the same values; the suffix decides, in any case."""
    assert load_file(write(tmp_path, name, content)) == VALUES


def test_empty_files(tmp_path: Path) -> None:
    """An empty TOML file sets nothing; an empty JSON file is no JSON."""
    assert load_file(write(tmp_path, "a.toml", "")) == {}
    assert load_file(write(tmp_path, "a.json", "{}")) == {}
    with pytest.raises(InvalidConfig, match="JSON is expected, but the input is empty"):
        load_file(write(tmp_path, "b.json", ""))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.yaml", "", "its name must end in .toml or .json"),
        ("toml", "", "its name must end in .toml or .json"),
        ("a.json", '{\n"http": {"port": 1,}}', "invalid JSON at line 2 column "),
        ("a.json", '{"http": {"port": 1, "port": 2}}', 'duplicate key "port"'),
        ("a.json", '{"http": {"port": NaN}}', "NaN is not JSON"),
        ("a.json", "[1]", "the configuration must be an object, not an array"),
        ("a.json", "[" * 17 + "]" * 17, "objects and arrays may be at most 16 levels deep"),
        ("a.json", b"\xff", "invalid UTF-8 at byte 0"),
        ("a.json", '{"http": {"port": "1"}}', 'http.port must be an integer from 0 to 65535, not "1"'),
        ("a.json", '{"http": {"prt": 1}}', 'unknown key "http.prt"; did you mean http.port?'),
        ("a.toml", "[http]\nport == 1\n", "invalid TOML: Invalid value (at line 2, column 7)"),
        ("a.toml", "[http]\nport = 1\nport = 2\n", "invalid TOML: Cannot overwrite a value (at line 3"),
        ("a.toml", "[http]\nport = nan\n", "http.port must be an integer from 0 to 65535, not NaN"),
        ("a.toml", "[http]\nport = 80.0\n", "http.port must be an integer from 0 to 65535, not 80.0"),
        ("a.toml", "[http]\nport = 2026-01-31\n", "http.port must be an integer from 0 to 65535, not 2026-01-31"),
        ("a.toml", "[http]\nport = 0x" + "f" * 5000, "http.port must be an integer from 0 to 65535, not an integer of"),
        ("a.toml", "[http]\nport = " + "9" * 5000, "invalid TOML: "),
        ("a.toml", "[http]\nprt = 1\n", 'unknown key "http.prt"; did you mean http.port?'),
        ("a.toml", "http = 1\n", "http must be an object, not 1"),
        ("a.toml", "[[http]]\nport = 1\n", "http must be an object, not an array"),
        ("a.toml", "a = " + "[" * 20_000, "invalid TOML: "),
        ("a.toml", b"a = '\xff'", "invalid UTF-8 at byte 5 (0xff)"),
        ("a.toml", b"\xef\xbb\xbf[http]", "the text starts with a byte order mark"),
        ("a.toml", "# " + "x" * (1 << 20), "it is larger than 1048576 bytes"),
    ],
    ids=range(24),
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: str | bytes, reason: str) -> None:
    """The refusal names the file, then the key or the place within it."""
    path = write(tmp_path, name, content)
    with pytest.raises(InvalidConfig) as refused:
        load_file(path)
    assert str(refused.value).startswith(f"configuration file {path}: {reason}")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file and a folder are named with what is wrong."""
    missing, folder = str(tmp_path / "none.toml"), tmp_path / "folder.json"
    folder.mkdir()
    with pytest.raises(InvalidConfig) as refused:
        load_file(missing)
    assert str(refused.value) == f"configuration file {missing}: there is no such file"
    with pytest.raises(InvalidConfig) as refused:
        load_file(str(folder))
    assert str(refused.value) == f"configuration file {folder}: it cannot be read: Is a directory"


def test_reading_leaves_nothing_open(tmp_path: Path) -> None:
    """Files are read before twistd forks: no descriptor may stay open."""
    path = write(tmp_path, "a.toml", TOML)
    before = set(os.listdir("/proc/self/fd"))
    load_file(path)
    load_runtime_file(write(tmp_path, "r.json", JSON))
    assert set(os.listdir("/proc/self/fd")) == before


# The file of run-time updates.


def test_the_runtime_file(tmp_path: Path) -> None:
    """It is JSON whatever its name, and may be missing."""
    assert load_runtime_file(write(tmp_path, "runtime.toml", JSON)) == VALUES
    assert load_runtime_file(str(tmp_path / "none")) == {}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "JSON is expected, but the input is empty"),
        ('{"http": {"po', "invalid JSON at line 1 column 11: "),
        ('{"http": {"gone": 1}}', 'unknown key "http.gone"'),
        ('{"http": {"port": -1}}', "http.port must be an integer from 0 to 65535, not -1"),
    ],
)
def test_a_runtime_file_that_is_refused(tmp_path: Path, content: str, reason: str) -> None:
    """A damaged or outdated one is named, with what to do; it is not silently dropped."""
    path = write(tmp_path, "r.json", content)
    with pytest.raises(InvalidConfig) as refused:
        load_runtime_file(path)
    message = str(refused.value)
    assert message.startswith(f"runtime configuration file {path}: {reason}")
    assert message.endswith(". Correct it, or delete it to undo every change made at run time")


# Environment and command line.


def from_environment(environ: Mapping[str, str]) -> dict[str, object]:
    """The values of `environment_pins` alone."""
    return {name: pin.value for name, pin in environment_pins(environ).items()}


def from_flags(flags: Mapping[str, str | None]) -> dict[str, object]:
    """The values of `flag_pins` alone."""
    return {name: pin.value for name, pin in flag_pins(flags).items()}


@pytest.mark.parametrize("name", KEYS)
def test_every_key_can_be_set_by_text(name: str) -> None:
    """Each key has a variable and a command-line option, and both give the value its type."""
    key = KEYS[name]
    text = str(key.default).lower() if key.type == "boolean" else str(key.default)
    assert from_environment({key.env: text}) == {name: key.default}
    assert from_flags({key.flag: text}) == from_flags({key.flag[2:]: text}) == {name: key.default}


def test_pins_say_what_set_them() -> None:
    """Each value carries the variable or option to name when somebody tries to change it."""
    pins = environment_pins({"KV_HTTP_PORT": "1", "KV_ROCKSDB_OPTIONS": '{"sync": true}'})
    assert pins["http.port"] == (1, "environment variable KV_HTTP_PORT")
    assert pins["rocksdb.options.sync"] == (True, "environment variable KV_ROCKSDB_OPTIONS")
    assert flag_pins({"http-port": "2"})["http.port"] == (2, "command-line option --http-port")


def test_options_as_one_object() -> None:
    """KV_ROCKSDB_OPTIONS and its option take a JSON object, beside variables for other keys of it."""
    text = '{"sync": true, "write_buffer_size": 65536}'
    expected = {"rocksdb.options.sync": True, "rocksdb.options.write_buffer_size": 65536}
    assert from_environment({"KV_ROCKSDB_OPTIONS": text}) == expected
    assert from_flags({"rocksdb-options": text}) == expected
    both = from_environment({"KV_ROCKSDB_OPTIONS": text, "KV_ROCKSDB_OPTIONS_COMPRESSION": "zstd"})
    assert both == {**expected, "rocksdb.options.compression": "zstd"}


def test_options_that_are_not_given() -> None:
    """Twisted's usage gives None for an option that was not on the command line."""
    assert from_flags({"http-port": None, "grpc-port": "7"}) == {"grpc.port": 7}


def test_variables_of_others_are_left_alone() -> None:
    """Only names that begin with one of our sections are looked at."""
    assert (
        from_environment({"KV_SOMETHING": "x", "KV_HTTP": "x", "KV": "x", "HTTP_PORT": "1", "kv_http_port": "1"}) == {}
    )


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"KV_HTTP_PROT": "1"}, 'unknown environment variable "KV_HTTP_PROT"; did you mean KV_HTTP_PORT?'),
        (
            {"KV_ROCKSDB_OPTION": "{}"},
            'unknown environment variable "KV_ROCKSDB_OPTION"; did you mean KV_ROCKSDB_OPTIONS?',
        ),
        (
            {"KV_HTTP_PORT": "tcp://10.0.0.1:80"},
            'environment variable KV_HTTP_PORT: http.port must be an integer from 0 to 65535, not "tcp://10.0.0.1:80"',
        ),
        (
            {"KV_HTTP_PORT": ""},
            'environment variable KV_HTTP_PORT: http.port must be an integer from 0 to 65535, not ""',
        ),
        ({"KV_ROCKSDB_PATH": "\udcff"}, "environment variable KV_ROCKSDB_PATH: rocksdb.path must be "),
        ({"KV_ROCKSDB_OPTIONS": "sync"}, "environment variable KV_ROCKSDB_OPTIONS: invalid JSON at line 1 column 1: "),
        (
            {"KV_ROCKSDB_OPTIONS": "[]"},
            "environment variable KV_ROCKSDB_OPTIONS: rocksdb.options must be an object, not ",
        ),
        (
            {"KV_ROCKSDB_OPTIONS": '{"sync": 1}'},
            "environment variable KV_ROCKSDB_OPTIONS: rocksdb.options.sync must be true or false, not 1",
        ),
        (
            {"KV_ROCKSDB_OPTIONS": '{"sync": true}', "KV_ROCKSDB_OPTIONS_SYNC": "true"},
            "environment variable KV_ROCKSDB_OPTIONS_SYNC: rocksdb.options.sync is also set by the "
            "environment variable KV_ROCKSDB_OPTIONS",
        ),
    ],
)
def test_variables_that_are_refused(environ: Mapping[str, str], message: str) -> None:
    """The refusal names the variable and then the key."""
    with pytest.raises(InvalidConfig) as refused:
        from_environment(environ)
    assert str(refused.value).startswith(message)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"http-prot": "1"}, 'unknown command-line option "--http-prot"; did you mean --http-port?'),
        (
            {"eviction-enabled": "maybe"},
            'command-line option --eviction-enabled: eviction.enabled must be true or false, not "maybe"',
        ),
        ({"rocksdb-options": "{"}, "command-line option --rocksdb-options: invalid JSON at line 1 column 2: "),
    ],
)
def test_command_line_options_that_are_refused(flags: Mapping[str, str], message: str) -> None:
    """The refusal names the option and then the key."""
    with pytest.raises(InvalidConfig) as refused:
        from_flags(flags)
    assert str(refused.value).startswith(message)
