"""Reads large bodies piece by piece, from the front, up to the first mistake.

Note [Large bodies]: a JSON parser makes objects of everything, whatever the route needs. For 20 MB of `[{"":0},...]`
that takes seconds, in which nothing else runs. What may be large here has one of four shapes: a few fields, one of
which is a list of strings, an object of strings, a string, or a list of small objects of known fields. So a large body
is read by these shapes: the first element of another type, the first field that is unknown, the key that is one too
many ends it. No more is read of a string than it may have. Whatever is sent, no more objects are made of it than of a
good request, and no piece of the work keeps the interpreter for long. A pool thread does it: see `dispatch`.

Each function gives what its namesake in `bodies` does, or raises an InvalidRequest with the same words as far as it has
looked.
"""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections.abc import Iterator, Mapping
from functools import partial
from json import JSONDecodeError
from json.decoder import scanstring  # type: ignore[attr-defined]  # the stubs leave it out
from typing import Any, Callable

from ..commands.conditions import Condition
from ..commands.mutations import SetValue, TouchKey
from ..core import strict_json
from ..core.errors import InvalidKey, InvalidRequest, InvalidTtl, InvalidValue, TooLarge
from ..core.limits import MAX_KEY_BYTES, MAX_VALUE_BYTES
from ..core.strict_json import InvalidJson
from . import bodies, writes
from .encodings import MAX_CHARACTERS, decoded, is_base64
from .wording import missing_field, shown_text, unknown_field, wrong_type
from .writes import Transaction, ttl_of

#: What reads each field's value.
_Readers = Mapping[str, Callable[[], Any]]

#: Bytes that JSON may take for a byte of text: `\u0041`.
_ESCAPE = 6
#: Bytes that are looked at in one go.
_PIECE = 65_536
#: Bytes of a field's name, and of a number or word.
_NAME, _SCALAR = 128, 128

_SPACE = re.compile(rb"[ \t\r\n]*")
_SCALAR_TEXT = re.compile(rb"[-+.0-9A-Za-z]{1,%d}" % _SCALAR)
_CONTROL = re.compile(rb"[\x00-\x1f]")
# A string up to its end, or to an escape that is not whole, of which the halves of a pair are one.
_WHOLE = re.compile(
    rb'[^"\\]*(?:\\(?:[^u]|u(?![dD][89abAB])[0-9a-fA-F]{4}|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})'
    rb'[^"\\]*)*',
    re.DOTALL,
)


def set_arguments(body: bytes) -> tuple[SetValue, Condition | None]:
    """See `bodies.set_arguments`."""
    reader = _Reader(body)
    readers = {**reader.of_mutation("set"), **reader.of_condition(), **reader.of_encoding()}
    return writes.set_of(reader.fields("set", *bodies.SET_FIELDS, readers))


def touch_arguments(body: bytes) -> tuple[TouchKey, Condition | None]:
    """See `bodies.touch_arguments`."""
    reader = _Reader(body)
    readers = {**reader.of_mutation("touch"), **reader.of_condition(), **reader.of_encoding()}
    return writes.touch_of(reader.fields("touch", *bodies.TOUCH_FIELDS, readers))


def mset_arguments(body: bytes, max_keys: int) -> tuple[dict[bytes, bytes], int]:
    """See `bodies.mset_arguments`; there may be `max_keys` pairs."""
    reader = _Reader(body)
    readers: _Readers = {
        "key_values": lambda: reader.pairs("key_values", max_keys),
        "ttl": reader.ttl,
        **reader.of_encoding(),
    }
    fields = reader.fields("mset", *bodies.MSET_FIELDS, readers)
    pairs = fields["key_values"]
    if is_base64(fields):
        pairs = {key: decoded(value, f"key_values[{shown_text(key.decode())}]") for key, value in pairs.items()}
    return pairs, ttl_of(fields)


def mget_arguments(body: bytes, max_keys: int) -> tuple[list[bytes], bool]:
    """See `bodies.mget_arguments`; there may be `max_keys`."""
    reader = _Reader(body)
    fields = reader.fields("mget", *bodies.MGET_FIELDS, {**reader.of_keys(max_keys), **reader.of_encoding()})
    return fields["keys"], is_base64(fields)


def mdelete_arguments(body: bytes, max_keys: int) -> list[bytes]:
    """See `bodies.mdelete_arguments`; there may be `max_keys`."""
    reader = _Reader(body)
    keys: list[bytes] = reader.fields("mdelete", *bodies.MDELETE_FIELDS, reader.of_keys(max_keys))["keys"]
    return keys


