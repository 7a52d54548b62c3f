"""How the layers of `ConfigManager` add up at a start, and errors that name their place."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import pytest

from kvtwisted.config.manager import ConfigManager
from kvtwisted.config.settings import Settings
from kvtwisted.core.errors import InvalidConfig

from .sites import INTERVAL, Site


@pytest.mark.parametrize("present", list(itertools.product([False, True], repeat=4)))
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


def test_a_failed_start_is_explained(site: Site) -> None:
    """Each key that the reason names, or that was meant: its value, and where to mend it."""
    site.config.write_text('{"value.disk_path": "v"}')
    site.runtime.write_text('{"rocksdb.path": "d"}')
    manager = site.load({"KV_BACKUP_PATH": "b"}, logging_directory="l")
    assert manager.explained("rocksdb.path: no; see value.disk_path") == (
        "rocksdb.path: no; see value.disk_path; "
        f'rocksdb.path is "d", set in {site.runtime}, which keeps changes made at run time; '
        f'value.disk_path is "v", set in {site.config}'
    )
    assert manager.explained("it failed", "backup.path", "logging.directory", "http.port") == (
        'it failed; backup.path is "b", set by the environment variable KV_BACKUP_PATH; '
        'logging.directory is "l", set by the command-line option --logging-directory; http.port is 8080, its default'
    )


def test_layers_that_clash_are_explained(site: Site) -> None:
    """Two keys that do not go together, from two places."""
    site.config.write_text('{"grpc.port": 81}')
    with pytest.raises(InvalidConfig) as refused:
        site.load({"KV_HTTP_PORT": "81"})
    assert str(refused.value).endswith(
        f"grpc.port is 81, set in {site.config}; http.port is 81, set by the environment variable KV_HTTP_PORT"
    )
