"""The lines of an export: one object of JSON for each pair, and one that says how it ended.

Note [A cut is no end]: an export may end anywhere: the server stops, a proxy gives up, a disk is full. So its last line
is unlike all others: it has no key. Only `"end": true` says that everything has come. With `next_cursor` there is more,
and that is the cursor to go on with, from a later view; with `error` something failed, too. Without any such line the
export was cut, and the last key that came whole is the cursor.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Mapping
from json.encoder import encode_basestring

from ..commands.scan import Page
from ..commands.scan_stream import ScanStream
from ..commands.streams import StreamCommand
from ..core.limits import as_text
from .answers import to_json
from .streaming import Style

#: Bytes of keys and values that are read at a time.
PART_BYTES = 131_072

NDJSON = "application/x-ndjson"

#: Bytes that JSON text has to escape.
_ESCAPED = bytes(range(0x20)) + b'"\\'


class ExportLines:
    """Makes the lines of one export. It is called for one page at a time, on any thread."""

    def __init__(self, *, base64: bool = False) -> None:
        """With `base64` all values are `data`."""
        self._base64 = base64
        self.count = 0
        self.revision = 0
        self._next_cursor = b""

    def __call__(self, page: Page) -> bytes:
        """The lines of a page."""
        keys = page.keys
        self.count += len(keys)
        self.revision = page.revision
        self._next_cursor = page.next_cursor
        if not keys:
            return b""
        if not (self._base64 or page.expiries):
            plain = _plain_lines(page)
            if plain is not None:
                return plain
        return b"".join(self._lines(page))

    def _lines(self, page: Page) -> Iterable[bytes]:
        for number, (key, value) in enumerate(page.items):
            expires_at_ms = page.expiries[number] if page.expiries else 0
            end = b',"expires_at_ms":%d}\n' % expires_at_ms if expires_at_ms else b"}\n"
            yield b'{"key":%b,%b%b' % (encode_basestring(as_text(key)).encode(), member_of(value, self._base64), end)

    def last(self) -> bytes:
        """The last line of an export that came to its end, or to that of its view."""
        ended: dict[str, object] = {"next_cursor": as_text(self._next_cursor)} if self._next_cursor else {"end": True}
        return to_json({**ended, "count": self.count, "revision": self.revision}) + b"\n"


def member_of(value: bytes, base64: bool) -> bytes:
    """`"value":` with a value that is text, else, or with `base64`, `"data":`."""
    if not base64:
        try:
            return b'"value":%b' % encode_basestring(value.decode()).encode()
        except UnicodeDecodeError:
            pass
    return b'"data":"%b"' % b64encode(value)


def _plain_lines(page: Page) -> bytes | None:
    """The lines of pairs that never expire and of which nothing has to be escaped; else, or if not sure, None.

    It unrolls `ExportLines._lines`.
    """
    keys, values = page.keys, page.values
    joined = b"".join(keys) + b"".join(values)
    if not joined.isascii() or len(joined.translate(None, _ESCAPED)) != len(joined):
        return None
    between = b'"}\n{"key":"'
    return b'{"key":"%b"}\n' % between.join([b'%b","value":"%b' % pair for pair in zip(keys, values)])


def _last(command: StreamCommand) -> bytes:
    lines = command.encode
    assert isinstance(lines, ExportLines)  # noqa: S101 - the route has made it
    return lines.last()


def _broken(command: StreamCommand, problem: Mapping[str, object]) -> bytes:
    """The last line of one that fails after it has begun. Pages that were read ahead do not count."""
    assert isinstance(command, ScanStream)  # noqa: S101 - as above
    more = {"next_cursor": as_text(command.last)} if command.last else {}
    return to_json({**problem, **more, "count": command.told}) + b"\n"


STYLE = Style(NDJSON, _last, _broken)
