"""A shorter way from the poller to connections."""

from __future__ import annotations

import sys
from select import EPOLLIN
from typing import Any

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.tcp import Server
from twisted.python import log


def read_directly(reactor: Any) -> None:
    if type(reactor) is not EPollReactor:
        return
    selectables = reactor._selectables
    poll, other, disconnect = reactor._poller.poll, reactor._doReadOrWrite, reactor._disconnectSelectable

    def iterate(timeout: float | None) -> None:
        for fd, event in poll(-1 if timeout is None else timeout, len(selectables)):
            selectable = selectables.get(fd)
            if event == EPOLLIN and type(selectable) is Server:
                try:
                    why = selectable.doRead()
                except BaseException:
                    why = sys.exc_info()[1]
                    log.callWithLogger(selectable, log.err)
                if why:
                    log.callWithLogger(selectable, disconnect, selectable, why, True)
            elif selectable is not None:
                log.callWithLogger(selectable, other, selectable, fd, event)

    reactor.doIteration = iterate
