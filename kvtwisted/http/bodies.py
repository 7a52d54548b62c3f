"""Reading request bodies: strict JSON, then the fields of each route with their types.

Every function raises an InvalidRequest that names the field; nothing has happened by then. `core.limits` checks sizes
and numbers for both interfaces; only the number of keys is checked here, before objects are made of them. These
functions are for bodies of at most LARGE bytes; `large_bodies` reads larger ones.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from contextlib import suppress

from ..core import strict_json
from ..core.errors import InvalidConfig, InvalidKey, InvalidRequest, InvalidTtl, InvalidValue, TooLarge
from ..core.limits import check_count, encode_key, encode_value
from .errors import UnsupportedCoding, UnsupportedMediaType

#: Depth of objects and arrays in a body: the deepest sensible one, a configuration, has three levels.
MAX_DEPTH = 32

#: Bodies of more bytes are not read on the reactor thread. Also the limit for bodies without keys and values.
LARGE = 65_536
#: Objects, arrays and numbers in a body with keys and values: far more than make sense, and still quick to read.
MAX_PARTS = 64

# Bytes from which they are counted.
_COUNTED = 4096
_SHOWN_CHARACTERS = 60
_UTF8 = frozenset({"utf-8", "utf8"})
#: In the order of `isinstance` tests: a bool is an int in Python, but not in JSON.
_JSON_TYPES = (
    (bool, "a boolean"),
    (str, "a string"),
    (int, "a number"),
    (float, "a number"),
    (dict, "an object"),
    (list, "an array"),
)


def body_limit(max_request_bytes: int) -> int:
    """Bytes of one body at most: a quarter more than the keys and values that it may carry, for the JSON around them.

    `core.limits` checks keys and values themselves. Text that needs many escapes may hit this limit before that one.
    """
    return max_request_bytes + max_request_bytes // 4


def check_content_type(content_type: str | None) -> None:
    """Raise UnsupportedMediaType unless the header says JSON, and UTF-8 if it names a character set."""
    if content_type == "application/json":
        return
    if content_type is None:
        raise UnsupportedMediaType("Content-Type: must be application/json, but there is none")
    media_type, *parameters = (part.strip().lower() for part in content_type.split(";"))
    names_values = [parameter.partition("=") for parameter in parameters if parameter]
    if media_type != "application/json" or any(
        name != "charset" or value.strip('"') not in _UTF8 for name, _, value in names_values
    ):
        shown = shown_text(content_type)
        raise UnsupportedMediaType(f"Content-Type: must be application/json (in UTF-8), but {shown} was sent")


def check_codings(codings: Collection[bytes]) -> None:
    """Raise UnsupportedCoding for a body in any content coding."""
    for coding in codings:
        if coding != b"identity":
            shown = shown_text(coding.decode("latin-1"))
            raise UnsupportedCoding(f"Content-Encoding: must be identity or absent, but {shown} was sent")


def check_size(body: bytes) -> None:
    """Raise TooLarge for a body of more than LARGE bytes, for a route that takes no keys and values."""
    if len(body) > LARGE:
        raise TooLarge(size_sentence(len(body)))


def size_sentence(size: int) -> str:
    """The sentence for a body of `size` bytes that is too large for a route without keys and values."""
    return f"body: too large: {size} bytes were sent, the limit here is {LARGE} bytes"


def set_arguments(body: bytes) -> tuple[bytes, bytes, int]:
    """Key, value and ttl of `/api/v1/set`."""
    fields = fields_of(body, "set", required=("key", "value"), optional=("ttl",))
    key, value = key_of(fields), fields["value"]
    if not isinstance(value, str):
        raise InvalidValue(wrong_type("value", "a string", value))
    return key, encode_value(value), ttl_of(fields)


def mset_arguments(body: bytes, max_keys: int) -> tuple[dict[bytes, bytes], int]:
    """The pairs, at most `max_keys`, and their common ttl of `/api/v1/mset`."""
    fields = fields_of(body, "mset", required=("key_values",), optional=("ttl",))
    pairs = fields["key_values"]
    if not isinstance(pairs, dict):
        raise InvalidRequest(wrong_type("key_values", "an object", pairs))
    check_count(len(pairs), "key_values", max_keys)
    # The quick way for good input; the slow way below finds the words for what is wrong.
    with suppress(AttributeError, UnicodeEncodeError):
        return {key.encode(): value.encode() for key, value in pairs.items()}, ttl_of(fields)
    encoded: dict[bytes, bytes] = {}
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise InvalidValue(wrong_type(f"key_values[{shown_text(key)}]", "a string", value))
        encoded[encode_key(key, "key_values: key")] = encode_value(value, "key_values: value")
    return encoded, ttl_of(fields)


def keys_argument(body: bytes, route: str, max_keys: int) -> list[bytes]:
    """The keys, at most `max_keys`, of `/api/v1/mget` and `/api/v1/mdelete`."""
    keys = fields_of(body, route, required=("keys",))["keys"]
    if not isinstance(keys, list):
        raise InvalidRequest(wrong_type("keys", "an array", keys))
    check_count(len(keys), "keys", max_keys)
    with suppress(AttributeError, UnicodeEncodeError):
        return [key.encode() for key in keys]
    encoded: list[bytes] = []
    for key in keys:
        if not isinstance(key, str):
            raise InvalidKey(wrong_type(f"keys[{len(encoded)}]", "a string", key))
        encoded.append(encode_key(key, "keys"))
    return encoded


def config_argument(body: bytes) -> dict[str, object]:
    """The document of POST `/api/v1/config`; its fields are checked by the configuration itself."""
    check_size(body)
    document = strict_json.loads(body, MAX_DEPTH)
    if not isinstance(document, dict):
        raise InvalidConfig(wrong_type("configuration", "an object", document))
    return document


def backup_argument(body: bytes) -> str | None:
    """The name of `/api/v1/admin/backup`, or None when there is none."""
    check_size(body)
    fields = fields_of(body, "backup", required=(), optional=("name",))
    name = fields.get("name")
    if "name" in fields and not isinstance(name, str):
        raise InvalidRequest(wrong_type("name", "a string", name))
    return name if isinstance(name, str) else None


def no_arguments(body: bytes, route: str) -> None:
    """Check the body of a route that takes no fields: an empty object."""
    check_size(body)
    fields_of(body, route, required=())


def shown_text(text: str) -> str:
    """Text that a client sent, as messages show it: quoted, and cut when it is long."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return json.dumps(cut, ensure_ascii=False)


