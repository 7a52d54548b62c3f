"""Reading request bodies: strict JSON, then the fields of each route with their types.

Every function raises an InvalidRequest that names the field; nothing has happened by then. `core.limits` checks sizes
and numbers for both interfaces; only the number of keys is checked here, before objects are made of them. These
functions are for bodies of at most LARGE bytes; `large_bodies` reads larger ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress

from ..commands.conditions import Condition
from ..commands.mutations import AddNumber, SetValue, TouchKey
from ..core import strict_json
from ..core.errors import InvalidConfig, InvalidKey, InvalidRequest, TooLarge
from ..core.limits import check_count, encode_key
from . import writes
from .encodings import is_base64, value_of
from .errors import UnsupportedCoding, UnsupportedMediaType
from .wording import missing_field, shown_text, unknown_field, wrong_type
from .writes import Range, Transaction, ttl_of

#: Depth of objects and arrays in a body: the deepest sensible one, a configuration, has three levels.
MAX_DEPTH = 32

#: The fields that a body of each route needs, and others that it may have.
SET_FIELDS = ("key", "value"), ("ttl", "condition", "encoding")
MSET_FIELDS = ("key_values",), ("ttl", "encoding")
MGET_FIELDS = ("keys",), ("encoding",)
MDELETE_FIELDS: tuple[tuple[str, ...], tuple[str, ...]] = ("keys",), ()
TOUCH_FIELDS = ("key",), ("ttl", "condition", "encoding")
TRANSACT_FIELDS: tuple[tuple[str, ...], tuple[str, ...]] = (), ("checks", "mutations", "encoding")

#: Bodies of more bytes are not read on the reactor thread. Also the limit for bodies without keys and values.
LARGE = 65_536
#: Objects, arrays and numbers in a body with keys and values: far more than make sense, and still quick to read.
MAX_PARTS = 64

# Bytes from which they are counted.
_COUNTED = 4096
_UTF8 = frozenset({"utf-8", "utf8"})


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


def set_arguments(body: bytes) -> tuple[SetValue, Condition | None]:
    """Key, value and ttl of `/api/v1/set`, and its condition."""
    return writes.set_of(fields_of(body, "set", *SET_FIELDS))


def mset_arguments(body: bytes, max_keys: int) -> tuple[dict[bytes, bytes], int]:
    """The pairs, at most `max_keys`, and their common ttl of `/api/v1/mset`."""
    fields = fields_of(body, "mset", *MSET_FIELDS)
    pairs = fields["key_values"]
    if not isinstance(pairs, dict):
        raise InvalidRequest(wrong_type("key_values", "an object", pairs))
    check_count(len(pairs), "key_values", max_keys)
    in_base64 = is_base64(fields)
    if not in_base64:
        # The quick way for good input; the slow way below finds the words for what is wrong.
        with suppress(AttributeError, UnicodeEncodeError):
            return {key.encode(): value.encode() for key, value in pairs.items()}, ttl_of(fields)
    encoded: dict[bytes, bytes] = {}
    for key, value in pairs.items():
        field = f"key_values[{shown_text(key)}]"
        encoded[encode_key(key, "key_values: key")] = value_of(value, field, in_base64)
    return encoded, ttl_of(fields)


def mget_arguments(body: bytes, max_keys: int) -> tuple[list[bytes], bool]:
    """The keys, at most `max_keys`, of `/api/v1/mget`, and whether the values are to come in base64."""
    fields = fields_of(body, "mget", *MGET_FIELDS)
    return _keys_of(fields, max_keys), is_base64(fields)


def mdelete_arguments(body: bytes, max_keys: int) -> list[bytes]:
    """The keys, at most `max_keys`, of `/api/v1/mdelete`."""
    return _keys_of(fields_of(body, "mdelete", *MDELETE_FIELDS), max_keys)


def _keys_of(fields: Mapping[str, object], max_keys: int) -> list[bytes]:
    keys = fields["keys"]
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


def touch_arguments(body: bytes) -> tuple[TouchKey, Condition | None]:
    """Key and ttl of `/api/v1/touch`, and its condition."""
    return writes.touch_of(fields_of(body, "touch", *TOUCH_FIELDS))


def increment_argument(body: bytes) -> AddNumber:
    """Key, delta and ttl of `/api/v1/increment`."""
    check_size(body)
    return writes.increment_of(fields_of(body, "increment", *writes.MUTATIONS["increment"]))


def transaction(body: bytes, max_keys: int) -> Transaction:
    """Checks and mutations, at most `max_keys` together, of `/api/v1/transact`."""
    return writes.transaction_of(fields_of(body, "transact", *TRANSACT_FIELDS, is_flat=False), max_keys)


def range_argument(body: bytes) -> Range:
    """The range of `/api/v1/delete_range`."""
    check_size(body)
    return writes.range_of(fields_of(body, "delete_range", (), ("prefix", "start", "end", "all", "dry_run")))


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


def fields_of(
    body: bytes, route: str, required: tuple[str, ...], optional: tuple[str, ...] = (), *, is_flat: bool = True
) -> dict[str, object]:
    """The fields of a body; raises InvalidRequest where one is missing or unknown. Of a flat one it has few parts."""
    document = strict_json.loads(body, MAX_DEPTH, MAX_PARTS if is_flat and len(body) > _COUNTED else None)
    if not isinstance(document, dict):
        raise InvalidRequest(wrong_type("body", "an object", document))
    for name in required:
        if name not in document:
            raise missing_field(name, route, required)
    for name in document:
        if name not in required and name not in optional:
            raise unknown_field(name, route, required + optional)
    return document
