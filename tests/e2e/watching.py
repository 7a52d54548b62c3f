"""Watchers beside clients that keep a history, and whether what they were told is what was done."""

from __future__ import annotations

import itertools
import math
import random
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support.linearizability import Operation
from .harness import PATIENCE, Server

#: What there is: value, and when it expires in ms since 1970 (0: never), by key.
Copy = dict[str, tuple[bytes, int]]


class Commit(NamedTuple):
    """One commit, as a watcher was told."""

    revision: int
    events: tuple[kv.Event, ...]


class Watcher(threading.Thread):
    """Watches everything until its server is gone. One that resumes hangs up now and then, and goes on from there."""

    def __init__(self, server: Server, name: str, chance: random.Random | None = None, after: int = 0) -> None:
        """Begins after that revision; 0: now."""
        super().__init__(name=name, daemon=True)
        self._after = after
        self._channel = grpc.insecure_channel(server.grpc_address, [("grpc.use_local_subchannel_pool", 1)])
        self._watch = self._channel.unary_stream(
            "/kv.v1.KeyValueService/Watch", kv.WatchRequest.SerializeToString, kv.WatchResponse.FromString
        )
        self._chance = chance
        self._begun = threading.Event()
        #: The commits that were told to their end, in that order.
        self.commits: list[Commit] = []
        self.resumed = 0
        #: The revision up to which everything was told.
        self.reached = 0
        self.failure: BaseException | None = None

    def start(self) -> None:
        """Return once it watches."""
        super().start()
        assert self._begun.wait(PATIENCE), self.name

    def run(self) -> None:
        """Watch."""
        try:
            revision = self._after
            while True:
                revision = self._once(revision)
                self.resumed += 1
        except grpc.RpcError as error:
            # Nothing else ends it: the server is gone.
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self.failure = error
        except BaseException as failure:
            self.failure = failure
        finally:
            self._channel.close()

    def _once(self, revision: int) -> int:
        """Watch after that revision until it hangs up; gives the one that it has come to."""
        enough = math.inf if self._chance is None else self._chance.randint(1, 40)
        events: list[kv.Event] = []
        stream = self._watch(kv.WatchRequest(after_revision=revision, with_values=True), timeout=2 * PATIENCE)
        for number in itertools.count():
            message = next(stream)
            assert not message.compacted, message
            if not self._begun.is_set():
                self._begun.set()
            self.reached = message.revision if message.end else self.reached
            assert message.revision >= revision, message
            assert not events or message.revision == revision, "another commit before the end of the last"
            if message.events:
                assert message.revision > (self.commits[-1].revision if self.commits else 0), message
                events += message.events
            revision = message.revision
            if message.events and message.end:
                self.commits.append(Commit(revision, tuple(events)))
                events = []
            if number >= enough and not events:
                stream.cancel()
                return revision
        raise AssertionError


def check_watched(history: Iterable[Operation], watchers: Sequence[Watcher]) -> int:
    """Assert that all watchers were told the same, and what was answered, each commit once and in order.

    They watch since before the first operation, and what came last may be missing, since the server was killed. Gives
    the number of commits.
    """
    for watcher in watchers:
        watcher.join(PATIENCE)
        assert not watcher.is_alive(), watcher.name
        if watcher.failure is not None:
            raise watcher.failure
    longest = max((watcher.commits for watcher in watchers), key=len)
    for watcher in watchers:
        assert watcher.commits == longest[: len(watcher.commits)], watcher.name
    commits = {revision: {event.key: event.data for event in events} for revision, events in longest}
    seen = {(key, data) for events in commits.values() for key, data in events.items()}
    done = [one for one in history if one.answer and not (one.is_idle or one.answer.error)]
    # What was answered before another that was told had begun was told before that.
    last = longest[-1].revision
    until = max((one.called for one in done if one.answer and 0 < one.answer.revision <= last), default=0.0)
    for one in done:
        revision = one.answer.revision if one.answer else 0
        for key, value in _stored(one):
            if revision:
                assert revision > last or commits[revision][key] == value, one
            elif one.ended < until:
                assert (key, value) in seen, one
    return len(longest)


def _stored(operation: Operation) -> Iterator[tuple[str, bytes]]:
    """What it has stored, where nothing in it came after."""
    last = {one.key: one for one in operation.request.mutations if one.kind != "touch"}
    return ((key, one.value) for key, one in last.items() if one.kind == "set")


def copy_of(server: Server) -> tuple[Copy, int]:
    """All that there is, and the revision of that."""
    with server.grpc() as client:
        stream = client.channel.unary_stream(
            "/kv.v1.KeyValueService/ScanStream", kv.ScanRequest.SerializeToString, kv.ScanKeyValuesResponse.FromString
        )
        messages = list(stream(kv.ScanRequest(), timeout=PATIENCE))
    entries = [entry for message in messages for entry in message.entries]
    assert not messages[-1].next_cursor
    (revision,) = {message.revision for message in messages}
    return {entry.key: (entry.data, entry.expires_at_ms) for entry in entries}, revision


def keep(copy: Copy, commits: Iterable[Commit], until: int) -> None:
    """Do in the copy what was done up to that revision."""
    for revision, events in commits:
        if revision > until:
            return
        for event in events:
            if event.type == kv.Event.SET:
                copy[event.key] = event.data, event.expires_at_ms
            elif event.type == kv.Event.DELETE_RANGE:
                for key in [key for key in copy if event.key <= key and (not event.end or key < event.end)]:
                    del copy[key]
            else:
                copy.pop(event.key, None)


def lasting(copy: Copy, now_ms: float) -> Copy:
    """Without what has expired, or will do so within a second: when that goes is the sweeper's to say."""
    return {key: entry for key, entry in copy.items() if not entry[1] or entry[1] > now_ms + 1000}
