"""Values in JSON: as text, or in base64 (RFC 4648, section 4).

Base64 is read strictly: the alphabet with `+` and `/`, no line ends, all of the padding, and no bits that are lost. So
each value has one spelling.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from collections.abc import Mapping

from ..core.errors import InvalidRequest, InvalidValue, ValueNotText
from ..core.limits import MAX_VALUE_BYTES, encode_value
from .wording import shown_text, wrong_type

#: The value of `encoding`, in bodies, queries and answers.
BASE64 = "base64"

#: Characters of the largest value in base64.
MAX_CHARACTERS = (MAX_VALUE_BYTES + 2) // 3 * 4

#: What is said of a value that is no text, and of many.
NOT_TEXT = "value: is not UTF-8 text; ask for it with encoding=base64, or at /api/v1/raw/{key}"
SOME_NOT_TEXT = "the values of the keys in not_text are not UTF-8 text; ask for them with encoding base64"

_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def is_base64(fields: Mapping[str, object]) -> bool:
    """Whether a body says that its values are in base64. Raises InvalidRequest for any other encoding."""
    if "encoding" not in fields:
        return False
    encoding = fields["encoding"]
    if not isinstance(encoding, str):
        raise InvalidRequest(wrong_type("encoding", "a string", encoding))
    if encoding != BASE64:
        raise InvalidRequest(f'encoding: must be "{BASE64}" or absent, but {shown_text(encoding)} was sent')
    return True


def value_of(sent: object, field: str, in_base64: bool) -> bytes:
    """The bytes of a value: of a JSON string, or of the UTF-8 of one. Raises InvalidValue."""
    if isinstance(sent, str):
        sent = encode_value(sent, field)
    elif not isinstance(sent, bytes):
        raise InvalidValue(wrong_type(field, "a string", sent))
    return decoded(sent, field) if in_base64 else sent


def decoded(text: bytes, field: str) -> bytes:
    """The bytes that base64 stands for. Raises InvalidValue."""
    digits = text.rstrip(b"=")
    padding = len(text) - len(digits)
    if digits.translate(None, _ALPHABET):
        raise InvalidValue(f"{field}: is not base64: only A-Z, a-z, 0-9, + and / may stand there, and = at its end")
    if len(text) % 4 or padding > 2:
        raise InvalidValue(f"{field}: is not base64: 4 characters stand for 3 bytes, the last ones with = up to 4")
    value = a2b_base64(text)
    if padding and not text.endswith(b2a_base64(value[-(3 - padding) :], newline=False)):
        raise InvalidValue(f"{field}: is not base64: its last character has bits that are lost")
    return value


def encoded(value: bytes) -> str:
    """The base64 of a value."""
    return b2a_base64(value, newline=False).decode("ascii")


def text_of(value: bytes) -> str:
    """The text of a value. Raises ValueNotText."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueNotText(NOT_TEXT) from None