def transaction(body: bytes, max_keys: int) -> Transaction:
    """See `bodies.transaction`."""
    reader = _Reader(body)
    readers = {
        "checks": lambda: reader.objects("checks", max_keys, reader.of_check()),
        "mutations": lambda: reader.objects("mutations", max_keys, reader.of_mutations()),
        **reader.of_encoding(),
    }
    return writes.transaction_of(reader.fields("transact", *bodies.TRANSACT_FIELDS, readers), max_keys)


def line_fields(line: bytes) -> dict[str, Any]:
    """The fields of a line of an import that has a key, text as UTF-8."""
    reader = _Reader(line)
    readers: _Readers = {
        "key": lambda: reader.text_of("key", InvalidKey, MAX_KEY_BYTES),
        "value": lambda: reader.text_of("value", InvalidValue, MAX_VALUE_BYTES),
        "data": lambda: reader.text_of("data", InvalidValue, MAX_CHARACTERS),
        "expires_at_ms": lambda: reader.whole_number("expires_at_ms", InvalidTtl),
    }
    return reader.fields("import", ("key",), ("value", "data", "expires_at_ms"), readers)


class _Reader:
    """What is left of one body."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        # What the names of fields begin with, in messages: where the object is that is being read.
        self._prefix = ""

    def fields(
        self, route: str, required: tuple[str, ...], optional: tuple[str, ...], readers: _Readers
    ) -> dict[str, Any]:
        """The one object that the body is; `readers` has what reads each field's value."""
        if self._data.startswith(b"\xef\xbb\xbf"):
            strict_json.decode_utf8(self._data[:3])
        result = self.members("body", route, required + optional, readers)
        self._skip_space()
        if self._at != len(self._data):
            raise self._wrong("Extra data")
        for name in required:
            if name not in result:
                raise missing_field(name, route, required)
        return result

    def members(self, field: str, whole: str, known: tuple[str, ...], readers: _Readers) -> dict[str, Any]:
        """An object with `known` fields; messages call it `whole`."""
        self._must_be("{", field, InvalidRequest)
        result: dict[str, Any] = {}
        for name in self._names():
            if name in result:
                raise _duplicate(name)
            if name not in readers:
                raise unknown_field(name, whole, known)
            result[name] = readers[name]()
        return result

    def strings(self, field: str, limit: int) -> list[bytes]:
        """An array of keys."""
        return self._array(field, limit, lambda member: self.text_of(member, InvalidKey, MAX_KEY_BYTES))

    def objects(self, field: str, limit: int, readers: _Readers) -> list[dict[str, Any]]:
        """An array of objects; `readers` has what reads each field's value in any of them."""
        known = tuple(readers)

        def read(member: str) -> dict[str, Any]:
            self._prefix = f"{member}."
            return self.members(member, member, known, readers)

        return self._array(field, limit, read)

    def _array(self, field: str, limit: int, read: Callable[[str], Any]) -> list[Any]:
        self._must_be("[", field, InvalidRequest)
        result: list[Any] = []
        if self._is_next(b"]"):
            return result
        while True:
            if len(result) == limit:
                raise _too_many(field, limit)
            result.append(read(f"{field}[{len(result)}]"))
            if self._is_next(b"]"):
                return result
            self._separate()

    # What reads the fields of each kind of object.

    def of_keys(self, limit: int) -> _Readers:
        """The keys of a batch."""
        return {"keys": lambda: self.strings("keys", limit)}

    def of_encoding(self) -> _Readers:
        """How values are encoded."""
        return {"encoding": lambda: self.text_of("encoding", InvalidRequest, _NAME).decode()}

    def of_mutation(self, kind: str) -> _Readers:
        """One of `writes.MUTATIONS`."""
        readers: dict[str, Callable[[], Any]] = {
            "key": self._key,
            "value": lambda: self.value(f"{self._prefix}value"),
            "ttl": self.ttl,
            "delta": lambda: self._scalar(f"{self._prefix}delta", "a whole number", InvalidRequest),
        }
        required, optional = writes.MUTATIONS[kind]
        return {name: readers[name] for name in required + optional}

    def of_mutations(self) -> _Readers:
        """A member of `mutations`."""
        return {kind: partial(self._mutation, kind, self.of_mutation(kind)) for kind in writes.MUTATIONS}

    def _mutation(self, kind: str, readers: _Readers) -> dict[str, Any]:
        prefix, field = self._prefix, f"{self._prefix}{kind}"
        self._prefix = f"{field}."
        result = self.members(field, field, tuple(readers), readers)
        self._prefix = prefix
        return result

    def of_check(self) -> _Readers:
        """A member of `checks`."""
        return {"key": self._key, **self.of_condition()}

    def of_condition(self) -> _Readers:
        """The field `condition`."""

        def word(name: str) -> object:
            return self._scalar(f"{self._prefix}condition.{name}", "true", InvalidRequest)

        readers: dict[str, Callable[[], Any]] = {
            "absent": partial(word, "absent"),
            "present": partial(word, "present"),
            "value": lambda: self.value(f"{self._prefix}condition.value"),
            "etag": lambda: self.text_of(f"{self._prefix}condition.etag", InvalidRequest, _NAME),
        }

        def read() -> dict[str, Any]:
            field = f"{self._prefix}condition"
            return self.members(field, field, writes.CONDITIONS, readers)

        return {"condition": read}

    def _key(self) -> bytes:
        return self.text_of(f"{self._prefix}key", InvalidKey, MAX_KEY_BYTES)

    def pairs(self, field: str, limit: int) -> dict[bytes, bytes]:
        """An object of keys and values."""
        self._must_be("{", field, InvalidRequest)
        result: dict[bytes, bytes] = {}
        for key in self._names(f"{field}: key", MAX_KEY_BYTES):
            encoded = key.encode()
            if encoded in result:
                raise _duplicate(key)
            if len(result) == limit:
                raise _too_many(field, limit)
            result[encoded] = self.value(f"{field}[{shown_text(key)}]")
        return result

    def text_of(self, field: str, error: type[InvalidRequest], limit: int) -> bytes:
        """A string of about `limit` bytes at most, which `core.limits` checks exactly."""
        self._must_be('"', field, error)
        return self._string(field, error, limit)

    def value(self, field: str) -> bytes:
        """The text of a value, or its base64."""
        return self.text_of(field, InvalidValue, MAX_CHARACTERS)

    def ttl(self) -> object:
        """A number, or what was sent in its place."""
        return self._scalar(f"{self._prefix}ttl", "a whole number of seconds", InvalidTtl)

    def whole_number(self, field: str, error: type[InvalidRequest]) -> object:
        """A number, or what was sent in its place."""
        return self._scalar(field, "a whole number", error)

    def _scalar(self, field: str, wanted: str, error: type[InvalidRequest]) -> object:
        """A number or a word."""
        self._skip_space()
        found = _SCALAR_TEXT.match(self._data, self._at)
        if found is None:
            raise error(wrong_type(field, wanted, self._kind()))
        self._at = found.end()
        return strict_json.loads(found[0])

    def _names(self, field: str = "body", limit: int = _NAME) -> Iterator[str]:
        """The names of the object that has begun; whoever asks for the next has read the value."""
        if self._is_next(b"}"):
            return
        while True:
            if not self._is_next(b'"'):
                raise self._wrong("Expecting property name enclosed in double quotes")
            name = self._string(field, InvalidKey if limit == MAX_KEY_BYTES else InvalidRequest, limit)
            if not self._is_next(b":"):
                raise self._wrong("Expecting ':' delimiter")
            yield name.decode()
            if self._is_next(b"}"):
                return
            self._separate()

    def _string(self, field: str, error: type[InvalidRequest], limit: int) -> bytes:
        """What is left of a string whose quote has been read."""
        data, start = self._data, self._at
        end = data.find(b'"', start, start + limit * _ESCAPE + 1)
        if end < 0:
            if len(data) - start <= limit * _ESCAPE:
                raise self._wrong("Unterminated string starting at", start - 1)
            raise _too_long(field, error, limit, f"more than {limit} bytes")
        text = data[start:end]
        if b"\\" in text:
            return self._escaped(field, error, limit)
        self._at = end + 1
        if (control := _CONTROL.search(text)) is not None:
            raise self._wrong("Invalid control character at", start + control.start())
        if not text.isascii():
            self._check_utf8(text, start)
        return text

    def _escaped(self, field: str, error: type[InvalidRequest], limit: int) -> bytes:
        """The same for one with escapes, where the first quote need not be the end.

        By pieces: the parser keeps the interpreter for all that it is given, a value of escapes alone for 0.2 s.
        """
        data, parts, left = self._data, [], limit
        while True:
            at = self._at
            end = _WHOLE.match(data, at, at + _PIECE).end()  # type: ignore[union-attr]  # it matches nothing, too
            ends = data[end : end + 1] == b'"'
            try:
                text, taken = utf_8_decode(data[at:end], "strict", ends)
            except UnicodeDecodeError as reason:
                raise _bad_utf8(data, at + reason.start) from None
            if not (taken or ends):
                raise self._bad_escape()
            part = self._meaning(text)
            left -= len(part)
            if left >= 0:
                parts.append(part)
            elif -left > limit:  # up to there it is measured, for the refusal
                raise _too_long(field, error, limit, f"more than {2 * limit} bytes")
            self._at = at + taken
            if ends:
                self._at += 1
                if left < 0:
                    raise _too_long(field, error, limit, f"{limit - left} bytes")
                return b"".join(parts)

    def _meaning(self, text: str) -> bytes:
        """The text of the next part of a string; no escape is cut in two."""
        try:
            value, _ = scanstring(text + '"', 0, True)
        except JSONDecodeError as reason:
            raise self._wrong(reason.msg, self._at + len(text[: reason.pos].encode())) from None
        try:
            encoded: bytes = value.encode()
        except UnicodeEncodeError as reason:
            raise strict_json.lone_surrogate(f"{ord(value[reason.start]):04X}") from None
        return encoded

    def _bad_escape(self) -> InvalidJson:
        """What is wrong where nothing of a string can be read on: half a pair, no escape, or the body's end."""
        rest = self._data[self._at : self._at + _ESCAPE].decode("latin-1")
        try:
            value, _ = scanstring(rest + '"', 0, True)
        except JSONDecodeError as reason:
            return self._wrong(reason.msg, self._at + reason.pos)
        if "\ud800" <= value[:1] <= "\udfff":
            return strict_json.lone_surrogate(f"{ord(value[0]):04X}")
        return self._wrong("Unterminated string")

    def _must_be(self, opener: str, field: str, error: type[InvalidRequest]) -> None:
        if not self._is_next(opener.encode()):
            wanted = {"{": "an object", "[": "an array", '"': "a string"}[opener]
            raise error(wrong_type(field, wanted, self._kind()))

    def _kind(self) -> object:
        """Something of the type of the value that comes next; raises InvalidJson where none can begin."""
        samples: dict[bytes, object] = {b"{": {}, b"[": [], b'"': "", b"t": True, b"f": False, b"n": None}
        first = self._data[self._at : self._at + 1]
        if first in samples:
            return samples[first]
        if first and first in b"-0123456789":
            return 0
        raise self._wrong("Expecting value")

    def _separate(self) -> None:
        if not self._is_next(b","):
            raise self._wrong("Expecting ',' delimiter")

    def _is_next(self, character: bytes) -> bool:
        """Whether this comes next, after any space; then it is read."""
        if self._data[self._at : self._at + 1] != character:
            self._skip_space()
            if self._data[self._at : self._at + 1] != character:
                return False
        self._at += 1
        return True

    def _skip_space(self) -> None:
        data, at = self._data, self._at
        while True:
            end = _SPACE.match(data, at, at + _PIECE).end()  # type: ignore[union-attr]  # it matches nothing, too
            if end < at + _PIECE:
                break
            at = end
        self._at = end

    def _check_utf8(self, text: bytes, start: int) -> None:
        try:
            text.decode()
        except UnicodeDecodeError as reason:
            raise _bad_utf8(self._data, start + reason.start) from None

    def _wrong(self, what: str, at: int | None = None) -> InvalidJson:
        at = self._at if at is None else at
        line = 1 + sum(self._data.count(b"\n", begin, min(begin + _PIECE, at)) for begin in range(0, at, _PIECE))
        column = at - self._data.rfind(b"\n", 0, at)
        return InvalidJson(f"invalid JSON at line {line} column {column}: {what}")


def _bad_utf8(data: bytes, at: int) -> InvalidJson:
    return InvalidJson(f"invalid UTF-8 at byte {at} (0x{data[at]:02x})")


def _duplicate(name: str) -> InvalidJson:
    return InvalidJson(f"duplicate key {shown_text(name)}")


def _too_many(field: str, limit: int) -> TooLarge:
    return TooLarge(f"{field}: too many: more than {limit} keys were sent, limits.max_batch_keys is {limit}")


def _too_long(field: str, error: type[InvalidRequest], limit: int, sent: str) -> InvalidRequest:
    if error is InvalidValue:
        text = f"{field}: too large: {sent} were sent, the limit is {MAX_VALUE_BYTES} bytes ({limit} in base64)"
        return TooLarge(text)
    return error(f"{field}: too long: {sent} were sent, the limit is {limit} bytes")
