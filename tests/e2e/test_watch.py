"""Crowds of watchers beside writers of all kinds: each sees every commit once and in order, whatever is written."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator

import pytest

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from .clients import Grpc
from .harness import Launcher, Server, eventually
from .watchers import Commit, Crowd, Watching

PREFIX = "w/"


class Book:
    """What writers were told of their writes: the revision of those that have one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.revisions: dict[int, str] = {}
        self.operations = 0

    def note(self, key: str, revision: int = 0) -> None:
        """One more write of this key."""
        with self._lock:
            self.operations += 1
            if revision:
                assert revision not in self.revisions
                self.revisions[revision] = key


class Scribbler(threading.Thread):
    """Writes in every way there is, on keys of its own and some that all have."""

    def __init__(self, server: Server, book: Book, number: int) -> None:
        super().__init__(name=f"scribbler {number}", daemon=True)
        self._server = server
        self._book = book
        self._number = number
        self._chance = random.Random(number)
        self.stopping = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        """Write until it is to stop."""
        try:
            with self._server.grpc() as client:
                while not self.stopping:
                    self._write(client)
        except BaseException as error:
            self.failure = error
            raise

    def _write(self, client: Grpc) -> None:
        kind = self._chance.randrange(11)
        key = f"{PREFIX}{self._number if self._chance.random() < 0.7 else 'all'}/{self._chance.randrange(30)}"
        value, book = f"{self._chance.random()}", self._book
        if kind == 0:
            self._pipeline(client)
        elif kind == 1:
            assert client.call("Set", key=key, value=value, ttl=1).success
            book.note(key)
        elif kind == 2:
            pairs = {f"{key}/{number}": value for number in range(self._chance.randrange(1, 20))}
            assert client.call("MSet", key_values=pairs).success
            book.note(key)
        elif kind == 3:
            assert client.call("MDelete", keys=[f"{key}/{number}" for number in range(5)]).success
            book.note(key)
        elif kind == 4:
            done = client.call("Increment", key=f"{PREFIX}n/{self._number}", delta=1)
            book.note(f"{PREFIX}n/{self._number}", done.revision)
        elif kind == 5:
            done = client.call("Touch", key=key, ttl=self._chance.choice([0, 100]))
            book.note(key, done.revision)
        elif kind == 6:
            condition = kv.Condition(absent=True) if self._chance.random() < 0.5 else kv.Condition(present=True)
            done = client.call("Set", key=key, value=value, condition=condition)
            book.note(key, done.revision)
        elif kind == 7:
            done = client.call(
                "Transact",
                mutations=[
                    kv.Mutation(set=kv.SetRequest(key=key, value=value)),
                    kv.Mutation(delete=kv.DeleteRequest(key=f"{key}/1")),
                    kv.Mutation(set=kv.SetRequest(key=f"other/{self._number}", value=value)),
                ],
            )
            book.note(key, done.revision)
        elif kind == 8:
            assert client.call("Set", key=f"other/{self._number}", value=value).success
        elif kind == 9 and self._chance.random() < 0.3:
            done = client.call("DeleteRange", prefix=f"{key}/")
            book.note(key, done.revision)
        else:
            assert client.call("Delete", key=key).success
            book.note(key)

    def _pipeline(self, client: Grpc) -> None:
        method = client.channel.stream_stream(
            "/kv.v1.KeyValueService/Pipeline", kv.PipelineRequest.SerializeToString, kv.PipelineResponse.FromString
        )
        requests = [
            kv.PipelineRequest(id=number, set=kv.SetRequest(key=f"{PREFIX}p{self._number}/{number}", value=f"{number}"))
            for number in range(50)
        ]
        for answer in method(iter(requests), timeout=30):
            assert answer.set.success
            self._book.note("")


def replayed(commits: list[Commit]) -> dict[str, bytes]:
    """What is there after these commits, if there was nothing before."""
    stored: dict[str, bytes] = {}
    for _, events in commits:
        for encoded in events:
            event = kv.Event.FromString(encoded)
            if event.type == kv.Event.SET:
                stored[event.key] = event.data
            elif event.type == kv.Event.DELETE_RANGE:
                gone = [key for key in stored if event.key <= key and (not event.end or key < event.end)]
                for key in gone:
                    del stored[key]
            else:
                stored.pop(event.key, None)
    return stored


