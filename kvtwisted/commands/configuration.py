"""GetConfig and UpdateConfig: they concern no key, and the server carries them out itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .command import Command


class Actor(NamedTuple):
    """Who changes the configuration: a name for the audit log, and whether guarded keys may be among the changes."""

    name: str
    administers: bool


#: The actor on a server that does not ask clients who they are.
ANONYMOUS = Actor("anonymous", administers=True)


class GetConfig(Command):
    """The whole configuration as JSON text, secrets redacted."""

    __slots__ = ()

    name = "get_config"
    right = "config_read"
    metric = ""

    def __init__(self) -> None:
        """There is nothing to say."""
        Command.__init__(self, 0)

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return bool(prefixes)


class UpdateConfig(Command):
    """Change the configuration as a whole; the result is the list of keys that need a restart.

    Fails with InvalidConfig, PermissionDenied or StorageError.
    """

    __slots__ = ("actor", "change")

    name = "update_config"
    right = "config_write"
    metric = ""

    def __init__(self, change: Mapping[str, object] | str) -> None:
        """`change` is the document, or its JSON text."""
        Command.__init__(self, len(change) if isinstance(change, str) else 0)
        self.change = change
        #: Who changes it: seen to by the session.
        self.actor: Actor = ANONYMOUS

    def permitted(self, prefixes: tuple[bytes, ...]) -> bool:
        """See `Command.permitted`."""
        return bool(prefixes)
