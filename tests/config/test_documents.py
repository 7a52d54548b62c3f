"""The three forms of a configuration: nested documents, flat values, settings."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from kvtwisted.config.schema import KEYS, Key, build, flatten, to_document
from kvtwisted.config.settings import Settings
from kvtwisted.core.errors import InvalidConfig
from tests.support.properties import sampled


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
        (
            {"rocksdb": {"options": {"snyc": 1}}},
            'unknown key "rocksdb.options.snyc"; did you mean rocksdb.options.sync?',
        ),
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


@sampled(25, 200, given(FLAT))
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
