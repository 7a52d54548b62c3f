"""Named conditions that make the server unable to serve, while they last."""

from __future__ import annotations

import threading
from typing import Callable


class Health:
    """Reasons by condition name; healthy when there is none. Safe from any thread.

    Listeners are called with the current reason (None: healthy) whenever it changes, on the thread that changed it and
    under the lock: they must be quick, must not raise, and must not call back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reasons: dict[str, str] = {}
        self._listeners: list[Callable[[str | None], None]] = []

    def reason(self) -> str | None:
        """One sentence that names every failing condition, or None when healthy."""
        with self._lock:
            return self._sentence()

    def fail(self, condition: str, reason: str) -> None:
        """`condition` fails for `reason`, until `recover`."""
        self._change(condition, reason)

    def recover(self, condition: str) -> None:
        """`condition` is fine (again)."""
        self._change(condition, None)

    def failing(self, condition: str) -> bool:
        """Whether `condition` fails just now."""
        return condition in self._reasons

    def on_change(self, told: Callable[[str | None], None]) -> None:
        """Call `told` now, with the present state, and at every change from now on."""
        with self._lock:
            self._listeners.append(told)
            told(self._sentence())

    def _change(self, condition: str, reason: str | None) -> None:
        with self._lock:
            if self._reasons.get(condition) == reason:
                return
            if reason is None:
                del self._reasons[condition]
            else:
                self._reasons[condition] = reason
            sentence = self._sentence()
            for told in self._listeners:
                told(sentence)

    def _sentence(self) -> str | None:
        return "; ".join(self._reasons.values()) or None
