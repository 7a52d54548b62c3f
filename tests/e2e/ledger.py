"""Clients that write for as long as the server lives, and a book of what each key may hold afterwards."""

from __future__ import annotations

import itertools
import json
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Callable

import grpc

from kvtwisted.rpc.generated import keyvalue_pb2 as kv

from ..support.linearizability import etag_of
from .clients import Answer, Grpc, Http
from .harness import PATIENCE, Server, eventually
from .history import HUGE, LARGE, Entry, Keys, State, survivors

#: Carries out an entry; returns once it was acknowledged, raises if it may not have happened.
Apply = Callable[[Entry], None]
#: What the writer of that name does, one after the other, with numbers that make values unique.
Work = Callable[[str, Iterator[int]], Iterator[Entry]]

_GROUPS = 8
_BATCH = 5
_LONG_TTL, _TOUCHED_TTL, _SHORT_TTL = 3600, 100_000, 1
#: More than any number, so that sums of them are no number's own.
_MANY = 1_000_000


class Refused(Exception):
    """The server stops, and said that it did not do it."""


class Ledger:
    """What writers were told. One thread writes a group at a time; a writer's groups are its own."""

    def __init__(self) -> None:
        self._before: dict[Keys, Entry] = {}
        self._histories: dict[str, list[Entry]] = {}
        self._lock = threading.Lock()
        self._more = threading.Condition(self._lock)
        self._acknowledged = 0
        #: How often each kind of write was acknowledged.
        self.kinds: Counter[str] = Counter()
        #: Numbers that no two values share.
        self.numbers = itertools.count(1)

    def write(self, writer: str, entry: Entry, apply: Apply) -> None:
        """Let `apply` carry `entry` out; keep book of it, whatever happens."""
        with self._lock:
            history = self._histories.setdefault(writer, [])
            first = self._before.setdefault(entry.keys, Entry(entry.keys, None))
            last = next((earlier for earlier in reversed(history) if earlier.keys == entry.keys), first)
            entry.replaces_large = last.large and last.ttl != _SHORT_TTL
            entry.begun = time.monotonic()
            history.append(entry)
        try:
            apply(entry)
        except Refused:
            with self._lock:
                history.pop()
            raise
        except BaseException:
            entry.ended = time.monotonic()
            raise
        with self._lock:
            entry.ended, entry.acknowledged = time.monotonic(), True
            self._acknowledged += 1
            self.kinds[entry.how] += 1
            self._more.notify_all()

    def wait_for_more(self, writes: int, patience: float) -> None:
        """Return once that many more writes have been acknowledged."""
        with self._lock:
            wanted = self._acknowledged + writes
            assert self._more.wait_for(lambda: self._acknowledged >= wanted, patience), "the writers make no progress"

    def doubt(self, since: float) -> None:
        """Count what was acknowledged from that moment on (of `time.monotonic`) as not acknowledged."""
        for history in self._histories.values():
            for entry in history:
                if entry.acknowledged and entry.ended >= since:
                    entry.acknowledged = False
                    self._acknowledged -= 1

    def compare(
        self, server: Server, kept: Callable[[Entry], bool] = lambda entry: True, *, evicting: bool = False
    ) -> list[Entry]:
        """Assert that what the server holds is what writers were told, for every write that `kept` says yes to.

        What is left of the others must be a beginning of each writer's work, whole batches, and without holes among
        the writers. Returns those that were acknowledged and are certainly lost. What was found is where the book goes
        on. To be called while nobody writes. With `evicting` anything may be missing, but nothing may be older.
        """
        found: dict[Keys, tuple[dict[str, str], float, float, int | None]] = {}
        with server.grpc() as client:
            for keys in self._before:
                asked = time.monotonic()
                values = dict(client.call("MGet", keys=keys).key_values)
                answered = time.monotonic()
                assert len(values) in (0, len(keys)), f"half-done: of {keys} there are {sorted(values)}"
                first = client.call("Get", key=keys[0])
                found[keys] = values, asked, answered, first.ttl if first.found else None

        def explained(entry: Entry) -> bool:
            return entry.explains(*found[entry.keys]) or (evicting and not found[entry.keys][0])

        left = survivors(self._histories, self._before, explained, kept)
        entries = [*self._before.values(), *(entry for history in self._histories.values() for entry in history)]
        for keys, (values, *_) in found.items():
            held = [entry for entry in entries if entry.keys == keys and entry.state is not None and explained(entry)]
            self._before[keys] = held[-1] if values else Entry(keys, None)
        lost = [
            entry
            for name, history in self._histories.items()
            for entry in history[left.most[name] :]
            if entry.acknowledged
        ]
        self._histories = {}
        return lost

    def __len__(self) -> int:
        """Writes acknowledged so far."""
        return self._acknowledged


