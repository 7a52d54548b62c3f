"""A reactor of its own in a thread, for what has to run beside a test that blocks."""

from __future__ import annotations

import functools
import threading
from typing import Any, Callable

from twisted.internet import threads
from twisted.internet.epollreactor import EPollReactor


@functools.cache
def background_reactor() -> Any:
    """The one reactor that runs in a background thread until the process ends."""
    reactor = EPollReactor()
    threading.Thread(target=reactor.run, args=(False,), name="background-reactor", daemon=True).start()
    return reactor


def on(reactor: Any, call: Callable[..., Any], *args: Any) -> Any:
    """The result of `call`, or of the Deferred it returns, made on the reactor's thread."""
    return threads.blockingCallFromThread(reactor, call, *args)
