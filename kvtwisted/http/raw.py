"""Values as bodies, under `/api/v1/raw/{key}`: the bytes as they are, with entity-tags and preconditions.

A PUT without a precondition is answered with 200 also where the key is new (RFC 9110, section 9.3.4, would have 201):
whether it is, is not looked up, nor told to whoever may only write.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..commands.command import Command
from ..commands.conditional import ConditionalSet
from ..commands.conditions import etag_of
from ..commands.deciding import Outcome
from ..commands.get import Found, Get
from ..commands.mutations import SetValue
from ..commands.set import Set
from ..core.errors import InvalidRequest
from ..core.limits import check_value
from . import answers, urls
from .answers import Answer
from .preconditions import ForReading, quoted

if TYPE_CHECKING:
    from .routes import Bounds, Received

#: What every value is said to be.
OCTETS = "application/octet-stream"
#: Who keeps an answer asks before each use whether the value is still that one.
_REVALIDATE = ("Cache-Control", "no-cache")


def read_get(received: Received, bounds: Bounds) -> Get:
    """The command of a GET, or HEAD."""
    key = urls.path_key(received.tail, received.query)
    return Get(key.encode(), encode=partial(_found, asked=received.preconditions.for_reading()))


def read_put(received: Received, bounds: Bounds) -> Command:
    """The command of a PUT. It digests the value: up to 1.2 ms."""
    if received.is_part:
        raise InvalidRequest("Content-Range: a part of a value cannot be stored; send all of it")
    key, ttl = urls.put_arguments(received.tail, received.query)
    condition = received.preconditions.for_writing()
    value = received.body
    check_value(value)
    tag = ("ETag", quoted(etag_of(value)))
    if condition is not None:
        return ConditionalSet(SetValue(key.encode(), value, ttl), condition, encode=partial(_put, tag=tag))
    command = Set(key.encode(), value, ttl)
    answer = answers.KEY_SET._replace(headers=(tag,))
    # Not every backend completes what has no result.
    command.result, command.encode = answer, lambda _: answer
    return command


def _found(result: Found | None, asked: ForReading | None) -> Answer:
    if result is None:
        return answers.KEY_NOT_FOUND
    etag = etag_of(result.value)
    if asked is not None and asked.answers(etag):
        if asked.status == 412:
            return answers.condition_failed(Outcome(etag=etag))
        return Answer(304, b"", headers=(("ETag", quoted(etag)), _REVALIDATE))
    return Answer(200, result.value, OCTETS, (("ETag", quoted(etag)), _REVALIDATE))


def _put(outcome: Outcome, tag: tuple[str, str]) -> Answer:
    answer = answers.key_set(outcome)
    if outcome.failed_check:
        return answer
    return answer._replace(status=200 if outcome.only.found else 201, headers=(tag,))
