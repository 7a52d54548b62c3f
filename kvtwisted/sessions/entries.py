"""Entries of a token file: read strictly from JSON, and written.

Every refusal is an `InvalidTokens` that names the entry, the field, the limit and what was found. Digests are never
shown. Pure functions; any thread.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from ..core.errors import InvalidConfig, InvalidRequest
from ..core.limits import MAX_KEY_BYTES
from ..core.strict_json import loads
from .grants import OPERATIONS, Grant, check_grant
from .peer_names import MAX_NAME, usable
from .quotas import Quota
from .tokens import MAX_ID_LENGTH, valid_id

#: The form's version, which the file names.
VERSION = 1
MAX_TOKENS = 2048
MAX_GRANTS = 64
#: Operations and bytes per second at most.
MAX_RATE_OPERATIONS, MAX_RATE_BYTES = 1_000_000_000, 1_000_000_000_000
#: Bytes and keys of a quota at most.
MAX_QUOTA_BYTES, MAX_QUOTA_KEYS = 1_000_000_000_000_000, 1_000_000_000_000

_RATE_LIMITS = {"operations": MAX_RATE_OPERATIONS, "bytes": MAX_RATE_BYTES}
_QUOTA_LIMITS = {"bytes": MAX_QUOTA_BYTES, "keys": MAX_QUOTA_KEYS}

_MAX_DEPTH = 8
_DIGEST = re.compile("[0-9a-f]{64}")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", re.ASCII)
_TIME_FORM = "%Y-%m-%dT%H:%M:%SZ"


class InvalidTokens(InvalidConfig):
    """A token file that cannot be used, or a change of it that cannot be made."""


class OwnRate(NamedTuple):
    """A token's own rate, per second: 0 is no limit; None: the rate of the server's configuration."""

    operations: int | None = None
    bytes: int | None = None


class TokenEntry(NamedTuple):
    """One token, or a client certificate of the name `certificate`, whose entry has an empty digest.

    `not_after` is the Unix time at which it expires; None: never.
    """

    id: str
    digest: bytes
    grants: tuple[Grant, ...]
    not_after: int | None = None
    rate: OwnRate | None = None
    certificate: str | None = None
    quota: Quota | None = None


def read_entries(data: bytes) -> list[TokenEntry]:
    """The entries of a file's content. Raises InvalidTokens."""
    try:
        document = loads(data, _MAX_DEPTH)
    except InvalidRequest as error:
        raise InvalidTokens(str(error)) from None
    members = _members(document, "the file", ("version", "tokens"))
    if type(members["version"]) is not int or members["version"] != VERSION:
        raise InvalidTokens(f"version: must be {VERSION}, not {_shown(members['version'])}")
    found = _array(members["tokens"], "tokens", 0, MAX_TOKENS)
    entries = [_entry(each, f"tokens[{number}]") for number, each in enumerate(found)]
    certificates = [entry.certificate for entry in entries if entry.certificate is not None]
    if len(set(certificates)) < len(certificates):
        raise InvalidTokens("tokens: two have the same certificate")
    seen: dict[str, int] = {}
    for number, entry in enumerate(entries):
        if seen.setdefault(entry.id, number) != number:
            raise InvalidTokens(f"tokens[{number}].id: {entry.id} is the id of tokens[{seen[entry.id]}] already")
    return entries


def write_entries(entries: Iterable[TokenEntry]) -> bytes:
    """The content of a file with these entries. `read_entries` gives them back, and refuses what is not valid."""
    tokens = []
    for entry in entries:
        shown = show_entry(entry)
        secret = {} if entry.certificate is not None else {"sha256": entry.digest.hex()}
        tokens.append({"id": shown.pop("id"), **secret, **shown})
    return (json.dumps({"version": VERSION, "tokens": tokens}, ensure_ascii=False, indent=2) + "\n").encode()


def show_entry(entry: TokenEntry) -> dict[str, Any]:
    """An entry as JSON, without its digest."""
    shown: dict[str, Any] = {
        "id": entry.id,
        "grants": [
            {"operations": [name for name in OPERATIONS if name in grant.operations], "prefix": grant.prefix.decode()}
            for grant in entry.grants
        ],
        "not_after": None if entry.not_after is None else write_time(entry.not_after),
    }
    if entry.certificate is not None:
        shown["certificate"] = entry.certificate
    if entry.rate is not None:
        shown["rate"] = {name: value for name, value in entry.rate._asdict().items() if value is not None}
    if entry.quota is not None:
        shown["quota"] = {name: value for name, value in entry.quota._asdict().items() if value}
    return shown


def read_time(text: str, name: str = "") -> int:
    """Unix seconds of a time such as 2027-01-01T00:00:00Z (RFC 3339, in UTC, whole seconds). Raises InvalidTokens, with
    a sentence that begins with `name`."""
    try:
        if not _TIME.fullmatch(text):
            raise ValueError
        return int(datetime.strptime(text, _TIME_FORM).replace(tzinfo=timezone.utc).timestamp())
    except ValueError:
        raise InvalidTokens(f"{name}must be a time in UTC like 2027-01-01T00:00:00Z, not {_shown(text)}") from None


