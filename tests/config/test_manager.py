"""Updates at run time: what they change and persist, what awaits a restart, and what a restart finds."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtwisted.config.schema import KEYS, flatten, to_document
from kvtwisted.core.errors import InvalidConfig

from .sites import INTERVAL, PORT, Site

#: These are changed together, or refused.
TLS_FILES = {
    f"{listener}.tls_{name}": [f"{listener}.tls_certificate", f"{listener}.tls_private_key"]
    for listener in ("grpc", "http")
    for name in ("certificate", "private_key", "client_ca")
}


def another_value(name: str) -> object:
    """A value of the key that is not its default and goes with the defaults of the others."""
    key = KEYS[name]
    if key.type == "boolean":
        return not key.default
    if key.type == "integer":
        return key.default + 1 if key.default != key.high else key.low
    if name.endswith(".host"):
        return "localhost"  # others may reach it anywhere else, which needs authentication
    if name == "http.cors_origins":
        return "https://app.example.com"
    return next((choice for choice in key.choices if choice != key.default), "/another")


def test_a_live_key_takes_effect_at_once(site: Site) -> None:
    """It is configured and running when update returns, and no restart is named."""
    manager = site.load()
    assert manager.update({"eviction": {"check_interval": 5}}) == []
    assert manager.settings.eviction.check_interval == manager.running.eviction.check_interval == 5


def test_other_keys_await_a_restart(site: Site) -> None:
    """They are configured, named until the restart, and running after it."""
    manager = site.load()
    assert manager.update({PORT: 81, "rocksdb": {"path": "/x"}, INTERVAL: 5}) == [PORT, "rocksdb.path"]
    assert (manager.settings.http.port, manager.running.http.port) == (81, 8080)
    assert manager.update({INTERVAL: 6}) == [PORT, "rocksdb.path"]
    assert manager.update({"rocksdb.path": "./data"}) == [PORT]
    restarted = site.load()
    assert (restarted.running.http.port, restarted.running.eviction.check_interval) == (81, 6)
    assert restarted.update({}) == []


@pytest.mark.parametrize("name", [name for name, key in KEYS.items() if key.choices != (key.default,)])
def test_every_key_can_be_changed(site: Site, name: str) -> None:
    """A changed key is shown and persisted; a live one runs, any other is named; it is there after a restart."""
    key, value = KEYS[name], another_value(name)
    changes = {name: value, **dict.fromkeys(TLS_FILES.get(name, ()), value)}
    manager = site.load()
    assert manager.update(changes) == ([] if key.live else sorted(changes))
    assert flatten(json.loads(manager.show()))[name] == value
    assert flatten(to_document(manager.running))[name] == (value if key.live else key.default)
    assert site.load().settings == manager.settings


def test_the_whole_document_can_be_sent_back(tmp_path: Path) -> None:
    """What show gives is accepted as it is; only what differs from the layers below is persisted."""
    site = Site(tmp_path, '{"http": {"port": 81}}')
    manager = site.load({"KV_LOGGING_LEVEL": "warn"})
    document = json.loads(manager.show())
    assert manager.update(document) == []
    assert site.persisted() is None
    document["eviction"]["batch_size"] = 7
    assert manager.update(document) == []
    assert site.persisted() == {"eviction": {"batch_size": 7}}


def test_show_is_one_line_of_nested_json(site: Site) -> None:
    """GetConfig's text has every key, accepted changes included, and Unicode as it is."""
    manager = site.load()
    manager.update({"rocksdb.path": "/données"})
    text = manager.show()
    assert "\n" not in text
    assert '"path": "/données"' in text
    assert list(flatten(json.loads(text))) == list(KEYS)


def test_what_was_persisted_stays_persisted(tmp_path: Path) -> None:
    """A key set back to the file's value stays an explicit choice; equal values of other keys are not written."""
    site = Site(tmp_path, '{"eviction": {"check_interval": 30}}')
    manager = site.load()
    manager.update({"eviction": {"check_interval": 5, "batch_size": 100}})
    assert site.persisted() == {"eviction": {"check_interval": 5}}
    manager.update({INTERVAL: 30})
    assert site.persisted() == {"eviction": {"check_interval": 30}}


def test_an_update_without_change_writes_nothing(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """It succeeds even where nothing could be saved."""
    manager = site.load()
    manager.update({INTERVAL: 5})
    monkeypatch.setattr(os, "replace", lambda *_: pytest.fail("nothing is to be saved"))
    assert manager.update({INTERVAL: 5, PORT: 8080}) == []


def test_the_runtime_file_is_readable(site: Site) -> None:
    """It is indented JSON with one object per section, in the order of declaration."""
    site.load().update({"logging.level": "warn", "rocksdb": {"options.sync": True, "path": "/x"}})
    assert site.runtime.read_text() == (
        '{\n  "rocksdb": {\n    "path": "/x",\n    "options": {\n      "sync": true\n    }\n  },\n'
        '  "logging": {\n    "level": "warn"\n  }\n}\n'
    )


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.dictionaries(
            st.sampled_from([INTERVAL, PORT, "grpc.port", "logging.level", "rocksdb.options.sync"]),
            st.integers(0, 3) | st.booleans() | st.sampled_from(["info", "warn", "loud"]),
            max_size=3,
        ),
        max_size=8,
    )
)
def test_any_history_survives_a_restart(
    tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, object]]
) -> None:
    """After any updates, refused ones included, a restart runs exactly what was shown."""
    site = Site(tmp_path_factory.mktemp("site"))
    manager = site.load()
    for document in history:
        before = manager.settings
        try:
            pending = manager.update(document)
        except InvalidConfig:
            assert manager.settings == before
            continue
        shown, running = flatten(to_document(manager.settings)), flatten(to_document(manager.running))
        assert shown == {**flatten(to_document(before)), **document}
        assert pending == sorted(name for name in KEYS if shown[name] != running[name])
        assert not any(KEYS[name].live for name in pending)
    assert site.load().running == manager.settings
