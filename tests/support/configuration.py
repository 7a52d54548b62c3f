"""A Configuration without files: it keeps a flat document in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping

from kvtwisted.commands.command import ANONYMOUS, Actor
from kvtwisted.core.errors import InvalidConfig


class FakeConfiguration:
    """Implements `backends.server.Configuration` over the keys it was made with; those in `restart` need a restart."""

    def __init__(self, values: Mapping[str, object], restart: tuple[str, ...] = ()) -> None:
        self._values = dict(values)
        self._restart = restart

    def show(self) -> str:
        """The document as JSON."""
        return json.dumps(self._values)

    def update(self, document: Mapping[str, object], actor: Actor = ANONYMOUS) -> list[str]:
        """Take up the document, or refuse an unknown key."""
        unknown = [name for name in document if name not in self._values]
        if unknown:
            raise InvalidConfig(f"{unknown[0]}: unknown key")
        self._values.update(document)
        return [name for name in self._restart if name in document]

    def update_text(self, text: str, actor: Actor = ANONYMOUS) -> list[str]:
        """The same for JSON text, which must be an object."""
        try:
            document = json.loads(text)
        except ValueError:
            raise InvalidConfig("the configuration is not JSON") from None
        if not isinstance(document, dict):
            raise InvalidConfig("the configuration must be an object")
        return self.update(document)