class Writer(threading.Thread):
    """One client of one interface: sets, deletes, and sets and deletes in batches, until a call fails."""

    def __init__(self, ledger: Ledger, name: str, apply: Apply, close: Callable[[], None], work: Work) -> None:
        super().__init__(name=name, daemon=True)
        self._ledger = ledger
        self._work = work
        self._apply = apply
        self._close = close
        #: What ended it.
        self.failure: Exception | None = None

    def run(self) -> None:
        """Write until a call fails."""
        try:
            for entry in self._work(self.name, self._ledger.numbers):
                self._ledger.write(self.name, entry, self._apply)
        except Exception as error:
            self.failure = error
        finally:
            self._close()


def mixed(writer: str, numbers: Iterator[int]) -> Iterator[Entry]:
    """Everything that a client may do: one key and batches, small and large, with a ttl or none, over and over.

    By plain writes and conditional ones, increments, touches, transactions, removal of ranges, and imports.
    """
    held: dict[int, Entry] = {}
    for group in itertools.cycle(range(_GROUPS)):
        number, keys, before = next(numbers), group_keys(writer, group), held.get(group)
        if before is not None and before.ttl == _SHORT_TTL:
            before = None  # who knows
        if before is not None and before.state is not None and number % 10 == 3:
            entry = Entry(keys, before.state, size=before.size, ttl=_TOUCHED_TTL, how="touch", before=before)
        elif before is not None and (before.state or "").isdigit() and number % 3:
            state: State = str(int(before.state or "") + _MANY * number)
            entry = Entry(keys, state, ttl=before.ttl, how="increment", before=before)
        else:
            entry = _stored(keys, number, before)
        held[group] = entry
        yield entry


def _stored(keys: Keys, number: int, before: Entry | None) -> Entry:
    """A write of a whole value, or a removal."""
    ttl = _SHORT_TTL if number % 11 == 0 else _LONG_TTL if number % 3 == 0 else 0
    how = "plain" if before is None or number % 4 == 0 else "conditional"
    if number % 7 == 0:
        return Entry(keys, None, how="range" if number % 2 else how, before=before)
    size = 0 if number % 5 else LARGE if number % 9 else HUGE
    if len(keys) == 1 and not size and number % 2:
        return Entry(keys, str(number), ttl=ttl, how=how, before=before)
    if len(keys) == 1 and number % 8 == 4:
        how = "import"
    return Entry(keys, f"value {number}", size=size, ttl=ttl, how=how, before=before)


def group_keys(writer: str, group: int) -> Keys:
    """The keys that a writer sets and deletes together: one, or a batch."""
    return tuple(f"{writer}/{group}/{position}" for position in range(1 if group % 2 else _BATCH))


class Reader(threading.Thread):
    """A reader that looks for half-done batches while writers are at work, until a call fails."""

    def __init__(self, name: str, names: Sequence[str], read: Callable[[Keys], Mapping[str, str]]) -> None:
        super().__init__(name=name, daemon=True)
        self._groups = [group_keys(writer, group) for writer in names for group in range(0, _GROUPS, 2)]
        self._read = read
        #: Batches looked at, and what was wrong with any.
        self.looked = 0
        self.halves: list[str] = []

    def run(self) -> None:
        """Look at one batch after the other."""
        try:
            for keys in itertools.cycle(self._groups):
                found = self._read(keys)
                if len(found) not in (0, len(keys)) or len({value.rstrip(".") for value in found.values()}) > 1:
                    self.halves.append(f"{keys}: { {key: value[:20] for key, value in found.items()} }")
                self.looked += 1
        except Exception:
            return  # the server is gone, which is what the writers' tests look at


