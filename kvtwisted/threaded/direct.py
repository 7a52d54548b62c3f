"""Get and the writes without Deferreds, for a transport that answers many requests in one turn of the reactor.

The same rules as `facade`'s: what is not counted in is refused, and writes of one turn go in together.
"""

from __future__ import annotations

from typing import Callable

from ..core.admission import Admission
from ..core.operations import Pending
from ..core.records import Found
from ..core.service import Service
from .group_commit import Done
from .work import Work


class Direct:
    """What can be answered here and now, and writes that tell a callback. Reactor thread."""

    def __init__(self, operations: Service, work: Work, admission: Admission) -> None:
        self._get_now = operations.get_now
        self._work = work
        self._admission = admission
        self.begin_set = operations.begin_set
        self.begin_delete = operations.begin_delete

    def get_now(self, key: bytes) -> tuple[bool, Found | None]:
        """See `Operations.get_now`. Raises what `Admission.enter` would."""
        # Such a Get ends before anything else can begin, so that it need not be counted.
        self._admission.check()
        return self._get_now(key)

    def write(self, size: int, begin: Callable[[], Pending], done: Done) -> None:
        """Admit a write of about `size` bytes, check it by `begin`, and let it go in; raises what keeps it from that.

        `done` is called later, on the reactor thread, and must not raise.
        """
        # Before it is begun: what is refused here has taken nothing from a rate, and is not audited as a write.
        self._admission.check(size)
        pending = begin()
        self._admission.enter(pending.size)
        self._work.submit(pending, done, self._admission)
