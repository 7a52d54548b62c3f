"""What the connections of a site work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Protocol

from twisted.internet.interfaces import IReactorTime

from .answers import Answer
from .deadlines import Deadlines
from .heads import Rules
from .refusing import Refuser

if TYPE_CHECKING:
    from .authorization import Authorization
    from .channel import KvChannel
    from .lanes import Lanes


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
    """What a connection works with: the same for all of a site. Reactor thread."""

    clock: IReactorTime
    authorization: Authorization
    deadlines: Deadlines
    members: Members
    ending: Ending
    #: What the heads of requests are judged by.
    rules: Rules
    refuser: Refuser
    #: Makes twisted.web's requests, from a channel and one argument more.
    make_request: Callable[..., Any]
    #: Makes the lanes of a connection; None: there is no fast lane.
    make_lanes: Callable[[KvChannel], Lanes] | None
    #: Seconds.
    idle_timeout: float
