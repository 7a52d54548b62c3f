"""Who may change which keys, and what the audit is told."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from kvtwisted.config.manager import ConfigManager
from kvtwisted.config.schema import KEYS
from kvtwisted.core.author import ANONYMOUS, Author
from kvtwisted.core.errors import InvalidConfig, PermissionDenied

from .sites import INTERVAL, Site

TUNER = Author("tuner", administers=False)


class Told(list[tuple[str, str, Mapping[str, object]]]):
    """What the audit was told."""

    def __call__(self, event: str, who: str, facts: Mapping[str, object]) -> None:
        """One thing."""
        self.append((event, who, facts))


@pytest.fixture
def told() -> Told:
    """An auditor."""
    return Told()


@pytest.fixture
def manager(site: Site, told: Told) -> ConfigManager:
    """One that is audited."""
    manager = site.load()
    manager.audit = told
    return manager


def test_guarded_keys_are_for_administrators(manager: ConfigManager, told: Told) -> None:
    """Where data lies is not changed by who may only tune; nothing of such a change is taken."""
    with pytest.raises(PermissionDenied, match=r"rocksdb\.path .* admin"):
        manager.update({INTERVAL: 7, "rocksdb.path": "/elsewhere"}, TUNER)
    assert manager.settings.eviction.check_interval == 60
    assert manager.update({"rocksdb.path": "/elsewhere"}, ANONYMOUS) == ["rocksdb.path"]
    assert [event for event, _, _ in told] == ["config_refused", "config_changed"]


def test_a_guarded_key_may_be_sent_as_it_is(manager: ConfigManager) -> None:
    """The whole document that GetConfig shows can be sent back, whoever sends it."""
    assert manager.update({"rocksdb.path": "./data", INTERVAL: 7}, TUNER) == []
    assert manager.running.eviction.check_interval == 7


def test_a_change_is_told_with_who_and_what(manager: ConfigManager, told: Told) -> None:
    """Old and new value of each key that changed."""
    manager.update({"eviction": {"check_interval": 5, "batch_size": 100}}, TUNER)
    assert told == [("config_changed", "tuner", {"changes": {INTERVAL: [60, 5]}})]


@pytest.mark.parametrize("text", ["{", '{"no.such": 1}', '{"http.port": "x"}', "[]"])
def test_a_refusal_is_told_with_its_reason(manager: ConfigManager, told: Told, text: str) -> None:
    """Also when the text is no JSON."""
    with pytest.raises(InvalidConfig) as refused:
        manager.update_text(text, TUNER)
    assert told == [("config_refused", "tuner", {"reason": str(refused.value)})]


def test_what_decides_who_reaches_the_server_is_guarded() -> None:
    """Every folder, host, port, and file of credentials."""
    words = ("path", "directory", "host", "port", "hosts", "tokens", "certificate", "key", "ca", "origins")
    sensitive = {
        name for name in KEYS
        if name.rpartition(".")[2].rpartition("_")[2] in words
        and not name.startswith(("monitoring.", "rocksdb.options."))
    }  # fmt: skip
    assert sensitive >= {"rocksdb.path", "http.host", "grpc.tls_private_key", "logging.directory"}
    assert [name for name in sensitive if not KEYS[name].guarded] == []
