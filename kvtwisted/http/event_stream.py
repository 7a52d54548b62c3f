"""Watch over HTTP: server-sent events.

Note [Where an event stream can be resumed]: a client that has lost its connection comes again with the last `id` that
it has seen, as Last-Event-ID, and is told what came after that revision. So an id may only stand where all up to its
revision was told: on the last event of a commit, and on word that nothing happened. A client that was cut amid a commit
gets all of that commit again. `compacted` has none: who is told of it has to read anew what it watches, and goes on
after the revision of that.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from json.encoder import encode_basestring
from typing import Callable

from ..commands.streams import StreamCommand
from ..commands.watch import Changes, Event, EventType
from ..core.limits import as_text
from .answers import to_json
from .export import member_of
from .streaming import Style

#: Bytes of keys and values of one part.
PART_BYTES = 65_536

EVENT_STREAM = "text/event-stream"

_NAMES = {kind: kind.name.lower().encode() for kind in EventType}
#: Means nothing to a client; but one that is gone is noticed.
_COMMENT = b":\n\n"


def encode_changes(told: Iterable[Changes], *, with_values: bool, base64: bool) -> bytes:
    """The messages that tell of changes."""
    messages: list[bytes] = []
    for changes in told:
        revision = changes.revision
        if changes.compacted:
            messages.append(b'event: compacted\ndata: {"revision":%d}\n\n' % revision)
            continue
        if not changes.events:
            messages.append(b'event: revision\nid: %d\ndata: {"revision":%d}\n\n' % (revision, revision))
            continue
        last = len(changes.events) if changes.end else 0
        for number, event in enumerate(changes.events, 1):
            mark = b"id: %d\n" % revision if number == last else b""
            data = _data(event, revision, with_values, base64)
            messages.append(b"event: %b\n%bdata: %b\n\n" % (_NAMES[event.type], mark, data))
    return b"".join(messages)


def _data(event: Event, revision: int, with_values: bool, base64: bool) -> bytes:
    key = encode_basestring(as_text(event.key)).encode()
    more = b""
    if event.type == EventType.SET:
        if with_values:
            more = b"," + member_of(event.value, base64)
        if event.expires_at_ms:
            more += b',"expires_at_ms":%d' % event.expires_at_ms
    elif event.type == EventType.DELETE_RANGE:
        more = b',"end":%b' % encode_basestring(as_text(event.end)).encode()
    return b'{"key":%b%b,"revision":%d}' % (key, more, revision)


#: By whether there are values, and whether all of them are base64. The same function each time: those who watch the
#: same share what it makes.
ENCODERS: Mapping[tuple[bool, bool], Callable[[Sequence[Changes]], bytes]] = {
    (with_values, base64): partial(encode_changes, with_values=with_values, base64=base64)
    for with_values in (False, True)
    for base64 in (False, True)
}


def _ended(command: StreamCommand) -> bytes:
    return b""


def _broken(command: StreamCommand, problem: Mapping[str, object]) -> bytes:
    # Not `error`: that is what browsers call the end of a connection.
    return b"event: failed\ndata: %b\n\n" % to_json(problem)


STYLE = Style(
    EVENT_STREAM,
    _ended,
    _broken,
    # nginx would keep messages until it has a buffer full of them.
    headers=(("Cache-Control", "no-cache"), ("X-Accel-Buffering", "no")),
    nothing=_COMMENT,
)
