"""Mistakes in streams and Watches: limits, rates, ends, the history, and who is told what of it."""

from __future__ import annotations

from .fault import Fault

_HISTORY = "kvtwisted/backends/local/history.py"
_WATCHES = "kvtwisted/backends/local/watches.py"
_GROUPS = "kvtwisted/backends/local/watch_groups.py"
_POINT = "kvtwisted/backends/local/commit_point.py"
_SESSION = "kvtwisted/sessions/session.py"
_ANSWERING = "kvtwisted/rpc/http2/answering.py"
_OF_HISTORY = "tests/backends/local/test_history.py"
_OF_WATCHES = "tests/backends/local/test_watches.py"
_OF_STREAMS = "tests/sessions/test_streams.py"

FAULTS = (
    Fault(
        "watch-rest-left-behind",
        "Between two tellings there is no rest while half of the history has not been gone through.",
        _WATCHES,
        " and not self._history.is_pressing(self._place[0])",
        "",
        _OF_WATCHES,
    ),
    Fault(
        "history-after-revision",
        "An entry of the history is there before the revision of its commits is known.",
        _POINT,
        "            if commits and tell is not None:\n                tell(last)\n            revisions.last = last\n",
        "            revisions.last = last\n            if commits and tell is not None:\n                tell(last)\n",
        _OF_HISTORY,
    ),
    Fault(
        "history-after-reopening",
        "After the database was reopened the history begins anew.",
        _POINT,
        "                self._write([], 1, self.history.begin_anew)\n                return True\n",
        "                return True\n",
        _OF_HISTORY,
    ),
    Fault(
        "history-grows",
        "The history has no more bytes than it may.",
        _HISTORY,
        "        if self.bytes > limit:\n",
        "        if self.bytes > 10 * limit:\n",
        _OF_HISTORY,
    ),
    Fault(
        "history-parts",
        "Commits that share a write have their own changes.",
        "kvtwisted/backends/local/store.py",
        "        if len(changes) != commits:",
        "        if False and len(changes) != commits:",
        _OF_HISTORY,
    ),
    Fault(
        "evicted-is-evicted",
        "Watchers are told why a key was removed.",
        "kvtwisted/backends/local/maintenance/eviction.py",
        "EventType.EXPIRE if nomination.reason == EXPIRED else EventType.EVICT",
        "EventType.EXPIRE",
        _OF_HISTORY,
    ),
    Fault(
        "silent-gap",
        "Who asks for what came before the history is told that it is not there.",
        _HISTORY,
        "        if self.begin > revision:",
        "        if self.begin > revision + 1000:",
        _OF_WATCHES,
    ),
    Fault(
        "beyond-present",
        "Who asks for what comes after a revision that there was not is told so.",
        _WATCHES,
        "        elif after > last:\n            after = last\n",
        "        elif after > last:\n            place, after = (end, 0), last\n",
        _OF_WATCHES,
    ),
    Fault(
        "left-behind-up-to-date",
        "Those that were up to date are told when the history has left them behind.",
        _WATCHES,
        "                watcher.place, watcher.reached = place, self._reached\n                if",
        "                watcher.place, watcher.reached = (self._history.end, 0), self._reached\n                if",
        _OF_WATCHES,
    ),
    Fault(
        "not-ready-not-behind",
        "A watcher that is not ready when its group has something is told of that later.",
        _WATCHES,
        "                watcher.place, watcher.reached = group.start, group.start_reached\n",
        "                watcher.place, watcher.reached = self._place, group.start_reached\n",
        _OF_WATCHES,
    ),
    Fault(
        "cut-commit-ends",
        "A part of a commit says that it goes on.",
        _GROUPS,
        "            part[-1] = part[-1]._replace(end=False)\n",
        "            pass\n",
        _OF_WATCHES,
    ),
    Fault(
        "one-long-turn",
        "Much that is to be told takes many turns.",
        _WATCHES,
        "            if now >= until:\n                self._schedule()\n",
        "            if now >= until + 60:\n                self._schedule()\n",
        _OF_WATCHES,
    ),
    Fault(
        "no-rest-after-telling",
        "Telling many is followed by a rest.",
        _WATCHES,
        "self._rest_until = now + REST * took",
        "self._rest_until = 0.0",
        _OF_WATCHES,
    ),
    Fault(
        "values-for-all",
        "Values are told only where they were asked for.",
        _GROUPS,
        "value if self._with_values and value is not None else",
        "value if value is not None else",
        _OF_WATCHES,
    ),
    Fault(
        "part-for-nothing",
        "Each part of a stream is paid for.",
        _SESSION,
        "        self._limiter.spend(max(0, command.entries - 1), command.answered, self._seconds())\n",
        "        self._limiter.spend(0, 0, self._seconds())\n",
        _OF_STREAMS,
    ),
    Fault(
        "stream-outlives-session",
        "A stream ends when its session is withdrawn.",
        "kvtwisted/sessions/gate.py",
        "                found.withdraw()\n",
        "",
        "tests/rpc/test_streamed_answers.py tests/rpc/test_watch.py",
    ),
    Fault(
        "stream-keeps-slot",
        "A stream that is refused takes no slot.",
        _SESSION,
        "                self._door.streams.closed(command, self)\n            admission",
        "                pass\n            admission",
        _OF_STREAMS,
    ),
    Fault(
        "stream-asks-on",
        "A stream asks for no more while its client does not read.",
        _ANSWERING,
        "        return not stream.queued or (",
        "        return True or (",
        "tests/rpc/http2/test_answering.py tests/rpc/test_watch.py",
    ),
    Fault(
        "deadline-keeps-stream",
        "What a stream has is freed when its end is decided, though nobody reads.",
        _ANSWERING,
        "        stream.on_end = self._cancel\n",
        "",
        "tests/rpc/http2/test_answering.py",
    ),
    Fault(
        "threaded-stream-hangs",
        "A thread of a stream goes on to others when the client does not wait any more.",
        "kvtwisted/rpc/grpcio/streams.py",
        "on_end(lambda: taken.put(_END))",
        "on_end(lambda: None)",
        "tests/rpc/test_streamed_answers.py",
    ),
)
