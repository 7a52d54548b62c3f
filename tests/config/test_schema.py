"""The table of keys: what it holds, and how names and values are checked."""

from __future__ import annotations

import dataclasses
import math
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.config.schema import KEYS, SECTIONS, check, parse_text
from kvtwisted.config.settings import Settings
from kvtwisted.core.errors import InvalidConfig
from kvtwisted.core.options import EngineOptions

INTEGERS = [name for name, key in KEYS.items() if key.type == "integer"]
BOOLEANS = [name for name, key in KEYS.items() if key.type == "boolean"]
STRINGS = [name for name, key in KEYS.items() if key.type == "string"]
CHOICES = [name for name in STRINGS if KEYS[name].choices]
NOT_INTEGERS: list[object] = [True, 80.0, math.nan, math.inf, "80", None, [80], {"value": 80}, date(2026, 1, 1)]


def refusal(name: str, value: object) -> str:
    """The message with which a document's value is refused; it always begins with the key."""
    with pytest.raises(InvalidConfig) as refused:
        check(name, value)
    assert str(refused.value).startswith(f"{name} must be ")
    return str(refused.value)


# The table.


def test_the_table_holds_every_declared_field_in_order() -> None:
    """Sections are walked as declared, rocksdb.options included, and nothing is left out."""
    names = [key.name for key in KEYS.values()]
    assert names == list(KEYS)
    assert [name for name in names if name.startswith("eviction.")] == [
        f"eviction.{field.name}" for field in dataclasses.fields(Settings().eviction)
    ]
    assert [name for name in names if name.startswith("rocksdb.options.")] == [
        f"rocksdb.options.{field.name}" for field in dataclasses.fields(EngineOptions)
    ]
    assert list(SECTIONS)[:3] == ["rocksdb", "rocksdb.options", "storage"]


def test_one_key_in_full() -> None:
    """A key carries its declaration, and the names of its variable and its command-line option."""
    key = KEYS["http.port"]
    assert (key.section, key.type, key.default, key.low, key.high) == ("http", "integer", 8080, 0, 65535)
    assert (key.choices, key.live, key.env, key.flag) == ((), False, "KV_HTTP_PORT", "--http-port")
    assert key.help.startswith("TCP port")
    sync = KEYS["rocksdb.options.sync"]
    assert (sync.section, sync.live) == ("rocksdb.options", True)
    assert (sync.env, sync.flag) == ("KV_ROCKSDB_OPTIONS_SYNC", "--rocksdb-options-sync")


def test_variables_and_options_tell_all_keys_apart() -> None:
    """No two keys share an environment variable or a command-line option, nor with a section."""
    assert len({key.env for key in KEYS.values()} | {"KV_ROCKSDB_OPTIONS"}) == len(KEYS) + 1
    assert len({key.flag for key in KEYS.values()} | {"--rocksdb-options"}) == len(KEYS) + 1


@pytest.mark.parametrize("name", KEYS)
def test_declarations_are_complete(name: str) -> None:
    """Each key is explained, every integer has both limits, and the default is a value that the key accepts."""
    key = KEYS[name]
    assert key.help.endswith(".")
    assert (key.low < key.high) == (key.type == "integer")
    assert check(name, key.default) == key.default


# Values in documents.


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_limits_are_inclusive(name: str) -> None:
    """Both limits are accepted; one step beyond either is refused with the limits and the value."""
    key = KEYS[name]
    assert check(name, key.low) == key.low
    assert check(name, key.high) == key.high
    for beyond in (key.low - 1, key.high + 1):
        assert refusal(name, beyond) == f"{name} must be an integer from {key.low} to {key.high}, not {beyond}"


@pytest.mark.parametrize("value", NOT_INTEGERS, ids=repr)
def test_integers_are_strict(value: object) -> None:
    """A boolean, a float even when whole, NaN, text and the rest are not integers."""
    refusal("eviction.disk_usage_threshold", value)


@pytest.mark.parametrize("name", BOOLEANS)
@pytest.mark.parametrize("value", [0, 1, "true", None, 1.0], ids=repr)
def test_booleans_are_strict(name: str, value: object) -> None:
    """Only true and false are booleans in a document."""
    assert refusal(name, value).startswith(f"{name} must be true or false, not ")


@pytest.mark.parametrize("name", CHOICES)
def test_choices(name: str) -> None:
    """Every choice is accepted; another word, another case or the empty string is refused with the list."""
    for choice in KEYS[name].choices:
        assert check(name, choice) == choice
        refusal(name, choice.upper())
    assert refusal(name, "") == f'{name} must be one of {", ".join(KEYS[name].choices)}, not ""'


