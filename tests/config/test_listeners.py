"""Listeners, and updates from several threads."""

from __future__ import annotations

import logging
import threading

import pytest

from kvtwisted.config.schema import KEYS, flatten, to_document
from kvtwisted.config.settings import Settings

from .sites import INTERVAL, PORT, Site


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
    # Which goes before the size of answers, one of those below.
    manager.update({"limits.max_unsent_bytes": KEYS["limits.max_unsent_bytes"].high})
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


def test_readers_never_wait(site: Site) -> None:
    """While an update is being announced, other threads read the new settings."""
    manager = site.load()
    announced, go_on = threading.Event(), threading.Event()

    def listen(_old: Settings, _new: Settings) -> None:
        announced.set()
        go_on.wait()

    manager.subscribe(listen)
    updating = threading.Thread(target=manager.update, args=({INTERVAL: 5},))
    updating.start()
    announced.wait()
    assert manager.settings.eviction.check_interval == manager.running.eviction.check_interval == 5
    assert '"check_interval": 5' in manager.show()
    go_on.set()
    updating.join()
