"""What all connections of a site need. Each connection gets it when it is made."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Protocol

from .access_log import AccessLog
from .answers import Answer
from .cors import Cors
from .deadlines import Deadlines
from .hosts import Hosts

if TYPE_CHECKING:
    from .authorization import Authorization
    from .channel import KvChannel
    from .fast_requests import Request


class Members(Protocol):
    """Who counts the connections."""

    def opened(self, channel: KvChannel) -> None:
        """It is open."""

    def closed(self, channel: KvChannel) -> None:
        """It is gone."""

    def passed_trial(self, channel: KvChannel) -> None:
        """One that is on trial is an administrator's."""

    def refused_on_trial(self) -> Answer:
        """What to answer to one that is on trial and no administrator's."""


@dataclass
class Ending:
    """How far the server's stop has proceeded; see Note [One more request when draining] in `site`."""

    #: Each answer is its connection's last, unless more has come behind the request.
    draining: bool = False
    #: Also if more has come.
    parting: bool = False


@dataclass(frozen=True)
class Collaborators:
    """The same for all connections of a site. Reactor thread."""

    #: The reactor, or a test's clock.
    clock: Any
    authorization: Authorization
    deadlines: Deadlines
    members: Members
    ending: Ending
    #: Makes twisted.web's requests, from a channel and one argument more.
    make_request: Callable[..., Any]
    #: Requests refused before they were complete, by reason (`refusing.REASONS`).
    refused: MutableMapping[str, int]
    cors: Cors
    #: The names that the server goes by; None: any.
    hosts: Hosts | None
    access_log: AccessLog | None
    max_body_bytes: int
    #: Seconds.
    idle_timeout: float
    #: `RequestReader.read`; None: there is no fast lane.
    read: Callable[[bytes, int], Request | None] | None
