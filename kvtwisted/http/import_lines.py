"""The lines of an import: what an export has written, or anything of that form.

Note [Plain lines]: where nothing is escaped every quote opens or closes a string, so that a line which falls into the
nine pieces of `{"key":"...","value":"..."}` is fully understood. What has to be known of the text (no backslash, no
control character, UTF-8) is looked for once, in all lines that came together. Any other line is read as JSON, which
also says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..core import strict_json
from ..core.errors import InvalidKey, InvalidRequest, InvalidTtl, InvalidValue, KvError, TooLarge
from ..core.limits import (
    MAX_KEY_BYTES,
    MAX_TTL_SECONDS,
    MAX_VALUE_BYTES,
    check_key,
    check_value,
    encode_key,
)
from ..core.strict_json import InvalidJson
from .bodies import LARGE
from .encodings import value_of
from .large_bodies import line_fields
from .wording import shown_text, wrong_type

#: Keys, and bytes of keys and values, of one batch.
BATCH_KEYS, BATCH_BYTES = 500, 1_048_576
#: Bytes of one line: a key and a value of escapes alone (`\u0041`), and what stands around them.
MAX_LINE = 6 * (MAX_KEY_BYTES + MAX_VALUE_BYTES) + 256

_FIELDS = ("key", "value", "data", "expires_at_ms")
#: Bytes that no plain lines have.
_NOT_PLAIN = bytes(number for number in range(0x20) if number != 10) + b"\\"
#: What stands between the strings of a plain line.
_PLAIN = [b"{", b":", b",", b":", b"}"]


class IncompleteExport(InvalidRequest):
    """A line that says that its export came to no end."""

    code = "incomplete_export"


class Entry(NamedTuple):
    """One line: its number, and what it stores."""

    line: int
    key: bytes
    value: bytes
    #: In ms since 1970; 0: never.
    expires_at_ms: int


class Batch(NamedTuple):
    """Lines that are imported together; `expired` counts those that are left out.

    `line` and `end` are the number of the last line that was read for it, and the bytes of all lines up to that.
    """

    entries: list[Entry]
    expired: int
    line: int
    end: int


class Bad(NamedTuple):
    """A line that cannot be imported, and why; `end` is as in a Batch."""

    line: int
    error: KvError
    end: int


class LineReader:
    """Reads the lines of one body, some at a time. For one thread at a time."""

    def __init__(self, skip_lines: int, max_keys: int) -> None:
        """Leaves out so many lines; a batch has `max_keys` at most."""
        self._skip_lines = skip_lines
        self._max_keys = min(max_keys, BATCH_KEYS)
        self._line = 0
        self._bytes = 0

    def read(self, data: bytes, now_ms: int) -> Iterator[Batch | Bad]:
        """What whole lines are, in order, with each mistake in its place."""
        is_plain = _is_plain(data)
        entries: list[Entry] = []
        size = expired = 0
        lines = data.split(b"\n")
        if not lines[-1]:
            lines.pop()
        for line in lines:
            number, end = self._line, self._bytes
            self._line += 1
            self._bytes += len(line) + 1
            if number < self._skip_lines:
                continue
            bad = found = None
            try:
                found = (is_plain and _plain_pair(line)) or _pair(line, now_ms)
            except KvError as error:
                bad = error
            if found is not None and 0 < found[2] <= now_ms:
                expired += 1
                continue
            cost = 0 if found is None else len(found[0]) + len(found[1])
            is_full = len(entries) >= self._max_keys or size + cost > BATCH_BYTES
            if (entries or expired) and (bad is not None or (found is not None and is_full)):
                yield Batch(entries, expired, number, end)
                entries, size, expired = [], 0, 0
            if bad is not None:
                yield Bad(self._line, bad, self._bytes)
            elif found is not None:
                entries.append(Entry(self._line, *found))
                size += cost
        yield Batch(entries, expired, self._line, self._bytes)

    def pass_over(self, size: int) -> tuple[int, int]:
        """The next line was not kept, since it is too long, and has `size` bytes: its number, and where it ends."""
        self._line += 1
        self._bytes += size
        return self._line, self._bytes


def _is_plain(data: bytes) -> bool:
    """Whether nothing is escaped in these lines, and nothing had to be. See Note [Plain lines]."""
    if len(data.translate(None, _NOT_PLAIN)) != len(data):
        return False
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _plain_pair(line: bytes) -> tuple[bytes, bytes, int] | None:
    """Key, value and no deadline of a plain line, if it is one and nothing is wrong with it."""
    pieces = line.split(b'"', 9)
    if len(pieces) != 9 or pieces[::2] != _PLAIN or pieces[1] != b"key" or pieces[5] != b"value":
        return None
    key, value = pieces[3], pieces[7]
    if not 0 < len(key) <= MAX_KEY_BYTES or len(value) > MAX_VALUE_BYTES:
        return None
    return key, value, 0


def _pair(line: bytes, now_ms: int) -> tuple[bytes, bytes, int] | None:
    """Key, value and deadline of any line; None where it has none, and says nothing. Raises InvalidRequest."""
    if len(line) > MAX_LINE:
        raise too_long()
    if not line.strip(b" \t\r"):
        return None
    if len(line) > LARGE:
        # A parser would keep the interpreter for long: see Note [Large bodies] in `large_bodies`.
        fields: object = line_fields(line)
    else:
        try:
            fields = strict_json.loads(line, max_depth=4)
        except InvalidJson as error:
            raise InvalidJson(str(error).replace("at line 1 column", "at column")) from None
    if not isinstance(fields, dict):
        raise InvalidRequest(wrong_type("the line", "an object", fields))
    if "key" not in fields:
        _check_without_key(fields)
        return None
    for name in fields:
        if name not in _FIELDS:
            raise InvalidRequest(f"{shown_text(name)}: is not a field of a line, which has {', '.join(_FIELDS)}")
    key = fields["key"]
    if isinstance(key, str):
        key = encode_key(key)
    elif not isinstance(key, bytes):
        raise InvalidKey(wrong_type("key", "a string", key))
    check_key(key)
    if ("value" in fields) == ("data" in fields):
        raise InvalidValue("value: a line needs either value (text) or data (base64)")
    name = "value" if "value" in fields else "data"
    value = value_of(fields[name], name, name == "data")
    check_value(value)
    return key, value, _deadline(fields.get("expires_at_ms", 0), now_ms)


def too_long() -> TooLarge:
    """The error of a line over MAX_LINE."""
    return TooLarge(f"the line is too long: a line has {MAX_LINE} bytes at most")


def _check_without_key(fields: dict[str, object]) -> None:
    """Raise InvalidRequest unless it is the last line of an export that is whole."""
    if fields.get("end") is True:
        return
    if "next_cursor" in fields or "error" in fields:
        raise IncompleteExport("the export ended here, before its end; export what is missing from its next_cursor on")
    raise InvalidRequest("key: is missing; a line needs key, and value or data")


def _deadline(value: object, now_ms: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTtl(wrong_type("expires_at_ms", "a whole number", value))
    if value < 0:
        raise InvalidTtl(f"expires_at_ms: must not be negative (0 means never): {value} was sent")
    if value > now_ms + MAX_TTL_SECONDS * 1000:
        raise InvalidTtl(f"expires_at_ms: is more than {MAX_TTL_SECONDS} s (100 years) from now: {value} was sent")
    return value
