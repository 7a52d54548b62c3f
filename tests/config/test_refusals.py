"""Updates that are refused, or cannot be saved: nothing changes, and nothing is left behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

import pytest

from kvtwisted.config.manager import ConfigManager
from kvtwisted.config.settings import Settings
from kvtwisted.core.errors import InvalidConfig, StorageError, StorageFull, UnusablePath

from .sites import INTERVAL, PORT, Site, refusal


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({INTERVAL: 5, PORT: "81"}, 'http.port must be an integer from 0 to 65535, not "81"'),
        ({INTERVAL: 5, "http.prot": 1}, 'unknown key "http.prot"; did you mean http.port?'),
        ({INTERVAL: 5, PORT: 50051}, "grpc.port and http.port must differ on the same host; both are 50051"),
        ({INTERVAL: 5, "http": 1}, "http must be an object, not 1"),
        ([], "the configuration must be an object, not an array"),
    ],
)
def test_a_refused_update_changes_nothing(site: Site, document: object, message: str) -> None:
    """One bad key refuses the whole document, valid keys included."""
    manager = site.load()
    heard: list[Settings] = []
    manager.subscribe(lambda _, new: heard.append(new))
    assert refusal(manager, document) == message
    assert manager.settings == manager.running == Settings()
    assert site.persisted() is None
    assert heard == []


def test_updates_are_checked_against_what_is_configured(site: Site) -> None:
    """A change that awaits a restart counts: the next one must go with it."""
    manager = site.load()
    manager.update({PORT: 81})
    assert refusal(manager, {"grpc.port": 81}).startswith("grpc.port and http.port must differ")
    assert manager.update({"grpc.port": 8080}) == ["grpc.port", PORT]


@pytest.mark.parametrize(
    ("environ", "flags", "pinned_by"),
    [
        ({"KV_ROCKSDB_OPTIONS_SYNC": "true"}, {}, "environment variable KV_ROCKSDB_OPTIONS_SYNC"),
        ({"KV_ROCKSDB_OPTIONS": '{"sync": true}'}, {}, "environment variable KV_ROCKSDB_OPTIONS"),
        ({}, {"rocksdb_options_sync": "yes"}, "command-line option --rocksdb-options-sync"),
        ({}, {"rocksdb_options": '{"sync": true}'}, "command-line option --rocksdb-options"),
        (
            {"KV_ROCKSDB_OPTIONS_SYNC": "false"},
            {"rocksdb_options_sync": "true"},
            "command-line option --rocksdb-options-sync",
        ),
    ],
)
def test_pinned_keys(site: Site, environ: Mapping[str, str], flags: dict[str, str], pinned_by: str) -> None:
    """A key of the environment or the command line takes no other value, and says why; its own value is fine."""
    manager = site.load(environ, **flags)
    message = refusal(manager, {INTERVAL: 5, "rocksdb.options.sync": False})
    assert message == f"rocksdb.options.sync is set by the {pinned_by} and cannot be changed at run time"
    assert manager.settings.eviction.check_interval == 60
    assert manager.update({INTERVAL: 5, "rocksdb.options.sync": True}) == []
    assert site.persisted() == {"eviction": {"check_interval": 5}}


def test_a_pin_hides_but_keeps_what_was_persisted(site: Site) -> None:
    """A key that a later start pins gets its persisted value back when the pin goes."""
    site.load().update({PORT: 81})
    assert site.load({"KV_HTTP_PORT": "82"}).update({PORT: 82, INTERVAL: 5}) == []
    assert site.load().settings.http.port == 81


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the configuration: JSON is expected, but the input is empty"),
        ("{", "the configuration: invalid JSON at line 1 column 2: "),
        ('{"http": {"port": 1, "port": 2}}', 'the configuration: duplicate key "port"'),
        ('{"http": {"port": NaN}}', "the configuration: NaN is not JSON"),
        ('{"http": {"port": -Infinity}}', "the configuration: -Infinity is not JSON"),
        ('{"rocksdb": {"path": "\\ud800"}}', "the configuration: the lone surrogate U+D800"),
        ('{"a":' * 17 + "1" + "}" * 17, "the configuration: objects and arrays may be at most 16 levels deep"),
        ("[1]", "the configuration must be an object, not an array"),
        ("null", "the configuration must be an object, not null"),
        ('{"http": {"port": 1e3}}', "http.port must be an integer from 0 to 65535, not 1000.0"),
    ],
)
def test_refused_texts(site: Site, text: str, message: str) -> None:
    """Text is parsed strictly, and refused as a configuration."""
    manager = site.load()
    with pytest.raises(InvalidConfig) as refused:
        manager.update(text)
    assert str(refused.value).startswith(message)
    assert manager.settings == Settings()


def test_an_accepted_text(site: Site) -> None:
    """Text is applied as its document would be."""
    manager = site.load()
    assert manager.update('{"http": {"port": 81}}') == [PORT]
    assert manager.settings.http.port == 81


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageError),
        (errno.EROFS, UnusablePath),
    ],
)
@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_change_that_cannot_be_saved(
    site: Site, monkeypatch: pytest.MonkeyPatch, call: str, code: int, kind: type[StorageError]
) -> None:
    """It is refused with the file and the reason; nothing changes, nothing is left, and the next one succeeds."""
    manager = site.load()
    manager.update({INTERVAL: 5})
    heard: list[Settings] = []
    manager.subscribe(lambda _, new: heard.append(new))

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(StorageError) as failed:
            manager.update({INTERVAL: 6, PORT: 81})
    assert type(failed.value) is kind
    assert str(failed.value) == (
        f"the configuration was not changed: {site.runtime} (--runtime-config) cannot be saved: {os.strerror(code)}"
    )
    assert manager.settings == manager.running == site.load().settings
    assert manager.settings.eviction.check_interval == 5
    assert heard == []
    assert sorted(os.listdir(site.config.parent)) == [site.config.name, site.runtime.name]
    assert manager.update({INTERVAL: 7}) == []


def test_a_missing_folder(site: Site) -> None:
    """A runtime file in a folder that is not there is an error of the update, not of the start."""
    path = site.config.parent / "gone" / "r.json"
    manager = ConfigManager.load(str(site.config), {}, {}, str(path))
    told = rf"^the configuration was not changed: {path} \(--runtime-config\) cannot be saved: No such file"
    with pytest.raises(UnusablePath, match=told):
        manager.update({INTERVAL: 5})
    assert manager.settings == Settings()


def test_a_kill_while_saving(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends between writing and renaming starts again with the last accepted configuration."""

    class Killed(BaseException):
        """The end of the process."""

    def die(*_: object) -> None:
        raise Killed

    manager = site.load()
    manager.update({INTERVAL: 5})
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", die)
        with pytest.raises(Killed):
            manager.update({INTERVAL: 6})
    restarted = site.load()
    assert restarted.settings.eviction.check_interval == 5
    restarted.update({INTERVAL: 7})
    assert site.load().settings.eviction.check_interval == 7


def test_a_change_is_on_disk_before_it_takes_effect(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the file is being renamed the old settings are in force; a listener finds the new file."""
    manager = site.load()
    seen: list[object] = []
    original = os.replace

    def replace(source: str, target: str) -> None:
        seen.append(manager.settings.eviction.check_interval)
        original(source, target)

    monkeypatch.setattr(os, "replace", replace)
    manager.subscribe(lambda _, new: seen.append((new.eviction.check_interval, site.persisted())))
    manager.update({INTERVAL: 5})
    assert seen == [60, (5, {"eviction": {"check_interval": 5}})]


@pytest.mark.parametrize("content", ["", "{", '{"http": {"port": 70000}}', '{"gone": 1}'])
def test_a_damaged_runtime_file_stops_the_start(site: Site, content: str) -> None:
    """The start says which file, what is wrong and what to do; it does not drop the changes in silence."""
    site.runtime.write_text(content)
    with pytest.raises(InvalidConfig) as refused:
        site.load()
    assert str(refused.value).startswith(f"runtime configuration file {site.runtime}: ")
    assert "Correct it, or delete it" in str(refused.value)
