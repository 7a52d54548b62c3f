"""The query parameters of routes whose answers, or bodies, come in parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ..core.errors import InvalidKey, InvalidRequest
from .encodings import BASE64
from .urls import decode
from .wording import shown_text

#: Digits of the largest number: of 64 bits.
_DIGITS = 19
_LARGEST = 2**63 - 1

#: Reads the value of a parameter, which has this name.
_Reader = Callable[[str, str], Any]


class ExportArguments(NamedTuple):
    """The parameters of `/api/v1/export`. `base64`: all values come so."""

    prefix: str = ""
    start: str = ""
    end: str = ""
    cursor: str = ""
    limit: int = 0
    base64: bool = False


class WatchArguments(NamedTuple):
    """The parameters of `/api/v1/watch`."""

    key: str = ""
    prefix: str = ""
    after_revision: int = 0
    with_values: bool = False
    base64: bool = False


class ImportArguments(NamedTuple):
    """The parameters of `/api/v1/import`."""

    skip_lines: int = 0
    #: Whether it goes on after a line that cannot be imported.
    skips: bool = False


def export_arguments(query: bytes) -> ExportArguments:
    """The parameters of an export. Raises InvalidRequest."""
    return ExportArguments(**_parameters(query, "export", _EXPORT))


def watch_arguments(query: bytes, last_event_id: bytes | None) -> WatchArguments:
    """The parameters of a watch; a Last-Event-ID comes before `after_revision`. Raises InvalidRequest."""
    arguments = WatchArguments(**_parameters(query, "watch", _WATCH))
    if last_event_id:
        arguments = arguments._replace(after_revision=_number("Last-Event-ID", last_event_id.decode("latin-1")))
    return arguments


def import_arguments(query: bytes) -> ImportArguments:
    """The parameters of an import. Raises InvalidRequest."""
    return ImportArguments(**_parameters(query, "import", _IMPORT))


def _parameters(query: bytes, route: str, known: Mapping[str, tuple[str, _Reader]]) -> dict[str, Any]:
    """The parameters by the fields that they are for. Raises InvalidRequest for what is unknown or comes twice."""
    found: dict[str, Any] = {}
    for part in filter(None, query.split(b"&")):
        raw_name, _, raw = part.partition(b"=")
        name = decode(raw_name.replace(b"+", b" "), "query", InvalidRequest)
        if name not in known:
            raise InvalidRequest(f"query: {shown_text(name)} is not a parameter; {route} takes {', '.join(known)}")
        field, read = known[name]
        if field in found:
            raise InvalidRequest(f"{name}: was sent more than once")
        error = InvalidKey if read is _text else InvalidRequest
        found[field] = read(name, decode(raw.replace(b"+", b" "), name, error))
    return found


def _text(name: str, text: str) -> str:
    return text


def _number(name: str, text: str) -> int:
    # `int` takes more than digits, and `isdigit` more than ASCII.
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS and int(text) <= _LARGEST:
        return int(text)
    raise InvalidRequest(f"{name}: must be a whole number from 0 to {_LARGEST}, but {shown_text(text)} was sent")


def _one_of(words: Mapping[str, bool]) -> _Reader:
    def read(name: str, text: str) -> bool:
        if text not in words:
            raise InvalidRequest(f"{name}: must be {' or '.join(words)}, but {shown_text(text)} was sent")
        return words[text]

    return read


_SWITCH = _one_of({"true": True, "false": False})
_ENCODING = _one_of({BASE64: True})

_EXPORT: Mapping[str, tuple[str, _Reader]] = {
    "prefix": ("prefix", _text),
    "start": ("start", _text),
    "end": ("end", _text),
    "cursor": ("cursor", _text),
    "limit": ("limit", _number),
    "encoding": ("base64", _ENCODING),
}
_WATCH: Mapping[str, tuple[str, _Reader]] = {
    "key": ("key", _text),
    "prefix": ("prefix", _text),
    "after_revision": ("after_revision", _number),
    "with_values": ("with_values", _SWITCH),
    "encoding": ("base64", _ENCODING),
}
_IMPORT: Mapping[str, tuple[str, _Reader]] = {
    "skip_lines": ("skip_lines", _number),
    "on_error": ("skips", _one_of({"stop": False, "skip": True})),
}
