"""GetConfig and UpdateConfig."""

from __future__ import annotations

from collections.abc import Mapping

from .command import ServerCommand


class GetConfig(ServerCommand):
    """The whole configuration as JSON text, secrets redacted."""

    __slots__ = ()

    name = "get_config"
    right = "config_read"


class UpdateConfig(ServerCommand):
    """Change the configuration as a whole; the result is the list of keys that need a restart.

    Guarded keys may be among the changes of an actor who administers the server. Fails with InvalidConfig,
    PermissionDenied or StorageError.
    """

    __slots__ = ("change",)

    name = "update_config"
    right = "config_write"

    def __init__(self, change: Mapping[str, object] | str) -> None:
        """`change` is the document, or its JSON text."""
        ServerCommand.__init__(self, len(change) if isinstance(change, str) else 0)
        self.change = change