@pytest.mark.parametrize("name", sorted(set(STRINGS) - set(CHOICES)))
@pytest.mark.parametrize("value", [7, True, None, ["x"], "a\0b", "x\ud800", "x" * 4097], ids=ascii)
def test_strings_are_strict(name: str, value: object) -> None:
    """Strings are text without NUL and lone surrogates, up to a length."""
    refusal(name, value)
    assert check(name, "x" * 4096) == "x" * 4096


def test_few_strings_may_be_empty() -> None:
    """An empty host would listen on every address, most empty paths mean nothing: they are refused."""
    may_be_empty = {name for name in STRINGS if KEYS[name].default == ""} | {"logging.directory"}
    for name in may_be_empty:
        assert check(name, "") == ""
    for name in set(STRINGS) - may_be_empty:
        refusal(name, "")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("8080", '"8080"'),
        (True, "true"),
        (None, "null"),
        (80.5, "80.5"),
        ({"a": 1}, "an object"),
        ([1], "an array"),
        (date(2026, 1, 31), "2026-01-31"),
        ("x" * 1000, f'"{"x" * 60}"... (1000 characters)'),
        ("\x1b[2J\n", '"\\u001b[2J\\n"'),
        (1 << 20_000, "an integer of 20001 bits"),
    ],
    ids=range(10),
)
def test_messages_show_what_was_sent(value: object, shown: str) -> None:
    """The value is shown as JSON would write it, short and printable."""
    assert refusal("http.port", value) == f"http.port must be an integer from 0 to 65535, not {shown}"


# Values as text.


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("8081", 8081), ("065", 65)])
def test_integers_as_text(text: str, value: int) -> None:
    """Decimal digits make an integer."""
    assert parse_text("http.port", text) == value
    assert parse_text("rocksdb.options.max_open_files", "-1") == -1


@pytest.mark.parametrize("text", ["", " 80", "80 ", "8_0", "0x50", "80.0", "+80", "٨٠", "1e3", "65536", "9" * 5000])
def test_what_is_no_integer_as_text(text: str) -> None:
    """White space, underscores, other bases, other digits and values beyond the limit are refused by name."""
    with pytest.raises(InvalidConfig, match=r"^http\.port must be an integer from 0 to 65535, not "):
        parse_text("http.port", text)


@pytest.mark.parametrize("text", ["true", "TRUE", "1", "yes", "On", "false", "False", "0", "NO", "off"])
def test_booleans_as_text(text: str) -> None:
    """The usual words for true and false, in any case."""
    assert parse_text("eviction.enabled", text) is (text.lower() in ("true", "1", "yes", "on"))


@pytest.mark.parametrize("text", ["", "y", "2", "enabled", " true"])
def test_what_is_no_boolean_as_text(text: str) -> None:
    """Any other word is refused by name."""
    with pytest.raises(InvalidConfig, match=r"^eviction\.enabled must be true or false, not "):
        parse_text("eviction.enabled", text)


def test_strings_as_text_are_taken_as_they_are() -> None:
    """Text stays text, also when it looks like a number; choices are checked."""
    assert parse_text("rocksdb.path", "123") == "123"
    with pytest.raises(InvalidConfig, match=r"^logging\.format must be one of text, json, not \"xml\"$"):
        parse_text("logging.format", "xml")


@pytest.mark.parametrize("check_value", [check, parse_text])
def test_unknown_keys_suggest_the_nearest(check_value: Any) -> None:
    """A name that does not exist is refused with the name that was probably meant, if one is near."""
    with pytest.raises(InvalidConfig, match=r'^unknown key "http\.prot"; did you mean http\.port\?$'):
        check_value("http.prot", "1")
    with pytest.raises(InvalidConfig, match=r'^unknown key "zzz"$'):
        check_value("zzz", "1")


@given(name=st.sampled_from(sorted(KEYS)), value=st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_accepted_values_have_the_declared_type(name: str, value: object) -> None:
    """Whatever is sent: either it is refused by name, or it comes back unchanged and of exactly the key's type."""
    try:
        accepted = check(name, value)
    except InvalidConfig:
        refusal(name, value)
    else:
        assert accepted is value
        assert type(accepted) is {"boolean": bool, "integer": int, "string": str}[KEYS[name].type]
