"""Reading URLs: the key at the end of a path and the parameters of a query string.

Percent sequences are decoded exactly once, strictly, and must give UTF-8. The standard library's functions are not used
because they let malformed sequences through as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, NamedTuple

from ..core.errors import InvalidKey, InvalidRequest, InvalidTtl
from .encodings import BASE64
from .wording import shown_text

DEFAULT_SCAN_LIMIT = 100
MAX_SCAN_LIMIT = 10_000

_DIGITS = "0123456789abcdefABCDEF"
_BYTES = {(high + low).encode(): bytes((int(high + low, 16),)) for high in _DIGITS for low in _DIGITS}
_SWITCH = {"true": True, "false": False}
#: Digits of the largest ttl, and one more.
_TTL_DIGITS = 11


class ScanArguments(NamedTuple):
    """The parameters of `/api/v1/scan`. `limit` is 0 where keys are only counted, and none was sent."""

    prefix: str = ""
    limit: int = DEFAULT_SCAN_LIMIT
    cursor: str = ""
    keys_only: bool = False
    start: str = ""
    end: str = ""
    reverse: bool = False
    count_only: bool = False
    delimiter: str = ""
    #: Whether values come in base64.
    encoding: bool = False
    #: Whether the answer has the snapshot's revision, without any other of the parameters that make it have that.
    revision: bool = False

    @property
    def tells_revision(self) -> bool:
        """Whether the answer has the snapshot's revision. Where only the oldest parameters are used it stays as it
        ever was.
        """
        return any(self[_FIRST_NEW:])


class GetArguments(NamedTuple):
    """The key of `/api/v1/get/{key}`, whether the value comes in base64, and whether with its etag."""

    key: str
    in_base64: bool
    with_etag: bool


_SCAN_PARAMETERS = ScanArguments._fields
_FIRST_NEW = _SCAN_PARAMETERS.index("start")
_PLAIN = {name.encode(): name for name in _SCAN_PARAMETERS}
#: Parts of keys.
_KEYS = frozenset(("prefix", "cursor", "start", "end", "delimiter"))


def get_arguments(tail: bytes, query: bytes) -> GetArguments:
    """The key, and what is asked for beside the text at it: `encoding=base64` and `etag=true`. Raises InvalidKey.

    See `path_key` for what becomes of any other query.
    """
    asked = query.split(b"&") if query else []
    if len(set(asked)) != len(asked) or not {b"encoding=base64", b"etag=true"}.issuperset(asked):
        raise _no_parameters("the parameters here are encoding=base64 and etag=true")
    return GetArguments(path_key(tail, b""), b"encoding=base64" in asked, b"etag=true" in asked)


def put_arguments(tail: bytes, query: bytes) -> tuple[str, int]:
    """The key, and the ttl that stands in the query; 0 without one. Raises InvalidKey and InvalidTtl."""
    name, separator, ttl = query.partition(b"=")
    if not query:
        return path_key(tail, b""), 0
    if name != b"ttl" or not separator or b"&" in ttl:
        raise _no_parameters("the parameter here is ttl")
    digits = ttl.removeprefix(b"-")
    if not digits.isdigit() or len(digits) > _TTL_DIGITS:
        raise InvalidTtl(f"ttl: must be a whole number of seconds, but {shown_text(ttl.decode('latin-1'))} was sent")
    return path_key(tail, b""), int(ttl)


def path_key(tail: bytes, query: bytes) -> str:
    """The key that is all of a path after the route; raises InvalidKey.

    A query is refused: it is far more likely to belong to a key whose `?` was not encoded than to be meant as one, and
    then another key would be read or deleted.
    """
    if query:
        raise _no_parameters("there are no parameters here")
    return decode(tail, "key", InvalidKey)


def scan_arguments(query: bytes) -> ScanArguments:
    """The parameters of a scan, or InvalidRequest for one that is unknown, repeated or malformed."""
    parameters: dict[str, str] = {}
    for part in filter(None, query.split(b"&")):
        name, _, value = part.partition(b"=")
        field = _PLAIN.get(name) or decode(name.replace(b"+", b" "), "query", InvalidRequest)
        if field not in _SCAN_PARAMETERS:
            known = ", ".join(_SCAN_PARAMETERS)
            raise InvalidRequest(f"query: {shown_text(field)} is not a parameter; scan takes {known}")
        if field in parameters:
            raise InvalidRequest(f"{field}: was sent more than once")
        error = InvalidKey if field in _KEYS else InvalidRequest
        parameters[field] = decode(value.replace(b"+", b" "), field, error)
    if not parameters:
        return ScanArguments()
    arguments: dict[str, Any] = {name: _READERS[name](name, text) for name, text in parameters.items()}
    if arguments.get("count_only"):
        arguments.setdefault("limit", 0)
    return ScanArguments(**arguments)


def origin_form(target: bytes) -> bytes:
    """The target of a request as most clients send it: path and query.

    The absolute form has to be accepted, too (RFC 9112, section 3.2.2).
    """
    if not target.startswith((b"http://", b"https://")):
        return target
    return b"/" + target.split(b"/", 3)[3] if target.count(b"/") > 2 else b"/"


def _no_parameters(what_there_is: str) -> InvalidKey:
    return InvalidKey(f"key: a '?' that belongs to the key must be written %3F; {what_there_is}")


def _text(field: str, text: str) -> str:
    return text


def _limit(field: str, text: str) -> int:
    # `int` takes more than digits, and `isdigit` more than ASCII.
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SCAN_LIMIT)):
        limit = int(text)
        if 1 <= limit <= MAX_SCAN_LIMIT:
            return limit
    raise InvalidRequest(f"limit: must be a whole number from 1 to {MAX_SCAN_LIMIT}, but {shown_text(text)} was sent")


def _switch(field: str, text: str) -> bool:
    if text not in _SWITCH:
        raise InvalidRequest(f"{field}: must be true or false, but {shown_text(text)} was sent")
    return _SWITCH[text]


def _base64(field: str, text: str) -> bool:
    if text != BASE64:
        raise InvalidRequest(f"{field}: must be {BASE64} or absent, but {shown_text(text)} was sent")
    return True


_READERS: Mapping[str, Callable[[str, str], Any]] = {
    **dict.fromkeys(_KEYS, _text),
    "limit": _limit,
    **dict.fromkeys(("keys_only", "reverse", "count_only", "revision"), _switch),
    "encoding": _base64,
}


def decode(raw: bytes, field: str, error: type[InvalidRequest]) -> str:
    """The text that `raw` means once its percent sequences are decoded. Raises `error`, naming the field."""
    data = raw
    if b"%" in raw:
        start, *sequences = raw.split(b"%")
        try:
            data = start + b"".join([_BYTES[sequence[:2]] + sequence[2:] for sequence in sequences])
        except KeyError:
            raise error(f"{field}: has a % that two hexadecimal digits do not follow; write %25 for %") from None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise error(f"{field}: is not UTF-8 once decoded: {reason.reason} at byte {reason.start}") from None
