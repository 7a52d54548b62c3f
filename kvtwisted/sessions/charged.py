"""What is charged for, and counted in, before it is read in a thread: large bodies, large or compressed messages.

See Note [The order of admission] in `sessions.session`.
"""

from __future__ import annotations

from ..commands.command import Command
from .door import Done
from .session import Session


class Charged:
    """One request's bytes, until it is read. Used once: then comes one of `submit`, `refuse` and `forget`.

    Any thread, but `submit`.
    """

    __slots__ = ("_charged", "_held", "_session")

    def __init__(self, session: Session, size: int) -> None:
        """It has `size` bytes as it came. Raises RateLimited, Overloaded, Unavailable."""
        self._session = session
        session.charge(size)
        try:
            session.admission.enter(size)
        except BaseException:
            session.give_back(size)
            raise
        self._charged = self._held = size

    def grow(self, size: int) -> None:
        """It has `size` bytes more in memory. Raises Overloaded where they do not fit."""
        self._session.admission.grow(size)
        self._held += size

    def charge_anew(self, size: int) -> None:
        """It has `size` bytes in truth: it is charged for those, and no more for what came. Raises RateLimited."""
        self._session.give_back(self._charged)
        self._charged = 0
        self._session.charge(size)
        self._charged = size

    def submit(self, command: Command, done: Done) -> None:
        """See `Session.answer`. Reactor thread."""
        self.forget()
        self._session.answer(command, done)

    def refuse(self) -> None:
        """The request was bad: the charge is kept."""
        self._session.admission.leave(1, self._held)

    def forget(self) -> None:
        """Give the charge back: the command pays for itself, or nobody waits any more."""
        self._session.give_back(self._charged)
        self.refuse()
