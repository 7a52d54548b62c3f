"""What the tests of `ConfigManager` share: folders with a configuration file, and two keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from kvtwisted.config.manager import ConfigManager
from kvtwisted.core.errors import InvalidConfig

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


def refusal(manager: ConfigManager, document: object) -> str:
    """The message with which an update is refused."""
    with pytest.raises(InvalidConfig) as refused:
        manager.update(document)
    return str(refused.value)