def _over_http(server: Server) -> tuple[Apply, Callable[[], None]]:
    client = server.http()

    def apply(entry: Entry) -> None:
        answer = call(entry)
        if answer.status == 503 and answer.body["code"] == "unavailable":
            raise Refused(answer.body)
        if answer.status in (500, 503):
            raise OSError(answer.body)  # nobody knows whether it happened
        assert answer.status == 200, (entry, answer)

    def call(entry: Entry) -> Answer:
        keys, content = entry.keys, entry.content()
        if entry.how == "import":
            return _imported(client, entry)
        if entry.how == "increment":
            return client.post("/api/v1/increment", {"key": keys[0], "delta": _delta(entry)})
        if entry.how == "range":
            return client.post("/api/v1/delete_range", {"prefix": keys[0].rpartition("/")[0] + "/"})
        if entry.how == "touch" and len(keys) == 1:
            return client.post("/api/v1/touch", {"key": keys[0], "ttl": entry.ttl})
        if entry.how in ("touch", "conditional"):
            return client.post("/api/v1/transact", _transaction(entry))
        if len(keys) > 1 and not content:
            return client.post("/api/v1/mdelete", {"keys": keys})
        if len(keys) > 1:
            return client.post("/api/v1/mset", {"key_values": content, "ttl": entry.ttl})
        if not content:
            return client.call("DELETE", f"/api/v1/delete/{keys[0]}")
        return client.post("/api/v1/set", {"key": keys[0], "value": content[keys[0]], "ttl": entry.ttl})

    return apply, client.close


def _imported(client: Http, entry: Entry) -> Answer:
    """One line; what came of it stands in the last line of the answer."""
    line: dict[str, object] = {"key": entry.keys[0], "value": entry.content()[entry.keys[0]]}
    if entry.ttl:
        line["expires_at_ms"] = int((time.time() + entry.ttl) * 1000)
    answer = client.call("POST", "/api/v1/import", json.dumps(line).encode(), "application/x-ndjson")
    if answer.status == 200:
        told = [json.loads(line) for line in answer.body.splitlines()]
        if told[-1].get("imported") != 1:
            # Nobody knows whether it happened.
            assert {line.get("code") for line in told} <= {None, "storage_error", "unavailable"}, told
            raise OSError(told)
    return answer


def _delta(entry: Entry) -> int:
    assert entry.before is not None
    return int(entry.state or "") - int(entry.before.state or "")


def _conditions(entry: Entry) -> dict[str, dict[str, object]]:
    """What there was, of each key: for conditions."""
    assert entry.before is not None
    content = entry.before.content()
    if not content:
        return {key: {"absent": True} for key in entry.keys}
    return {
        key: {"etag": etag_of(value.encode())} if len(value) >= LARGE else {"value": value}
        for key, value in content.items()
    }


def _mutations(entry: Entry) -> Iterator[dict[str, dict[str, object]]]:
    """Those of a transaction that has the same effect."""
    content = entry.content()
    for key in entry.keys:
        if entry.how == "touch":
            yield {"touch": {"key": key, "ttl": entry.ttl}}
        elif key in content:
            yield {"set": {"key": key, "value": content[key], "ttl": entry.ttl}}
        else:
            yield {"delete": {"key": key}}


def _transaction(entry: Entry) -> dict[str, object]:
    checks = [{"key": key, "condition": condition} for key, condition in _conditions(entry).items()]
    return {"checks": checks, "mutations": list(_mutations(entry))}


def _condition(condition: Mapping[str, Any]) -> kv.Condition:
    fields = {name: what.encode() if name == "value" else what for name, what in condition.items()}
    return kv.Condition(**fields)


