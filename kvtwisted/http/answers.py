"""Answers of the HTTP interface: status, headers and JSON, as plain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import NamedTuple

from ..commands.administration import Backup, Collected, Plan
from ..commands.get import Found
from ..commands.scan import Page
from ..core.limits import as_text

JSON = "application/json"
#: The value of the header Server.
SERVER = b"kvtwisted"
#: Keeps browsers from guessing a type other than the Content-Type.
NOSNIFF = (b"X-Content-Type-Options", b"nosniff")


class Answer(NamedTuple):
    """A whole HTTP answer, except for what the connection adds (Date, Server, Content-Length, Connection)."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()


@cache
def phrase(status: int) -> bytes:
    """The reason phrase of a status."""
    return HTTPStatus(status).phrase.encode("ascii")


def to_json(document: Mapping[str, object]) -> bytes:
    """UTF-8 JSON without insignificant spaces; text is written as it is, not escaped to ASCII."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8")


def problem(status: int, code: str, sentence: str, **more: object) -> Answer:
    """An error: the sentence is for people, the code for programs."""
    return Answer(status, to_json({"success": False, "error": sentence, "code": code, **more}))


def done(message: str) -> Answer:
    """The answer of a command that was carried out and has no result. Made once, when the module is loaded."""
    return Answer(200, to_json({"success": True, "message": message}))


KEY_SET = done("key set successfully")
KEY_DELETED = done("key deleted successfully")
KEYS_SET = done("keys set successfully")
KEYS_DELETED = done("keys deleted successfully")
CONFIG_UPDATED = done("config updated successfully")
HEALTHY = Answer(200, to_json({"status": "ok"}))
KEY_NOT_FOUND = problem(404, "key_not_found", "the key does not exist or has expired")


def found(result: Found | None, key: str) -> Answer:
    """The answer of get: `ttl` is there only when the key expires."""
    if result is None:
        return KEY_NOT_FOUND
    document: dict[str, object] = {"key": key, "value": as_text(result.value)}
    if result.ttl:
        document["ttl"] = result.ttl
    return Answer(200, to_json(document))


def page(result: Page, prefix: str, limit: int, keys_only: bool) -> Answer:
    """The answer of scan, in the order of the page."""
    document: dict[str, object] = {"prefix": prefix, "limit": limit, "count": len(result.keys)}
    if keys_only:
        document["keys"] = list(map(as_text, result.keys))
    else:
        document["results"] = dict(zip(map(as_text, result.keys), map(as_text, result.values)))
    document["next_cursor"] = as_text(result.next_cursor)
    return Answer(200, to_json(document))


def values(result: Mapping[bytes, bytes]) -> Answer:
    """The answer of mget, in the order that was asked."""
    return Answer(200, to_json({"results": {as_text(key): as_text(value) for key, value in result.items()}}))


def configuration(text: str) -> Answer:
    """The answer of a configuration that is JSON text already."""
    return Answer(200, text.encode("utf-8"))


def config_updated(restart_required: Sequence[str]) -> Answer:
    """The answer of a configuration change: the keys that need a restart are named only when there are any."""
    if not restart_required:
        return CONFIG_UPDATED
    document = json.loads(CONFIG_UPDATED.body)
    return Answer(200, to_json({**document, "restart_required": list(restart_required)}))


def backup_made(backup: Backup) -> Answer:
    """The answer of a backup that is whole."""
    return Answer(200, to_json({"success": True, **backup._asdict()}))


def backups(found: Sequence[Backup]) -> Answer:
    """The answer of the list of backups."""
    return Answer(200, to_json({"backups": [backup._asdict() for backup in found]}))


def eviction(plan: Plan) -> Answer:
    """The answer of the dry run of eviction."""
    victims = {reason: foreseen._asdict() for reason, foreseen in plan.victims.items()}
    return Answer(200, to_json({**plan._asdict(), "victims": victims}))


def orphans(collected: Collected) -> Answer:
    """The answer of the collection of orphans."""
    return Answer(200, to_json({"success": True, **collected._asdict()}))


def health(reason: str | None, warnings: Sequence[str] = ()) -> Answer:
    """The answer of the health check; `reason` None is healthy, whatever there is to warn of."""
    more = {"warnings": list(warnings)} if warnings else {}
    if reason is not None:
        return Answer(503, to_json({"status": "unavailable", "reason": reason, **more}))
    return Answer(200, to_json({"status": "ok", **more})) if more else HEALTHY
