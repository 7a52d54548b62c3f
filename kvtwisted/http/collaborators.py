"""What the connections of a site work with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable

from twisted.internet.interfaces import IReactorTime

from .deadlines import Deadlines
from .heads import Rules
from .refusing import Refuser

if TYPE_CHECKING:
    from .application import KvRequest
    from .authorization import Authorization
    from .channel import KvChannel
    from .importing import Import
    from .lanes import Lanes
    from .site import KvSite


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
    #: Who counts the connections.
    members: KvSite
    ending: Ending
    #: What the heads of requests are judged by.
    rules: Rules
    refuser: Refuser
    #: Makes twisted.web's requests, from a channel and one argument more.
    make_request: Callable[..., Any]
    #: Begins what takes a request's body while that comes in, if it is of such a kind; from the request, its method and
    #: its target. Raises KvErrors.
    begin_import: Callable[[KvRequest, bytes, bytes], Import | None]
    #: Makes the lanes of a connection; None: there is no fast lane.
    make_lanes: Callable[[KvChannel], Lanes] | None
    #: Seconds.
    idle_timeout: float