def write_time(seconds: int) -> str:
    """The other way."""
    # strftime has no leading zeros in years before 1000 on some systems.
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat().replace("+00:00", "Z")


def make_grant(operations: Iterable[str], prefix: str, name: str) -> Grant:
    """A grant, checked; `name` is what a refusal begins with. Raises InvalidTokens."""
    try:
        encoded = prefix.encode()
    except UnicodeEncodeError:
        raise InvalidTokens(f"{name}prefix: must be Unicode text") from None
    if len(encoded) > MAX_KEY_BYTES:
        raise InvalidTokens(f"{name}prefix: must be at most {MAX_KEY_BYTES} bytes, not {len(encoded)}")
    grant = Grant(frozenset(operations), encoded)
    reason = check_grant(grant)
    if reason is not None:
        raise InvalidTokens(f"{name}{reason}")
    return grant


def _entry(value: object, name: str) -> TokenEntry:
    members = _members(value, name, ("id", "grants"), ("sha256", "certificate", "not_after", "rate", "quota"))
    token_id = _text(members["id"], f"{name}.id")
    if not valid_id(token_id):
        raise InvalidTokens(
            f"{name}.id: must be 1 to {MAX_ID_LENGTH} of a-z 0-9 - and not begin with -, not {_shown(token_id)}"
        )
    digest, certificate = _shows(members, name)
    found = _array(members["grants"], f"{name}.grants", 1, MAX_GRANTS)
    grants = tuple(_grant(each, f"{name}.grants[{number}]") for number, each in enumerate(found))
    not_after, own, quota = None, None, None
    if members.get("not_after") is not None:
        not_after = read_time(_text(members["not_after"], "not_after"), f"{name}.not_after: ")
    if members.get("rate") is not None:
        own = OwnRate(**_amounts(members["rate"], f"{name}.rate", _RATE_LIMITS))
    if members.get("quota") is not None:
        quota = Quota(**_amounts(members["quota"], f"{name}.quota", _QUOTA_LIMITS))
    return TokenEntry(token_id, digest, grants, not_after, own, certificate, quota)


def _shows(members: Mapping[str, object], name: str) -> tuple[bytes, str | None]:
    """What a client has to show: the secret with this digest, or a certificate of this name."""
    if ("sha256" in members) == ("certificate" in members):
        raise InvalidTokens(f"{name}: must have either sha256 or certificate")
    if "certificate" in members:
        certificate = _text(members["certificate"], f"{name}.certificate")
        if not usable(certificate):
            raise InvalidTokens(
                f"{name}.certificate: must have 1 to {MAX_NAME} printable characters and no space at either end, "
                f"not {_shown(certificate)}"
            )
        return b"", certificate
    digest = _text(members["sha256"], f"{name}.sha256")
    if not _DIGEST.fullmatch(digest):
        raise InvalidTokens(f"{name}.sha256: must be 64 hexadecimal digits in lower case")
    return bytes.fromhex(digest), None


def _grant(value: object, name: str) -> Grant:
    members = _members(value, name, ("operations", "prefix"))
    found = _array(members["operations"], f"{name}.operations", 1, len(OPERATIONS))
    operations = [_text(each, f"{name}.operations[{number}]") for number, each in enumerate(found)]
    if len(set(operations)) != len(operations):
        raise InvalidTokens(f"{name}.operations: one is named twice")
    return make_grant(operations, _text(members["prefix"], f"{name}.prefix"), f"{name}.")


def _amounts(value: object, name: str, limits: Mapping[str, int]) -> dict[str, int]:
    """An object of whole numbers, each from 0 to its limit."""
    amounts = {}
    for member, amount in _members(value, name, (), tuple(limits)).items():
        if type(amount) is not int or not 0 <= amount <= limits[member]:
            sentence = f"must be an integer from 0 to {limits[member]}, not {_shown(amount)}"
            raise InvalidTokens(f"{name}.{member}: {sentence}")
        amounts[member] = amount
    return amounts


def _members(value: object, name: str, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise InvalidTokens(f"{name}: must be an object, not {_shown(value)}")
    for member in value:
        if member not in needed and member not in optional:
            raise InvalidTokens(f"{name}: unknown field {_shown(member)}; there are {', '.join(needed + optional)}")
    for member in needed:
        if member not in value:
            raise InvalidTokens(f"{name}: the field {member} is missing")
    return value


def _array(value: object, name: str, low: int, high: int) -> list[object]:
    if not isinstance(value, list):
        raise InvalidTokens(f"{name}: must be an array, not {_shown(value)}")
    if not low <= len(value) <= high:
        raise InvalidTokens(f"{name}: must have {low} to {high} elements, not {len(value)}")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidTokens(f"{name}: must be a string, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    """What was found, printable and short: a secret in the wrong place is never shown."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "an array"
    if isinstance(value, str):
        return json.dumps(value) if len(value) <= MAX_ID_LENGTH else f"a string of {len(value)} characters"
    return "a long number" if isinstance(value, int) and value.bit_length() > 64 else json.dumps(value)
