"""Answers of the HTTP interface: status, headers and JSON, as plain values."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from http import HTTPStatus
from typing import TYPE_CHECKING, NamedTuple

from ..commands.administration import Backup, Collected, Plan
from ..commands.conditions import etag_of
from ..commands.deciding import Mutated, Outcome
from ..commands.delete_range import Removed
from ..commands.get import Found
from ..commands.mutations import AddNumber, Mutation
from ..commands.scan import Page
from ..core.limits import as_text
from .encodings import BASE64, SOME_NOT_TEXT, encoded, text_of
from .preconditions import quoted

if TYPE_CHECKING:
    from .urls import ScanArguments

JSON = "application/json"
#: The value of the header Server.
SERVER = b"kvtwisted"
#: Keeps browsers from guessing a type other than the Content-Type.
NOSNIFF = (b"X-Content-Type-Options", b"nosniff")

_decode = bytes.decode


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


def found(result: Found | None, key: str, in_base64: bool = False, with_etag: bool = False) -> Answer:
    """The answer of get: `ttl` is there only when the key expires. Raises ValueNotText."""
    if result is None:
        return KEY_NOT_FOUND
    value, ttl = result
    document: dict[str, object] = {"key": key, "value": encoded(value) if in_base64 else text_of(value)}
    if in_base64:
        document["encoding"] = BASE64
    if ttl:
        document["ttl"] = ttl
    if with_etag:
        document["etag"] = etag_of(value)
    return Answer(200, to_json(document))


def page(result: Page, asked: ScanArguments) -> Answer:
    """The answer of scan, in the order of the page."""
    document: dict[str, object] = {"prefix": asked.prefix, "limit": asked.limit}
    if asked.count_only:
        document["count"] = result.counted
    elif asked.keys_only:
        document.update(count=len(result.keys), keys=list(map(as_text, result.keys)))
    else:
        document.update(_shown(result.keys, result.values, asked.encoding, counted=True))
    if asked.delimiter:
        document["prefixes"] = list(map(as_text, result.prefixes))
    document["next_cursor"] = as_text(result.next_cursor)
    if asked.tells_revision:
        document["revision"] = result.revision
    return Answer(200, to_json(document))


def values(result: Mapping[bytes, bytes], in_base64: bool = False) -> Answer:
    """The answer of mget, in the order that was asked."""
    return Answer(200, to_json(_shown(result.keys(), result.values(), in_base64)))


def _shown(
    keys: Collection[bytes], values: Collection[bytes], in_base64: bool, *, counted: bool = False
) -> dict[str, object]:
    """Keys with their values, in order, and what is said of those that are no text and were asked for as that."""
    not_text: list[str] = []
    try:
        results = dict(zip(map(_decode, keys), map(encoded if in_base64 else _decode, values)))
    except UnicodeDecodeError:
        results = {}
        for key, value in zip(map(as_text, keys), values):
            try:
                results[key] = _decode(value)
            except UnicodeDecodeError:
                not_text.append(key)
    document: dict[str, object] = {"count": len(results)} if counted else {}
    document["results"] = results
    if in_base64:
        document["encoding"] = BASE64
    if not_text:
        document.update(not_text=not_text, error=SOME_NOT_TEXT)
    return document


# Writes that tell of what was there, and their revision.


def key_set(outcome: Outcome) -> Answer:
    """The answer of a set with a condition."""
    return _written(outcome, "key set successfully")


def key_deleted(outcome: Outcome) -> Answer:
    """The answer of a delete with a condition."""
    return _written(outcome, "key deleted successfully")


def touched(outcome: Outcome) -> Answer:
    """The answer of touch."""
    if outcome.failed_check:
        return condition_failed(outcome)
    document = {"success": True, "found": outcome.only.found, "revision": outcome.revision}
    return Answer(200, to_json(document))


def incremented(outcome: Outcome) -> Answer:
    """The answer of increment."""
    return Answer(200, to_json({"success": True, **_number(outcome.only), "revision": outcome.revision}))


def transacted(outcome: Outcome, mutations: Sequence[Mutation]) -> Answer:
    """The answer of transact, which has these mutations."""
    if outcome.failed_check:
        return condition_failed(outcome, f"checks[{outcome.failed_check - 1}].", failed_check=outcome.failed_check)
    results = [
        {"found": done.found, **(_number(done) if isinstance(mutation, AddNumber) else {})}
        for mutation, done in zip(mutations, outcome.mutated)
    ]
    return Answer(200, to_json({"success": True, "results": results, "revision": outcome.revision}))


def range_deleted(removed: Removed) -> Answer:
    """The answer of delete_range."""
    return Answer(200, to_json({"success": True, **removed._asdict()}))


def condition_failed(outcome: Outcome, where: str = "", **more: object) -> Answer:
    """Nothing was written: the etag is that of what is there, or null."""
    sentence = f"{where}condition: does not hold; nothing was written"
    result = problem(412, "condition_failed", sentence, etag=outcome.etag or None, **more)
    return result._replace(headers=(("ETag", quoted(outcome.etag)),)) if outcome.etag else result


def _written(outcome: Outcome, message: str) -> Answer:
    if outcome.failed_check:
        return condition_failed(outcome)
    return Answer(200, to_json({"success": True, "message": message, "revision": outcome.revision}))


def _number(done: Mutated) -> dict[str, object]:
    return {"value": done.value, "created": done.created}


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