def scanned(client: Grpc) -> dict[str, bytes]:
    """All that is there under the prefix."""
    stub = client.channel.unary_stream(
        "/kv.v1.KeyValueService/ScanStream", kv.ScanRequest.SerializeToString, kv.ScanKeyValuesResponse.FromString
    )
    found: dict[str, bytes] = {}
    for answer in stub(kv.ScanRequest(prefix=PREFIX), timeout=30):
        found.update({entry.key: entry.data for entry in answer.entries})
    return found


@pytest.fixture
def crowds() -> Iterator[list[Crowd]]:
    """Those of a test, which are stopped after it."""
    crowds: list[Crowd] = []
    yield crowds
    for crowd in crowds:
        crowd.stop()


@pytest.mark.parametrize(("watchers", "operations"), [(50, 400), pytest.param(1000, 3000, marks=pytest.mark.long)])
def test_every_watcher_sees_every_commit(launch: Launcher, crowds: list[Crowd], watchers: int, operations: int) -> None:
    """Pipelines, batches, conditions, numbers, ttls that end, ranges that go: all watchers of a prefix are told of the
    same commits, each once, in the order of their revisions; those that are cut off go on without a gap; and what they
    were told is what is there in the end."""
    server = launch("--grpc-transport", "native", "--limits-max-watch-history-bytes", "100000000")
    book = Book()
    watching = [Watching(kv.WatchRequest(prefix=PREFIX, with_values=True)) for _ in range(watchers)]
    crowd = _opened(server, crowds, watching)
    scribblers = [Scribbler(server, book, number) for number in range(3)]
    for scribbler in scribblers:
        scribbler.start()
    for part in (1, 2, 3):
        _wait(book, operations * part // 4, scribblers, crowd)
        crowd.stop()  # in the middle of whatever it is
        crowds.clear()
        for one in watching:
            one.begin_again()
        crowd = _opened(server, crowds, watching)
    _wait(book, operations, scribblers, crowd)
    for scribbler in scribblers:
        scribbler.stopping = True
    for scribbler in scribblers:
        scribbler.join()
        assert scribbler.failure is None
    with server.grpc() as client:
        assert client.call("Set", key=f"{PREFIX}short", value="v", ttl=1).success

        def is_quiet() -> bool:
            found = scanned(client)
            return f"{PREFIX}short" not in found and replayed(watching[0].commits) == found

        eventually(is_quiet, 60)
        last = client.call("Increment", key=f"{PREFIX}last", delta=1).revision
        eventually(lambda: all(one.reached == last for one in watching) or _failed(scribblers, crowd), 60)
    first = watching[0].commits
    revisions = [revision for revision, _ in first]
    assert revisions == sorted(set(revisions))
    assert set(book.revisions) - set(revisions) == set()
    for one in watching:
        assert not one.is_compacted
        assert one.commits == first
    kinds = {kv.Event.FromString(event).type for _, events in first for event in events}
    assert kinds >= {kv.Event.SET, kv.Event.DELETE, kv.Event.EXPIRE}
    with server.http() as http:
        assert http.metric("kv_watchers") == watchers
        assert http.metric("kv_watch_events_total") >= sum(len(events) for _, events in first) * watchers
    # The history is in memory: who goes on after a restart is told that it may have missed something.
    server.stop()
    eventually(lambda: all(one.ended for one in watching))
    assert {one.ended for one in watching} == {("14", "the server is stopping")}
    crowds.clear()
    for one in watching:
        one.begin_again()
    _opened(launch("--grpc-transport", "native"), crowds, watching)
    eventually(lambda: all(one.is_compacted and one.ended == ("0", "") for one in watching))


def _opened(server: Server, crowds: list[Crowd], watching: list[Watching]) -> Crowd:
    crowd = Crowd(server.grpc_address)
    crowds.append(crowd)
    crowd.open(watching)
    crowd.start()
    eventually(lambda: all(one.has_begun for one in watching) or _failed([], crowd))
    return crowd


def _wait(book: Book, operations: int, scribblers: list[Scribbler], crowd: Crowd) -> None:
    eventually(lambda: book.operations >= operations or _failed(scribblers, crowd), 120)


def _failed(scribblers: list[Scribbler], crowd: Crowd) -> bool:
    for thread in [*scribblers, crowd]:
        assert thread.failure is None, thread.failure
    return False
