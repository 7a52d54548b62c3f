"""Reading URLs: the key at the end of a path and the parameters of a query string.

Percent sequences are decoded exactly once, strictly, and must give UTF-8. The standard library's functions are not used
because they let malformed sequences through as they are.
"""

from __future__ import annotations

from typing import NamedTuple

from ..core.errors import InvalidKey, InvalidRequest
from .bodies import shown_text

DEFAULT_SCAN_LIMIT = 100
MAX_SCAN_LIMIT = 10_000

_DIGITS = "0123456789abcdefABCDEF"
_BYTES = {(high + low).encode(): bytes((int(high + low, 16),)) for high in _DIGITS for low in _DIGITS}
_SWITCH = {"true": True, "false": False}
_SCAN_PARAMETERS = ("prefix", "limit", "cursor", "keys_only")
_PLAIN = {name.encode(): name for name in _SCAN_PARAMETERS}


class ScanArguments(NamedTuple):
    """The parameters of `/api/v1/scan`."""

    prefix: str
    limit: int
    cursor: str
    keys_only: bool


def path_key(tail: bytes, query: bytes) -> str:
    """The key that is all of a path after the route; raises InvalidKey.

    A query is refused: it is far more likely to belong to a key whose `?` was not encoded than to be meant as one, and
    then another key would be read or deleted.
    """
    if query:
        raise InvalidKey("key: a '?' that belongs to the key must be written %3F; there are no parameters here")
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
        error = InvalidKey if field in ("prefix", "cursor") else InvalidRequest
        parameters[field] = decode(value.replace(b"+", b" "), field, error)
    return ScanArguments(
        prefix=parameters.get("prefix", ""),
        limit=_limit(parameters["limit"]) if "limit" in parameters else DEFAULT_SCAN_LIMIT,
        cursor=parameters.get("cursor", ""),
        keys_only="keys_only" in parameters and _keys_only(parameters["keys_only"]),
    )


def origin_form(target: bytes) -> bytes:
    """The target of a request as most clients send it: path and query.

    The absolute form has to be accepted, too (RFC 9112, section 3.2.2).
    """
    if not target.startswith((b"http://", b"https://")):
        return target
    return b"/" + target.split(b"/", 3)[3] if target.count(b"/") > 2 else b"/"


def _limit(text: str) -> int:
    # `int` takes more than digits, and `isdigit` more than ASCII.
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_SCAN_LIMIT)):
        limit = int(text)
        if 1 <= limit <= MAX_SCAN_LIMIT:
            return limit
    raise InvalidRequest(f"limit: must be a whole number from 1 to {MAX_SCAN_LIMIT}, but {shown_text(text)} was sent")


def _keys_only(text: str) -> bool:
    if text not in _SWITCH:
        raise InvalidRequest(f"keys_only: must be true or false, but {shown_text(text)} was sent")
    return _SWITCH[text]


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
