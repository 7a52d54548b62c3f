"""Words of refusals: what a field must be, and what was sent in its place."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..core.errors import InvalidRequest

_SHOWN_CHARACTERS = 60
#: In the order of `isinstance` tests: a bool is an int in Python, but not in JSON.
_JSON_TYPES = (
    (bool, "a boolean"),
    ((str, bytes), "a string"),
    (int, "a number"),
    (float, "a number"),
    (dict, "an object"),
    (list, "an array"),
)


def shown_text(text: str) -> str:
    """Text that a client sent, as messages show it: quoted, and cut when it is long."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "..."
    return json.dumps(cut, ensure_ascii=False)


def missing_field(name: str, whole: str, required: Sequence[str]) -> InvalidRequest:
    """The error for a body, or an object in one, without that field."""
    return InvalidRequest(f"{name}: is missing; {whole} needs {_listed(required)}")


def unknown_field(name: str, whole: str, known: Sequence[str]) -> InvalidRequest:
    """The error for a body, or an object in one, with a field that is not `known`."""
    return InvalidRequest(f"{shown_text(name)}: is not a field; {whole} takes {_listed(known)}")


def wrong_type(field: str, wanted: str, sent: object) -> str:
    """The sentence for a value of another type."""
    return f"{field}: must be {wanted}, but {type_of(sent)} was sent"


def type_of(value: object) -> str:
    """What JSON calls it, with an article."""
    return next((words for json_type, words in _JSON_TYPES if isinstance(value, json_type)), "null")


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "none"
