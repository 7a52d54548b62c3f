"""Mistakes in commands that decide by what is there: conditions, numbers, transactions."""

from __future__ import annotations

from .fault import Fault

_WRITE = "kvtwisted/backends/local/deciding_write.py"
_APART = "kvtwisted/backends/local/apart.py"
_DECIDING = "tests/backends/local/test_deciding.py"
_FILES = "tests/backends/local/test_deciding_files.py"
_TOGETHER = "tests/sessions/test_decisions_together.py"

FAULTS = (
    Fault(
        "decision-misses-batch",
        "A command that decides sees what those before it in its batch are about to change.",
        _WRITE,
        "        if self._pending and (change",
        "        if False and (change",
        _DECIDING,
    ),
    Fault(
        "decision-told-too-early",
        "What was decided by a change that then failed is not told as if it had been done.",
        _WRITE,
        "            if first.error is not None:\n",
        "            if False:\n",
        _DECIDING,
    ),
    Fault(
        "apart-overtaken",
        "A decision that was made apart is made again if a key was written since it was read.",
        _APART,
        "holds = self._memory.holds(write.looked) and ",
        "holds = ",
        _DECIDING,
    ),
    Fault(
        "apart-outlives-ttl",
        "A decision that was made apart is made again if a key that was there has expired since.",
        _APART,
        " and self._clock.now_ms() < write.until",
        "",
        _DECIDING,
    ),
    Fault(
        "apart-remembers-too-long",
        "What was written since it was read is read again.",
        _APART,
        "            value, _ = self._stored.pop(key, NOTHING)\n",
        "            value, _ = self._stored.get(key, NOTHING)\n",
        _DECIDING,
    ),
    Fault(
        "apart-across-reopening",
        "A decision that was made before the database was reopened is made again.",
        "kvtwisted/backends/local/commit_point.py",
        "                self.guards.strike_all()\n",
        "",
        _DECIDING,
    ),
    Fault(
        "absent-without-mark",
        "A key that a decision finds expired stays expired: the mark is written first.",
        _WRITE,
        "        if deadline > self.told_until and not self.lookups.clock.is_marked(deadline):\n",
        "        if False:\n",
        _DECIDING,
    ),
    Fault(
        "absent-without-mark-together",
        "The same where commands that decide go together.",
        _WRITE,
        "                        if not is_marked(ends):\n",
        "                        if False:\n",
        _TOGETHER,
    ),
    Fault(
        "large-told-at-once",
        "Large values are not digested on the reactor thread.",
        _WRITE,
        "            if size > NOW_BYTES or self._left < 0:\n",
        "            if self._left < 0:\n",
        _DECIDING,
    ),
    Fault(
        "old-entry-stays",
        "A write that knows its key's old deadline takes the entry of that along.",
        "kvtwisted/backends/local/index_entries.py",
        "            if had and had != deadline:\n",
        "            if False:\n",
        _DECIDING,
    ),
    Fault(
        "touched-file-replaced",
        "Touching a large value keeps its file.",
        "kvtwisted/backends/local/file_index.py",
        "write.large.get(key) or write.kept.get(key)",
        "write.large.get(key)",
        _FILES,
    ),
    Fault(
        "undone-file-stays",
        "The file of a write that was not done after all goes.",
        _APART,
        "if pointer not in in_use])",
        "if False])",
        _FILES,
    ),
    Fault(
        "unreadable-unhealthy",
        "What cannot be read for a decision does not look as if writes failed.",
        "kvtwisted/backends/local/backend.py",
        " and not write.was_unread:",
        ":",
        _DECIDING,
    ),
    Fault(
        "touched-what-was-replaced",
        "A Touch within a Transact keeps what a mutation before it stored.",
        "kvtwisted/commands/transact.py",
        "                if type(change[1]) is Kept and before is not None:\n",
        "                if False:\n",
        "tests/commands/test_deciding.py tests/backends/local/test_deciding_files.py",
    ),
    Fault(
        "condition-without-right",
        "Conditions and numbers need the right to read their keys.",
        "kvtwisted/sessions/session.py",
        "                for other, keys in command.needs:\n",
        "                for other, keys in ():\n",
        "tests/sessions/test_session.py",
    ),
    Fault(
        "gathered-without-right",
        "The same where commands that decide gather.",
        "kvtwisted/sessions/session.py",
        "self._stores_and_reads is None or ",
        "True or ",
        _TOGETHER,
    ),
    Fault(
        "number-weighed-for-good",
        "A quota counts the number that was stored, not the longest one.",
        "kvtwisted/sessions/quotas.py",
        "                way.overlap |= not is_certain\n",
        "",
        "tests/sessions/test_quotas.py",
    ),
    Fault(
        "failed-condition-weighed",
        "A write whose condition did not hold takes nothing from a quota.",
        "kvtwisted/sessions/weighing.py",
        "failed or command.condition_failed, False",
        "failed, True",
        "tests/sessions/test_quotas.py",
    ),
    Fault(
        "failed-conditions-uncounted",
        "Conditions that did not hold are counted.",
        "kvtwisted/sessions/door.py",
        "                if isinstance(command, DecidingCommand) and command.condition_failed:\n",
        "                if False:\n",
        "tests/sessions/test_session.py",
    ),
)
