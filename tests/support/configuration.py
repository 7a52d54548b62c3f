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

    def update(self, document: Mapping[str, object] | str, actor: Actor = ANONYMOUS) -> list[str]:
        """Take up the document, or the JSON text of one; or refuse an unknown key."""
        if isinstance(document, str):
            try:
                document = json.loads(document)
            except ValueError:
                raise InvalidConfig("the configuration is not JSON") from None
        if not isinstance(document, dict):
            raise InvalidConfig("the configuration must be an object")
        unknown = [name for name in document if name not in self._values]
        if unknown:
            raise InvalidConfig(f"{unknown[0]}: unknown key")
        self._values.update(document)
        return [name for name in self._restart if name in document]
