"""The table of keys: what it holds, how names and values are checked, and the three forms of a configuration."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import date
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvtwisted.config.schema import KEYS, SECTIONS, Key, build, check, flatten, parse_text, to_document
from kvtwisted.config.settings import Settings
from kvtwisted.core.errors import InvalidConfig
from kvtwisted.core.options import EngineOptions

INTEGERS = [name for name, key in KEYS.items() if key.type == "integer"]
BOOLEANS = [name for name, key in KEYS.items() if key.type == "boolean"]
STRINGS = [name for name, key in KEYS.items() if key.type == "string"]
CHOICES = [name for name in STRINGS if KEYS[name].choices]
NOT_INTEGERS: list[object] = [True, 80.0, math.nan, math.inf, "80", None, [80], {"value": 80}, date(2026, 1, 1)]


def values_of(key: Key) -> st.SearchStrategy[object]:
    """Values that the key accepts by itself, and HTTP paths that the rules between keys mostly accept too."""
    if key.choices:
        return st.sampled_from(key.choices)
    if key.type == "boolean":
        return st.booleans()
    if key.type == "integer":
        return st.integers(key.low, key.high)
    if key.name in ("monitoring.metrics_path", "monitoring.health_path"):
        return st.from_regex(r"/[a-z._-]{1,9}", fullmatch=True)
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)


FLAT = st.fixed_dictionaries({}, optional={name: values_of(key) for name, key in KEYS.items()})


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
    assert (key.low is not None and key.high is not None) == (key.type == "integer")
    assert check(name, key.default) == key.default


# Values in documents.


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_limits_are_inclusive(name: str) -> None:
    """Both limits are accepted; one step beyond either is refused with the limits and the value."""
    key = KEYS[name]
    assert key.low is not None
    assert key.high is not None
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


def test_only_the_log_folder_may_be_empty() -> None:
    """An empty host would listen on every address, an empty path means nothing: they are refused."""
    assert check("logging.directory", "") == ""
    for name in set(STRINGS) - {"logging.directory"}:
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


# The three forms.


@pytest.mark.parametrize(
    "document",
    [
        {"rocksdb": {"options": {"sync": True}}, "http": {"port": 1}},
        {"rocksdb.options.sync": True, "http.port": 1},
        {"rocksdb": {"options.sync": True}, "http": {"port": 1}},
        {"rocksdb.options": {"sync": True}, "http.port": 1},
    ],
)
def test_names_may_be_dotted_at_any_level(document: Mapping[str, object]) -> None:
    """Nested objects and dotted names say the same."""
    assert flatten(document) == {"rocksdb.options.sync": True, "http.port": 1}


@pytest.mark.parametrize(
    ("document", "section"),
    [
        ({"http": {"port": 1}, "http.port": 2}, "http"),
        ({"http": {"port": 1}, "http.host": "::1"}, "http"),
        ({"http.port": 2, "http": {}}, "http"),
        ({"rocksdb": {"options": {"sync": True}}, "rocksdb.options.sync": False}, "rocksdb"),
        ({"rocksdb": {"options": {"sync": True}, "options.sync": False}}, "rocksdb.options"),
        ({"rocksdb.options": {"sync": True}, "rocksdb.options.sync": False}, "rocksdb.options"),
        ({"rocksdb": {"path": "x"}, "rocksdb.options": {"sync": True}}, "rocksdb"),
    ],
)
def test_a_section_in_both_forms_is_refused(document: Mapping[str, object], section: str) -> None:
    """One section as an object and in dotted names is ambiguous, whatever it holds."""
    with pytest.raises(InvalidConfig) as refused:
        flatten(document)
    assert str(refused.value) == f"{section} is given twice, as an object and in dotted names"


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "the configuration must be an object, not an array"),
        (None, "the configuration must be an object, not null"),
        ("{}", 'the configuration must be an object, not "{}"'),
        ({"http": 8080}, "http must be an object, not 8080"),
        ({"rocksdb": {"options": [1]}}, "rocksdb.options must be an object, not an array"),
        ({"rocksdb.options": None}, "rocksdb.options must be an object, not null"),
        ({"htpp": {"port": 1}}, 'unknown key "htpp"; did you mean http?'),
        ({"eviction": {"batchsize": 1}}, 'unknown key "eviction.batchsize"; did you mean eviction.batch_size?'),
        ({"rocksdb": {"options": {"snyc": 1}}}, 'unknown key "rocksdb.options.snyc"; did you mean rocksdb.options.sync?'),
        ({"http": {"port": 1, "": 2}}, 'unknown key "http."; did you mean http?'),
        ({"": 1}, 'unknown key ""'),
        ({"http.port.": 1}, 'unknown key "http.port."; did you mean http.port?'),
        ({5: 1}, 'unknown key "5"'),
    ],
)
def test_documents_that_are_refused(document: object, message: str) -> None:
    """Non-objects where a section stands and unknown names are refused by name."""
    with pytest.raises(InvalidConfig) as refused:
        flatten(document)
    assert str(refused.value) == message


def test_an_object_in_place_of_a_value_is_refused_by_its_check() -> None:
    """A key below a key does not exist; the value's type is what is wrong."""
    with pytest.raises(InvalidConfig, match=r"^http\.port must be an integer from 0 to 65535, not an object$"):
        build(flatten({"http": {"port": {"number": 1}}}))


def test_a_hostile_name_is_cheap_and_cut() -> None:
    """A name of a million dots is refused at once, in a short message."""
    with pytest.raises(InvalidConfig) as refused:
        flatten({"a." * 1_000_000: 1})
    assert len(str(refused.value)) < 200


def test_nothing_gives_the_defaults() -> None:
    """Without values the settings are as declared."""
    assert build({}) == Settings()


def test_build_checks_each_value() -> None:
    """Settings are never made from a value that its key refuses."""
    with pytest.raises(InvalidConfig, match=r"^http\.port must be "):
        build({"http.port": "8080"})
    with pytest.raises(InvalidConfig, match=r'^unknown key "http"'):
        build({"http": {"port": 1}})


def test_the_document_has_the_order_of_declaration() -> None:
    """GetConfig shows sections and keys as they are declared, whatever the order they were set in."""
    document = to_document(build({"logging.level": "warn", "rocksdb.path": "/x"}))
    assert list(flatten(document)) == list(KEYS)
    assert document["rocksdb"]["options"]["sync"] is False
    assert document["logging"]["level"] == "warn"


@given(FLAT)
def test_settings_survive_the_round_trip(flat: dict[str, object]) -> None:
    """Document, JSON text, flat values and settings carry the same; what was set is what comes back."""
    try:
        settings = build(flat)
    except InvalidConfig:
        assume(False)
    document = to_document(settings)
    assert json.loads(json.dumps(document)) == document
    back = flatten(document)
    assert build(back) == settings
    assert back == {name: flat.get(name, key.default) for name, key in KEYS.items()}


@given(name=st.sampled_from(sorted(KEYS)), value=st.none() | st.booleans() | st.integers() | st.floats() | st.text())
def test_accepted_values_have_the_declared_type(name: str, value: object) -> None:
    """Whatever is sent: either it is refused by name, or it comes back unchanged and of exactly the key's type."""
    try:
        accepted = check(name, value)
    except InvalidConfig as refused:
        assert str(refused).startswith(name)
    else:
        assert accepted is value
        assert type(accepted) is {"boolean": bool, "integer": int, "string": str}[KEYS[name].type]
