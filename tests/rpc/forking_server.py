"""A program that makes a server, forks, and serves from the child: what twistd does when it daemonizes.

The child prints its port and what a second server on the same port failed with, serves until a line comes on standard
input, stops, and says so. A Get of `broken` meets a defect. Nothing else may be printed, on standard error neither.
"""

from __future__ import annotations

import json
import os
import sys
import threading

from twisted.internet.epollreactor import EPollReactor
from twisted.logger import globalLogBeginner

from kvtwisted.core.errors import Unavailable

from .support import PATIENCE, World


def main() -> None:
    """Fork and serve."""
    reactor = EPollReactor()
    world = World(reactor=reactor)
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
    # As in the real server, what is logged goes to an observer and not to standard error.
    threading.Thread(target=reactor.run, args=(False,), daemon=True).start()
    world.pool.start()
    globalLogBeginner.beginLoggingTo([lambda event: None], redirectStandardIO=False)
    serve(world)


def serve(world: World) -> None:
    """Serve until told to stop."""
    port = world.server.start()
    try:
        World(port=port).server.start()
        second = ""
    except Unavailable as error:
        second = str(error)
    print(json.dumps({"port": port, "second": second}), flush=True)
    get = world.engine.get

    def broken_get(key: bytes, *family: str) -> bytes | None:
        if key == b"broken":
            raise ZeroDivisionError("a defect")
        return get(key, *family)

    world.engine.get = broken_get
    # So that no Get is answered without it.
    world.engine.slow = True
    sys.stdin.readline()
    world.server.stop(PATIENCE)
    world.pool.stop()
    print("stopped", flush=True)


if __name__ == "__main__":
    main()
