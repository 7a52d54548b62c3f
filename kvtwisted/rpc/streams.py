"""The methods that answer one request with a stream of messages, as a codec: ScanStream and Watch.

Functions of this module know nothing of any transport or store, and may run on any thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, NamedTuple

from google.protobuf.message import Message

from ..commands.scan import Page
from ..commands.scan_stream import ScanStream
from ..commands.streams import StreamCommand
from ..commands.watch import Changes, Watch
from ..core.errors import InvalidRequest
from .errors import IN_MESSAGE
from .generated import keyvalue_pb2 as kv
from .messages import expanded, parse
from .methods import MESSAGE_OVERHEAD
from .quick_entries import encoded_entries

#: Bytes of a request, expanded.
MESSAGE_BYTES = 65_536
#: Bytes of keys and values in one part, as far as one entry does not have more: what is made ready for a client that
#: may not take it.
PART_BYTES = 131_072

#: Makes the messages of a part.
Encode = Callable[[Any], Any]


class StreamMethod(NamedTuple):
    """One such method: name, right and request as in `methods.Method`.

    `command` makes the command of a request, for answers of so many bytes a message, and with this `encode`. `messages`
    makes the encoded messages of a part. `refused` is the encoded answer that has an error in its message, if there is
    such a field.
    """

    name: str
    right: str
    request: type[Message]
    command: Callable[[Any, int, Encode], StreamCommand]
    messages: Callable[[Any], list[bytes]]
    refused: Callable[[BaseException], bytes] | None = None

    def read(self, message: bytes, compressed: bool, max_response_bytes: int, encode: Encode) -> StreamCommand:
        """The command of a request's message. Raises KvErrors and CallErrors."""
        request = parse(self.request, expanded(message, compressed, MESSAGE_BYTES, "request"))
        return self.command(request, max_response_bytes, encode)

    def answered_in_message(self, error: BaseException) -> bool:
        """Whether the error is told in a message, which `refused` makes, and the status is OK."""
        return self.refused is not None and isinstance(error, IN_MESSAGE)


def _budget(max_response_bytes: int) -> int:
    # Entries take up to a quarter more than a store counts for them.
    return min(PART_BYTES, (max_response_bytes - MESSAGE_OVERHEAD) * 4 // 5)


def _scan_stream(request: kv.ScanRequest, max_response_bytes: int, encode: Encode) -> ScanStream:
    if request.count_only or request.delimiter:
        raise InvalidRequest(
            f"{'count_only' if request.count_only else 'delimiter'}: not in a ScanStream; use ScanKeys"
        )
    return ScanStream(
        request.prefix.encode(), request.start.encode(), request.end.encode(), cursor=request.cursor.encode(),
        limit=request.limit, reverse=request.reverse, budget=_budget(max_response_bytes), encode=encode,
    )  # fmt: skip


def _page(page: Page) -> list[bytes]:
    """A part of a ScanStream, in one message."""
    rest = kv.ScanKeyValuesResponse(next_cursor=page.next_cursor.decode(), revision=page.revision)
    return [encoded_entries(page.keys, page.values, page.expiries) + rest.SerializeToString()]


def _scan_refused(error: BaseException) -> bytes:
    return kv.ScanKeyValuesResponse(error=str(error)).SerializeToString()


def _watch(request: kv.WatchRequest, max_response_bytes: int, encode: Encode) -> Watch:
    return Watch(
        key=request.key.encode(), prefix=request.prefix.encode(), after_revision=request.after_revision,
        with_values=request.with_values, budget=_budget(max_response_bytes), encode=encode,
    )  # fmt: skip


def _changes(part: Sequence[Changes]) -> list[bytes]:
    """A part of a Watch: a message for each of its Changes."""
    return [
        kv.WatchResponse(
            revision=changes.revision,
            events=[
                kv.Event(
                    type=event.type.value,  # type: ignore[arg-type]  # the numbers are the same
                    key=event.key.decode(),
                    end=event.end.decode(),
                    data=event.value,
                    expires_at_ms=event.expires_at_ms,
                )
                for event in changes.events
            ],
            end=changes.end,
            compacted=changes.compacted,
        ).SerializeToString()
        for changes in part
    ]


STREAM_METHODS: dict[str, StreamMethod] = {
    method.name: method
    for method in (
        StreamMethod("ScanStream", ScanStream.right, kv.ScanRequest, _scan_stream, _page, _scan_refused),
        StreamMethod("Watch", Watch.right, kv.WatchRequest, _watch, _changes),
    )
}
