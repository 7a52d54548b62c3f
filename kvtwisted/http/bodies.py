"""Reading request bodies: strict JSON, then the fields of each route with their types.

Every function raises an InvalidRequest that names the field, and nothing has happened by then. Limits on sizes and
numbers are not checked here but in `core.limits`, for both interfaces.
"""

from __future__ import annotations

import json

from ..core import strict_json
from ..core.errors import InvalidConfig, InvalidKey, InvalidRequest, InvalidTtl, InvalidValue
from ..core.limits import encode_key, encode_value
from .errors import UnsupportedMediaType

#: Depth of objects and arrays in a body: the deepest sensible one, a configuration, has three levels.
MAX_DEPTH = 32

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


def set_arguments(body: bytes) -> tuple[bytes, bytes, int]:
    """Key, value and ttl of `/api/v1/set`."""
    fields = _fields(body, "set", required=("key", "value"), optional=("ttl",))
    key, value = fields["key"], fields["value"]
    if not isinstance(key, str):
        raise InvalidKey(_wrong_type("key", "a string", key))
    if not isinstance(value, str):
        raise InvalidValue(_wrong_type("value", "a string", value))
    return encode_key(key), encode_value(value), _ttl(fields)


def mset_arguments(body: bytes) -> tuple[dict[bytes, bytes], int]:
    """The pairs and their common ttl of `/api/v1/mset`."""
    fields = _fields(body, "mset", required=("key_values",), optional=("ttl",))
    pairs = fields["key_values"]
    if not isinstance(pairs, dict):
        raise InvalidRequest(_wrong_type("key_values", "an object", pairs))
    encoded: dict[bytes, bytes] = {}
    for key, value in pairs.items():
        if not isinstance(value, str):
            raise InvalidValue(_wrong_type(f"key_values[{shown_text(key)}]", "a string", value))
        encoded[encode_key(key, "key_values: key")] = encode_value(value, "key_values: value")
    return encoded, _ttl(fields)


def keys_argument(body: bytes, route: str) -> list[bytes]:
    """The keys of `/api/v1/mget` and `/api/v1/mdelete`."""
    keys = _fields(body, route, required=("keys",))["keys"]
    if not isinstance(keys, list):
        raise InvalidRequest(_wrong_type("keys", "an array", keys))
    encoded: list[bytes] = []
    for key in keys:
        if not isinstance(key, str):
            raise InvalidKey(_wrong_type(f"keys[{len(encoded)}]", "a string", key))
        encoded.append(encode_key(key, "keys"))
    return encoded


def config_argument(body: bytes) -> dict[str, object]:
    """The document of POST `/api/v1/config`; its fields are checked by the configuration itself."""
    document = strict_json.loads(body, MAX_DEPTH)
    if not isinstance(document, dict):
        raise InvalidConfig(_wrong_type("configuration", "an object", document))
    return document


def backup_argument(body: bytes) -> str | None:
    """The name of `/api/v1/admin/backup`, or None when there is none."""
    fields = _fields(body, "backup", required=(), optional=("name",))
    name = fields.get("name")
    if "name" in fields and not isinstance(name, str):
        raise InvalidRequest(_wrong_type("name", "a string", name))
    return name if isinstance(name, str) else None


def no_arguments(body: bytes, route: str) -> None:
    """Check the body of a route that takes no fields: an empty object."""
    _fields(body, route, required=())


def shown_text(text: str) -> str:
    """What a client sent, as a message may show it: quoted, and cut when it is long."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return json.dumps(cut, ensure_ascii=False)


def _fields(body: bytes, route: str, required: tuple[str, ...], optional: tuple[str, ...] = ()) -> dict[str, object]:
    document = strict_json.loads(body, MAX_DEPTH)
    if not isinstance(document, dict):
        raise InvalidRequest(_wrong_type("body", "an object", document))
    for name in required:
        if name not in document:
            raise InvalidRequest(f"{name}: is missing; {route} needs {_listed(required)}")
    for name in document:
        if name not in required and name not in optional:
            raise InvalidRequest(f"{shown_text(name)}: is not a field; {route} takes {_listed(required + optional)}")
    return document


def _ttl(fields: dict[str, object]) -> int:
    ttl = fields.get("ttl", 0)
    if not isinstance(ttl, int) or isinstance(ttl, bool):
        sent = "a number with a fraction or exponent" if isinstance(ttl, float) else _type_of(ttl)
        raise InvalidTtl(f"ttl: must be a whole number of seconds, but {sent} was sent")
    return ttl


def _wrong_type(field: str, wanted: str, sent: object) -> str:
    return f"{field}: must be {wanted}, but {_type_of(sent)} was sent"


def _type_of(value: object) -> str:
    return next((words for json_type, words in _JSON_TYPES if isinstance(value, json_type)), "null")


def _listed(names: tuple[str, ...]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "none"
