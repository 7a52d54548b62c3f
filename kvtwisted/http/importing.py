"""Imports: a body of any length is stored while it comes in, and answered while it does.

Note [Bodies that are read as they come]: of an import the server holds HELD bytes that have come, or one line, and one
batch that is being stored. While more has come than that, nothing is read from the connection, and TCP holds the client
up. So the limits of other bodies, and their deadline, do not hold for it: only that something comes within
`http.body_timeout`, while it is being read.

Note [Batches of an import]: each batch is a write of its own, in the order of the lines, and all that is in one is
stored or nothing. What is refused for a line's sake (a right, a quota, a limit) is tried again by halves, so that each
line that can be stored is, and each that cannot is told by its number. What is refused for the moment (a rate, too much
under way, RocksDB that stalls) is tried again: for the rate as long as it takes, for the rest as long as a client has
for the next bytes. Anything else ends the import. The session is found anew for each batch: a token that is revoked
stores nothing more.

The answer tells of progress now and then, of each line that cannot be imported, and at last whether the end was
reached: `line` is always the last line that is stored or told of, so that who goes on leaves out as many.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Callable

from twisted.internet.interfaces import IDelayedCall, IPushProducer
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from zope.interface import implementer

from ..commands.command import Command
from ..commands.restore import Restore
from ..core.errors import (
    DeadlineExceeded,
    InvalidRequest,
    KvError,
    Overloaded,
    PermissionDenied,
    QuotaExceeded,
    RateLimited,
    Unavailable,
    WriteStalled,
    without_frames,
)
from ..reactor.fair_pool import FairPool
from ..sessions.session import Session
from . import errors, fields
from .answers import Answer, to_json
from .authorization import Authorization
from .bodies import check_codings
from .deadlines import Deadlines
from .errors import UnsupportedMediaType
from .export import NDJSON
from .import_lines import MAX_LINE, Bad, Batch, Entry, LineReader, too_long
from .routes import STREAMED, Bounds
from .stream_urls import ImportArguments, import_arguments
from .streaming import problem_of
from .urls import origin_form
from .wording import shown_text

if TYPE_CHECKING:
    from .application import KvRequest

#: Bytes that have come and wait; and those that are read at a time.
HELD, PIECE = 1_048_576, 262_144
#: Batches and mistakes that are taken from those at a time.
ITEMS = 64
#: Bytes that an import is counted with among those of requests in flight.
ROOM = 2 * HELD
#: Seconds between two lines of progress.
PROGRESS_SECONDS = 1.0
#: Seconds before a batch that was refused for the moment is tried again: at first, and at most.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0

#: What is wrong with lines of a batch, and with the moment.
_OF_LINES = (InvalidRequest, PermissionDenied, QuotaExceeded)
_FOR_NOW = (RateLimited, Overloaded, WriteStalled, Unavailable, DeadlineExceeded)

_HEAD = Answer(200, b"", NDJSON, (("X-Accel-Buffering", "no"),))


@implementer(IPushProducer)
class Import:
    """One import. Reactor thread."""

    def __init__(
        self,
        reactor: Any,
        pool: FairPool,
        bounds: Bounds,
        request: KvRequest,
        session: Callable[[], Session],
        arguments: ImportArguments,
        deadlines: Deadlines,
    ) -> None:
        """Its lines are read in `pool`. `session` finds that of who asks; both it and this raise KvErrors."""
        self._reactor = reactor
        self._seconds = deadlines.seconds
        self._patience = deadlines.patience.body
        self._pool = pool
        self._bounds = bounds
        self._request = request
        self._find = session
        self._admission = session().admission
        self._admission.enter(ROOM)
        self._skips = arguments.skips
        self._skip_lines = arguments.skip_lines
        self._lines = LineReader(arguments.skip_lines, bounds.max_batch_keys)
        # What has come and is not being read, and whether a line ends in it, and the body behind it.
        self._held: list[bytes] = []
        self._size = 0
        self._has_line = self._has_ended = False
        # Bytes of a line that is too long, of which nothing is kept, while it comes.
        self._dropped = 0
        # What is being read, what was read and is not stored; and whether a thread reads, or something is being stored.
        self._reading: Iterator[Batch | Bad] | None = None
        self._items: deque[Batch | Bad] = deque()
        self._is_busy = False
        self._retry: IDelayedCall | None = None
        self._is_over = self._has_begun = self._is_blocked = False
        self._progress_at = -math.inf
        # What was done so far: the last line, the bytes up to it, and lines by what became of them.
        self._line = self._bytes = self._imported = self._skipped = self._failed = 0
        #: When something came last, or the client was not waited for.
        self.moved_at = self._seconds()
        #: Bytes that have come.
        self.received_bytes = 0

    @property
    def has_begun(self) -> bool:
        """Whether it has been answered in part."""
        return self._has_begun

    # The body.

    def received(self, data: bytes) -> None:
        """A part of the body."""
        self.received_bytes += len(data)
        self.moved_at = self._seconds()
        if self._is_over:
            return
        if self._dropped:
            data = self._drop(data)
        self._held.append(data)
        self._size += len(data)
        if b"\n" in data:
            self._has_line = True
        self._go_on()

    def ended(self) -> None:
        """All of it has come."""
        self._has_ended = True
        if self._dropped:
            self._end_dropping()
        self._go_on()

    def is_late(self, now: float) -> bool:
        """Whether nothing has come for too long while it was waited for. To be asked now and then."""
        if self._is_busy or self._is_blocked:
            self.moved_at = now
        return now - self.moved_at > self._patience

    def fail(self, answer: Answer) -> None:
        """It ends here, since the rest of the body does not come, or makes no sense."""
        self._end(answer)

    def cancel(self) -> None:
        """The client is gone: what is being stored still is."""
        if not self._is_over:
            self._leave()

    # What is in it.

    def _go_on(self) -> None:
        """Store what was read, and read what has come, as long as nothing has to be waited for."""
        while not (self._is_busy or self._is_over or self._is_blocked):
            if self._items:
                self._take(self._items.popleft())
            elif self._reading is not None or self._has_line or (self._has_ended and self._size):
                self._read()
            elif self._has_ended:
                self._end(None)
            elif self._size > MAX_LINE:
                self._begin_dropping()
            else:
                break
        # Read from the connection, or do not.
        is_full = self._size >= HELD and (self._has_line or self._is_busy)
        if not self._has_ended and self._request.channel is not None:
            self._request.channel.hold_body(is_full and not self._is_over)

    def _begin_dropping(self) -> None:
        """The line that comes is too long: what has come of it goes, as will the rest."""
        self._dropped, self._held, self._size = self._size, [], 0
        if self._line >= self._skip_lines:
            self._report(self._line + 1, too_long())

    def _drop(self, data: bytes) -> bytes:
        """What of this is behind that line."""
        end = data.find(b"\n") + 1
        self._dropped += end or len(data)
        if not end:
            return b""
        self._end_dropping()
        return data[end:]

    def _end_dropping(self) -> None:
        dropped, self._dropped = self._dropped, 0
        self._done(*self._lines.pass_over(dropped))

    def _read(self) -> None:
        reading = self._reading
        if reading is None:
            reading = self._reading = self._lines.read(self._piece(), int(time.time() * 1000))
        self._is_busy = True
        taking = self._pool.run(self._admission, lambda: list(islice(reading, ITEMS)))
        taking.addCallbacks(self._has_read, self._broke)

    def _piece(self) -> bytes:
        """Whole lines that have come, up to PIECE bytes of them or one longer line."""
        held = b"".join(self._held)
        if len(held) <= PIECE and self._has_ended:
            end = len(held)
        else:
            end = held.rfind(b"\n", 0, PIECE) + 1 or held.find(b"\n") + 1 or len(held)
        rest = held[end:]
        self._held, self._size, self._has_line = [rest], len(rest), b"\n" in rest
        return held[:end]

    def _has_read(self, items: list[Batch | Bad]) -> None:
        self._is_busy = False
        self._items.extend(items)
        if len(items) < ITEMS:
            self._reading = None
        self._go_on()

    def _broke(self, failure: Failure) -> None:
        self._is_busy = False
        self._end(errors.answer(failure, "import"))

    def _take(self, item: Batch | Bad) -> None:
        if isinstance(item, Bad):
            self._report(item.line, item.error)
            self._done(item.line, item.end)
        elif item.entries:
            self._is_busy = True
            self._store(item, deque([item.entries]), _FIRST_PAUSE, self._seconds())
        else:
            self._stored(item)

    def _stored(self, batch: Batch) -> None:
        self._is_busy = False
        self._skipped += batch.expired
        self._done(batch.line, batch.end)

    def _store(self, batch: Batch, parts: deque[list[Entry]], pause: float, since: float) -> None:
        """Store what is left of a batch, part by part; the first one is tried since then."""
        self._retry = None
        if self._is_over:
            return
        if not parts:
            self._stored(batch)
            self._go_on()
            return
        entries = parts[0]
        command = Restore({entry.key: (entry.value, entry.expires_at_ms) for entry in entries})
        command.deadline = time.monotonic() + self._bounds.request_timeout

        def settled(command: Command) -> None:
            if command.error is not None:
                self._refused(command.error, batch, parts, pause, since)
                return
            parts.popleft()
            self._imported += len(entries)
            self._store(batch, parts, _FIRST_PAUSE, self._seconds())

        try:
            session = self._find()
        except KvError:
            self._end(errors.answer(Failure(), "import"))
            return
        try:
            session.submit(command, settled)
        except KvError as error:
            self._refused(without_frames(error), batch, parts, pause, since)

    def _refused(
        self, error: BaseException, batch: Batch, parts: deque[list[Entry]], pause: float, since: float
    ) -> None:
        """The first part could not be stored. See Note [Batches of an import]."""
        if self._is_over:
            return
        now = self._seconds()
        if isinstance(error, _OF_LINES):
            entries = parts.popleft()
            if len(entries) > 1:
                half = len(entries) // 2
                parts.extendleft((entries[half:], entries[:half]))
            else:
                self._report(entries[0].line, error)
                if self._is_over:
                    return
            self._store(batch, parts, _FIRST_PAUSE, now)
        elif isinstance(error, _FOR_NOW) and (isinstance(error, RateLimited) or now - since <= self._patience):
            wait = max(error.retry_after, _FIRST_PAUSE) if isinstance(error, RateLimited) else pause
            longer = min(2 * pause, _LONGEST_PAUSE)
            self._retry = self._reactor.callLater(wait, self._store, batch, parts, longer, since)
        else:
            self._end(errors.answer(Failure(error), "import"))

    # The answer.

    def _report(self, line: int, error: KvError) -> None:
        """A line cannot be imported."""
        self._failed += 1
        self._line = max(self._line, line - 1)
        if not self._skips:
            self._end(errors.answer(Failure(error), "import"), line)
            return
        self._say({"line": line, "error": str(error), "code": error.code})

    def _done(self, line: int, end: int) -> None:
        """All up to that line, and to that byte, is done."""
        if self._is_over:
            return
        self._line, self._bytes = line, end
        now = self._seconds()
        if now - self._progress_at >= PROGRESS_SECONDS:
            self._progress_at = now
            self._say(self._so_far())

    def _so_far(self) -> dict[str, object]:
        return {
            "line": self._line,
            "imported": self._imported,
            "skipped": self._skipped,
            "failed": self._failed,
            "bytes": self._bytes,
        }

    def _say(self, document: dict[str, object]) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._request.begin_stream(self, _HEAD)
        self._request.write(to_json(document) + b"\n")

    def _end(self, answer: Answer | None, line: int | None = None) -> None:
        """It is over: all was read, or (`answer`) something is wrong, with a line or with all."""
        if self._is_over:
            return
        if answer is not None:
            place: dict[str, object] = {} if line is None else {"line": line}
            self._say({**place, **problem_of(answer)})
        self._say({"end": answer is None, **self._so_far()})
        self._leave()
        self._request.end_import()

    def _leave(self) -> None:
        self._is_over = True
        self._held, self._size = [], 0
        self._items.clear()
        self._admission.leave(1, ROOM)
        if self._retry is not None and self._retry.active():
            self._retry.cancel()

    # For the transport.

    def pauseProducing(self) -> None:
        """The client does not read what it is told."""
        self._is_blocked = True

    def resumeProducing(self) -> None:
        """It has read it."""
        self._is_blocked = False
        self.moved_at = self._seconds()
        self._go_on()

    def stopProducing(self) -> None:
        """It is gone."""
        self.cancel()


class Imports:
    """Begins the imports of a site. Reactor thread."""

    def __init__(
        self, reactor: Any, pool: FairPool, bounds: Bounds, authorization: Authorization, deadlines: Deadlines
    ) -> None:
        self._reactor = reactor
        self._pool = pool
        self._bounds = bounds
        self._authorization = authorization
        self._deadlines = deadlines

    def begin(self, request: KvRequest, method: bytes, target: bytes) -> Import | None:
        """The import that a request with this head is; None: it is another one. Raises KvErrors, which refuse it."""
        path, _, query = origin_form(target).partition(b"?")
        if method != b"POST" or path not in STREAMED:
            return None
        find = partial(self._authorization.session, STREAMED[path], request.visitor)
        find().check_rate()
        check_type(request.requestHeaders)
        arguments = import_arguments(query)
        return Import(self._reactor, self._pool, self._bounds, request, find, arguments, self._deadlines)


def check_type(headers: Headers) -> None:
    """Raise UnsupportedMediaType unless the body says that it is lines of JSON, as they are.

    No page of another origin can send that without asking first: see Note [What a listed origin may do] in `cors`.
    """
    types = headers.getRawHeaders(b"content-type", ())
    named = types[0].partition(b";")[0].strip().lower() if len(types) == 1 else b""
    if named not in (b"application/x-ndjson", b"application/jsonl"):
        shown = shown_text(b", ".join(types).decode("latin-1")) if types else "nothing"
        raise UnsupportedMediaType(f"Content-Type: must be application/x-ndjson, but {shown} was sent")
    check_codings(fields.members(headers.getRawHeaders(b"content-encoding", ())))