def fields_of(body: bytes, route: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, object]:
    """The fields of a body; raises InvalidRequest where one is missing or unknown."""
    document = strict_json.loads(body, MAX_DEPTH, MAX_PARTS if len(body) > _COUNTED else None)
    if not isinstance(document, dict):
        raise InvalidRequest(wrong_type("body", "an object", document))
    for name in required:
        if name not in document:
            raise missing_field(name, route, required)
    for name in document:
        if name not in required and name not in optional:
            raise unknown_field(name, route, required + optional)
    return document


def missing_field(name: str, route: str, required: tuple[str, ...]) -> InvalidRequest:
    """The error for a body without that field."""
    return InvalidRequest(f"{name}: is missing; {route} needs {_listed(required)}")


def unknown_field(name: str, route: str, known: tuple[str, ...]) -> InvalidRequest:
    """The error for a body with a field that is not `known`."""
    return InvalidRequest(f"{shown_text(name)}: is not a field; {route} takes {_listed(known)}")


def key_of(fields: Mapping[str, object]) -> bytes:
    """The field key; raises InvalidKey."""
    key = fields["key"]
    if not isinstance(key, str):
        raise InvalidKey(wrong_type("key", "a string", key))
    return encode_key(key)


def ttl_of(fields: Mapping[str, object]) -> int:
    """The field ttl, by default 0; raises InvalidTtl."""
    ttl = fields.get("ttl", 0)
    if not isinstance(ttl, int) or isinstance(ttl, bool):
        sent = "a number with a fraction or exponent" if isinstance(ttl, float) else _type_of(ttl)
        raise InvalidTtl(f"ttl: must be a whole number of seconds, but {sent} was sent")
    return ttl


def wrong_type(field: str, wanted: str, sent: object) -> str:
    """The sentence for a value of another type."""
    return f"{field}: must be {wanted}, but {_type_of(sent)} was sent"


def _type_of(value: object) -> str:
    return next((words for json_type, words in _JSON_TYPES if isinstance(value, json_type)), "null")


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "none"
