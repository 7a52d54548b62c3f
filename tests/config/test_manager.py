"""The layers of a running server, and changes at run time: whole or not at all, on disk before they take effect."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtwisted.config.manager import ConfigManager
from kvtwisted.config.schema import KEYS, flatten, to_document
from kvtwisted.config.settings import Settings
from kvtwisted.core.errors import InvalidConfig, StorageError, StorageFull

#: A live key, and one that needs a restart.
INTERVAL, PORT = "eviction.check_interval", "http.port"


class Site:
    """A folder with a configuration file, from which managers are loaded as a server would."""

    def __init__(self, folder: Path, file: str = "{}") -> None:
        self.config = folder / "kv.json"
        self.config.write_text(file)
        self.runtime = folder / "kv.json.runtime.json"

    def load(self, environ: Mapping[str, str] | None = None, **flags: str) -> ConfigManager:
        """A manager as at a start of the server; `flags` like http_port="1"."""
        options = {name.replace("_", "-"): text for name, text in flags.items()}
        return ConfigManager.load(str(self.config), environ or {}, options)

    def persisted(self) -> object:
        """What the runtime file holds, or None."""
        return json.loads(self.runtime.read_text()) if self.runtime.exists() else None


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A folder with an empty configuration file."""
    return Site(tmp_path)


def refusal(manager: ConfigManager, document: object) -> str:
    """The message with which an update is refused."""
    with pytest.raises(InvalidConfig) as refused:
        manager.update(document)
    return str(refused.value)


# Layers.


@pytest.mark.parametrize("present", itertools.product([False, True], repeat=4))
def test_the_later_layer_wins(tmp_path: Path, present: tuple[bool, bool, bool, bool]) -> None:
    """File < runtime updates < environment < command line, for each combination of layers that set the key."""
    in_file, in_runtime, in_environment, on_line = present
    site = Site(tmp_path, '{"http": {"port": 1}}' if in_file else "{}")
    if in_runtime:
        site.runtime.write_text('{"http": {"port": 2}}')
    manager = site.load({"KV_HTTP_PORT": "3"} if in_environment else {}, **({"http_port": "4"} if on_line else {}))
    expected = 4 if on_line else 3 if in_environment else 2 if in_runtime else 1 if in_file else 8080
    assert manager.settings.http.port == expected
    assert manager.running == manager.settings


def test_layers_combine_key_by_key(tmp_path: Path) -> None:
    """Each layer adds its own keys, also within rocksdb.options."""
    site = Site(tmp_path, '{"rocksdb.options": {"sync": true, "block_size": 2048}}')
    site.runtime.write_text('{"rocksdb": {"options": {"block_size": 4096}}, "logging": {"level": "warn"}}')
    options = site.load({"KV_ROCKSDB_OPTIONS": '{"compression": "zstd"}'}).settings.rocksdb.options
    assert (options.sync, options.block_size, options.compression) == (True, 4096, "zstd")


def test_nothing_gives_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any source the settings are as declared, and loading writes nothing."""
    monkeypatch.chdir(tmp_path)
    assert ConfigManager.load(None, {}, {}).settings == Settings()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("config", "runtime", "expected"),
    [
        (None, None, "kvtwisted.runtime.json"),
        ("kv.json", None, "kv.json.runtime.json"),
        ("kv.json", "elsewhere.json", "elsewhere.json"),
        (None, "elsewhere.json", "elsewhere.json"),
    ],
)
def test_where_updates_are_kept(
    site: Site, monkeypatch: pytest.MonkeyPatch, config: str | None, runtime: str | None, expected: str
) -> None:
    """Beside the configuration file, else in the current folder; resolved at load, since twistd may change folders."""
    folder = site.config.parent
    monkeypatch.chdir(folder)
    manager = ConfigManager.load(config, {}, {}, runtime)
    other = folder / "other"
    other.mkdir()
    monkeypatch.chdir(other)
    manager.update({INTERVAL: 5})
    assert json.loads((folder / expected).read_text()) == {"eviction": {"check_interval": 5}}
    monkeypatch.chdir(folder)
    assert ConfigManager.load(config, {}, {}, runtime).settings.eviction.check_interval == 5


def test_errors_at_load_name_their_place(site: Site) -> None:
    """Each layer's refusal says where it comes from."""
    for environ, flags, place in [
        ({"KV_HTTP_PORT": "x"}, {}, "environment variable KV_HTTP_PORT: http.port must be "),
        ({}, {"http_port": "x"}, "command-line option --http-port: http.port must be "),
    ]:
        with pytest.raises(InvalidConfig) as refused:
            site.load(environ, **flags)
        assert str(refused.value).startswith(place)
    with pytest.raises(InvalidConfig, match=r"^configuration file : its name must end"):
        ConfigManager.load("", {}, {})


def test_a_clash_that_the_runtime_file_makes_names_it(tmp_path: Path) -> None:
    """When the file was edited so that an old runtime change no longer fits, the start says which file to mend."""
    site = Site(tmp_path, '{"grpc": {"port": 7000}}')
    site.runtime.write_text('{"http": {"port": 7000}}')
    with pytest.raises(InvalidConfig) as refused:
        site.load()
    message = str(refused.value)
    assert message.startswith(f"runtime configuration file {site.runtime}: grpc.port and http.port must differ")
    assert "delete it" in message


def test_a_clash_without_the_runtime_file_does_not_name_it(tmp_path: Path) -> None:
    """A clash of the other layers is not blamed on the runtime file."""
    site = Site(tmp_path, '{"grpc": {"port": 7000}, "http": {"port": 7000}}')
    site.runtime.write_text('{"logging": {"level": "warn"}}')
    with pytest.raises(InvalidConfig, match=r"^grpc\.port and http\.port must differ"):
        site.load()


