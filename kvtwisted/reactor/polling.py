"""A shorter way from the poller to connections.

Note [Straight from the poller]: for each event Twisted enters a context for the log, with the connection's name in it,
which takes a copy of a dictionary and eight calls: a tenth of all that a Get on a connection of its own costs. Only
Twisted's old `log.msg` and `log.err` look at it. So a TCP connection that has something to read is read without that
context. All other events go Twisted's way: connections that end, sockets that listen, writers. An error in a connection
is logged and ends it, as it always does.
"""

from __future__ import annotations

import sys
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.tcp import Server
from twisted.python import log


def read_straight(reactor: Any) -> None:
    """Let the reactor's TCP connections read straight from the poller from now on; a reactor without epoll stays as it
    is. See Note [Straight from the poller].
    """
    if type(reactor) is EPollReactor:
        reactor.doIteration = _iteration(reactor)  # type: ignore[method-assign]  # what it calls in each turn


def _iteration(reactor: Any) -> Any:
    selectables, poll = reactor._selectables, reactor._poller.poll
    read_or_write, disconnect = reactor._doReadOrWrite, reactor._disconnectSelectable

    def iterate(seconds: float | None) -> None:
        """`EPollReactor.doPoll`."""
        for descriptor, event in poll(-1 if seconds is None else seconds, len(selectables)):
            # It may be gone by now.
            selectable = selectables.get(descriptor)
            if event == EPOLLIN and type(selectable) is Server:
                reason: BaseException | None
                try:
                    reason = selectable.doRead()
                except BaseException:
                    reason = sys.exc_info()[1]
                    log.callWithLogger(selectable, log.err)
                if reason:
                    log.callWithLogger(selectable, disconnect, selectable, reason, True)
            elif selectable is not None:
                log.callWithLogger(selectable, read_or_write, selectable, descriptor, event)

    return iterate