def _over_grpc(server: Server) -> tuple[Apply, Callable[[], None]]:
    client = server.grpc()

    def apply(entry: Entry) -> None:
        try:
            answer = call(entry)
        except grpc.RpcError as error:
            # grpcio's core says this of a call that came in but was not yet given to a thread when the server stopped.
            # It must not have been carried out, to which the book holds it.
            if error.code() is grpc.StatusCode.CANCELLED:
                raise Refused(error) from error
            raise
        assert answer.success, (entry, answer)

    def call(entry: Entry) -> Any:
        keys, content = entry.keys, entry.content()
        if entry.how == "increment":
            return client.call("Increment", key=keys[0], delta=_delta(entry))
        if entry.how == "range":
            return client.call("DeleteRange", prefix=keys[0].rpartition("/")[0] + "/")
        if entry.how == "touch" and len(keys) == 1:
            return client.call("Touch", key=keys[0], ttl=entry.ttl)
        if entry.how == "conditional" and len(keys) == 1:
            condition = _condition(_conditions(entry)[keys[0]])
            if not content:
                return client.call("Delete", key=keys[0], condition=condition)
            return client.call("Set", key=keys[0], value=content[keys[0]], ttl=entry.ttl, condition=condition)
        if entry.how in ("touch", "conditional"):
            checks = [kv.Check(key=key, condition=_condition(what)) for key, what in _conditions(entry).items()]
            return client.call("Transact", checks=checks, mutations=list(_mutations(entry)))
        if len(keys) > 1 and not content:
            return client.call("MDelete", keys=keys)
        if len(keys) > 1:
            return client.call("MSet", key_values=content, ttl=entry.ttl)
        if not content:
            return client.call("Delete", key=keys[0])
        return client.call("Set", key=keys[0], value=content[keys[0]], ttl=entry.ttl)

    return apply, client.channel.close


def start_writers(server: Server, ledger: Ledger, each: int = 2, work: Work = mixed) -> list[Writer]:
    """Start that many writers on each interface."""
    writers = []
    for number in range(each):
        writers.append(Writer(ledger, f"http-{number}", *_over_http(server), work))
        writers.append(Writer(ledger, f"grpc-{number}", *_over_grpc(server), work))
    for writer in writers:
        writer.start()
    return writers


def start_readers(server: Server, writers: Iterable[Writer]) -> list[Reader]:
    """Start one reader on each interface: MGet on gRPC, scans on HTTP."""
    http, rpc = server.http(), server.grpc()

    def scan(keys: Keys) -> Mapping[str, str]:
        answer = http.get(f"/api/v1/scan?prefix={keys[0].rpartition('/')[0]}/")
        if answer.status != 200:
            raise ConnectionError(answer)
        results: dict[str, str] = answer.body["results"]
        return results

    names = [writer.name for writer in writers]
    readers = [
        Reader("reading scans", names, scan),
        Reader("reading MGet", names, lambda keys: dict(rpc.call("MGet", keys=keys).key_values)),
    ]
    for reader in readers:
        reader.start()
    return readers


def end(writers: Iterable[Writer]) -> None:
    """Wait for the writers of a dead server, which must have ended for its death alone."""
    for writer in writers:
        writer.join(PATIENCE)
        assert writer.failure is not None, f"{writer.name} goes on"
        assert not isinstance(writer.failure, AssertionError), f"{writer.name}: {writer.failure}"


def check_files(server: Server, *, spilled: bool) -> int:
    """Assert that the folder of large values holds those that clients see and nothing else; returns how many.

    With `spilled` False: that it holds none. What has expired may take the sweeper a moment.
    """
    with server.http() as http:
        folder = server.folder / http.get("/api/v1/config").body["value"]["disk_path"]

    def compared() -> list[int]:
        with server.grpc() as client:
            large = [value for value in _values(client) if len(value) >= LARGE]
        try:
            files = [path.read_text("utf-8") for path in (*folder.glob("??/*"), *folder.glob("tmp/*"))]
        except FileNotFoundError:
            return []  # it has just been swept
        return [len(large)] if sorted(files) == (sorted(large) if spilled else []) else []

    return eventually(compared)[0]


def _values(client: Grpc) -> Iterator[str]:
    cursor = ""
    while True:
        page = client.call("ScanKeyValues", limit=1000, cursor=cursor)
        yield from page.key_values.values()
        cursor = page.next_cursor
        if not cursor:
            return