# Updates.


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


@pytest.mark.parametrize("name", KEYS)
def test_every_key_can_be_changed(site: Site, name: str) -> None:
    """A changed key is shown and persisted; a live one runs, any other is named; it is there after a restart."""
    key = KEYS[name]
    value: object = {
        "boolean": not key.default,
        "integer": key.low if key.default != key.low else key.high,
        "string": next((choice for choice in key.choices if choice != key.default), None),
    }[key.type]
    if key.choices and value is None:
        assert key.choices == (key.default,)
        return
    document = {name: "/changed" if value is None else value}
    if "level0" in name:
        document = {name: 20}
    manager = site.load()
    assert manager.update(document) == ([] if key.live else [name])
    assert flatten(json.loads(manager.show()))[name] == document[name]
    running = flatten(to_document(manager.running))
    assert running[name] == (document[name] if key.live else key.default)
    assert site.load().settings == manager.settings


def test_the_whole_document_can_be_sent_back(site: Site) -> None:
    """What show gives is accepted as it is; only what differs from the layers below is persisted."""
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


# Refused updates.


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
        manager.update_text(text)
    assert str(refused.value).startswith(message)
    assert manager.settings == Settings()


def test_an_accepted_text(site: Site) -> None:
    """Text is applied as its document would be."""
    manager = site.load()
    assert manager.update_text('{"http": {"port": 81}}') == [PORT]
    assert manager.settings.http.port == 81


# Saving.


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOSPC, StorageFull),
        (errno.EDQUOT, StorageFull),
        (errno.EIO, StorageError),
        (errno.EROFS, StorageError),
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
        f"the configuration was not changed: {site.runtime} cannot be saved: {os.strerror(code)}"
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
    with pytest.raises(StorageError, match=f"^the configuration was not changed: {path} cannot be saved: No such file"):
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


# Listeners and threads.


def test_listeners_hear_old_and_new(site: Site) -> None:
    """They get the running settings before and after, in which a key that awaits a restart has not changed."""
    manager = site.load()
    heard: list[tuple[int, int, int]] = []
    manager.subscribe(
        lambda old, new: heard.append((old.eviction.check_interval, new.eviction.check_interval, new.http.port))
    )
    manager.update({INTERVAL: 5})
    manager.update({INTERVAL: 6, PORT: 81})
    manager.update({})
    assert heard == [(60, 5, 8080), (5, 6, 8080), (6, 6, 8080)]


def test_a_failing_listener_harms_nobody(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Its error is logged; the update stands and the other listeners are called."""
    manager = site.load()
    heard: list[int] = []

    def fail(_old: Settings, _new: Settings) -> None:
        raise RuntimeError("no luck")

    manager.subscribe(fail)
    manager.subscribe(lambda _, new: heard.append(new.eviction.check_interval))
    with caplog.at_level(logging.ERROR):
        assert manager.update({INTERVAL: 5}) == []
    assert heard == [5]
    assert manager.running.eviction.check_interval == 5
    assert "a configuration listener failed" in caplog.text
    assert "no luck" in caplog.text


def test_a_listener_cannot_update(site: Site) -> None:
    """An update from within a listener is a clear error, not a deadlock, and later updates work."""
    manager = site.load()
    errors: list[str] = []

    def listen(_old: Settings, _new: Settings) -> None:
        try:
            manager.update({INTERVAL: 9})
        except RuntimeError as error:
            errors.append(str(error))

    manager.subscribe(listen)
    manager.update({INTERVAL: 5})
    manager.update({INTERVAL: 6})
    assert errors == ["a configuration listener must not call update"] * 2
    assert site.load().settings.eviction.check_interval == 6


def test_updates_from_several_threads(site: Site) -> None:
    """None is lost: every thread's own key arrives, listeners hear a gapless chain, and the file agrees at the end."""
    manager = site.load()
    names = [name for name, key in KEYS.items() if key.live and key.type == "integer"][:6]
    chain: list[tuple[Settings, Settings]] = []
    manager.subscribe(lambda old, new: chain.append((old, new)))
    start = threading.Barrier(len(names))
    failures: list[BaseException] = []

    def work(name: str) -> None:
        try:
            start.wait()
            high = KEYS[name].high
            assert high is not None
            for value in range(high - 9, high + 1):
                manager.update({name: value})
                assert flatten(to_document(manager.settings))[name] == value
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(chain) == 10 * len(names)
    assert all(new == old for (_, new), (old, _) in zip(chain, chain[1:]))
    final = flatten(to_document(manager.settings))
    assert {name: final[name] for name in names} == {name: KEYS[name].high for name in names}
    assert site.load().settings == manager.settings


def test_a_second_update_waits_for_the_first(site: Site) -> None:
    """While one update is being announced, another does not begin; readers go on."""
    manager = site.load()
    first_is_in, go_on = threading.Event(), threading.Event()
    order: list[int] = []

    def listen(_old: Settings, new: Settings) -> None:
        order.append(new.eviction.check_interval)
        if new.eviction.check_interval == 5:
            first_is_in.set()
            go_on.wait()
            order.append(-5)

    manager.subscribe(listen)
    first = threading.Thread(target=manager.update, args=({INTERVAL: 5},))
    second = threading.Thread(target=manager.update, args=({INTERVAL: 6},))
    first.start()
    first_is_in.wait()
    second.start()
    assert manager.settings.eviction.check_interval == 5
    assert '"check_interval": 5' in manager.show()
    go_on.set()
    first.join()
    second.join()
    assert order == [5, -5, 6]


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
def test_any_history_survives_a_restart(tmp_path_factory: pytest.TempPathFactory, history: list[dict[str, object]]) -> None:
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
