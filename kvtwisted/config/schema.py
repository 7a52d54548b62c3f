"""The table of configuration keys, and the one check of their names and values.

`KEYS` is derived from the `Settings` dataclasses: a key that is declared there exists, is checked and is documented. A
configuration travels in three forms: a nested document (what files, GetConfig and UpdateConfig hold), a flat mapping of
dotted names to values (what layers are merged as), and `Settings` (what the server reads).

Pure functions; every refusal is an `InvalidConfig` that names the key, the limit and what was sent.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, cast, get_type_hints

from ..core.errors import InvalidConfig
from .rules import check_together
from .settings import Settings

_TYPE_NAMES: Mapping[type, str] = {bool: "boolean", int: "integer", str: "string"}
_BOOLEAN_WORDS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
_INTEGER_TEXT = re.compile(r"-?[0-9]{1,20}")
_MAX_STRING = 4096
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True)
class Key:
    """One configuration key. `low` and `high` are inclusive; see `core.options.option` for `live` and `guarded`."""

    name: str
    section: str
    type: str
    default: Any
    help: str
    choices: tuple[str, ...]
    live: bool
    #: Why it is guarded (of `core.options.GUARDS`); empty: it is not.
    guarded: str
    #: Of an integer.
    low: int = 0
    high: int = 0

    @property
    def env(self) -> str:
        """The environment variable that sets it: `KV_HTTP_PORT`."""
        return environment_name(self.name)

    @property
    def flag(self) -> str:
        """The command-line option that sets it: `--http-port`."""
        return flag_name(self.name)

    @property
    def may_be_empty(self) -> bool:
        """Whether a string may be empty: if that is its default, and for a folder of logs, which are then not written.

        Any other empty string is refused: as a host it would mean every address.
        """
        return self.default == "" or self.name == "logging.directory"

    @property
    def allowed(self) -> str:
        """What it may be, for messages: "an integer from 0 to 65535"."""
        if self.choices:
            return "one of " + ", ".join(self.choices)
        if self.type == "integer":
            return f"an integer from {self.low} to {self.high}"
        if self.type == "boolean":
            return "true or false"
        emptiness = "" if self.may_be_empty else "non-empty "
        return f"a {emptiness}string of at most {_MAX_STRING} characters without NUL"


def environment_name(name: str) -> str:
    """The environment variable of a key or section: `KV_ROCKSDB_OPTIONS` for `rocksdb.options`."""
    return "KV_" + name.replace(".", "_").upper()


def flag_name(name: str) -> str:
    """The command-line option of a key or section: `--rocksdb-options` for `rocksdb.options`."""
    return "--" + name.replace(".", "-").replace("_", "-")


def _sections_of(settings_class: type, prefix: str = "") -> Iterator[tuple[str, type]]:
    """The dotted name and class of every section, outer ones first; the whole configuration is ""."""
    yield prefix, settings_class
    for name, hint in get_type_hints(settings_class).items():
        if dataclasses.is_dataclass(hint):
            yield from _sections_of(cast(type, hint), _joined(prefix, name))


def _joined(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name


def _keys() -> Iterator[Key]:
    for section, section_class in _sections_of(Settings):
        hints = get_type_hints(section_class)
        for field in dataclasses.fields(section_class):
            if not dataclasses.is_dataclass(hints[field.name]):
                type_name = _TYPE_NAMES[hints[field.name]]
                name = _joined(section, field.name)
                yield Key(name, section, type_name, field.default, **field.metadata)


#: Every key by its dotted name, in the order of declaration.
KEYS: Mapping[str, Key] = {key.name: key for key in _keys()}
#: Every section by its dotted name, `rocksdb.options` included.
SECTIONS: Mapping[str, type] = {name: section for name, section in _sections_of(Settings) if name}


def key_named(name: str) -> Key:
    """The key of that name; an unknown name is an `InvalidConfig` that suggests the nearest known one."""
    key = KEYS.get(name)
    if key is None:
        raise unknown("key", name, [*KEYS, *SECTIONS])
    return key


def unknown(kind: str, name: str, known: Iterable[str]) -> InvalidConfig:
    """The error for a name that does not exist, with the nearest known one."""
    shown = name[:_SHOWN_CHARACTERS]
    nearest = difflib.get_close_matches(shown, list(known), n=1)
    suggestion = f"; did you mean {nearest[0]}?" if nearest else ""
    return InvalidConfig(f"unknown {kind} {json.dumps(shown)}{suggestion}")


def check(name: str, value: object) -> object:
    """The value of key `name` as it stands in a document. Types are strict: true is not 1, and 80.0 is not 80."""
    key = key_named(name)
    if key.type == "boolean":
        valid = isinstance(value, bool)
    elif key.type == "integer":
        valid = isinstance(value, int) and not isinstance(value, bool) and key.low <= value <= key.high
    else:
        valid = isinstance(value, str) and _is_text(value, key)
    if not valid:
        raise _refused(key, value)
    return value


def _is_text(value: str, key: Key) -> bool:
    if key.choices:
        return value in key.choices
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # a lone surrogate, for example from an environment variable that is not UTF-8
        return False
    return len(value) <= _MAX_STRING and "\0" not in value and (value != "" or key.may_be_empty)


def parse_text(name: str, text: str) -> object:
    """The value of key `name` written as text, as in the environment and on the command line.

    Integers are plain decimal digits; booleans are true/false, 1/0, yes/no, on/off in any case; strings are taken as
    they are.
    """
    key = key_named(name)
    value: object = text
    if key.type == "boolean":
        value = _BOOLEAN_WORDS.get(text.lower(), text)
    elif key.type == "integer" and _INTEGER_TEXT.fullmatch(text):
        value = int(text)
    return check(name, value)


def _refused(key: Key, value: object) -> InvalidConfig:
    return InvalidConfig(f"{key.name} must be {key.allowed}, not {_shown(value)}")


def _shown(value: object) -> str:
    """What was sent, short enough and printable."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple)):
        return "an array"
    if isinstance(value, int) and value.bit_length() > 256:  # the interpreter refuses to print very long integers
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, str) and len(value) > _SHOWN_CHARACTERS:
        return f"{json.dumps(value[:_SHOWN_CHARACTERS])}... ({len(value)} characters)"
    if value is None or isinstance(value, (bool, int, float, str)):
        return json.dumps(value)
    return str(value)[:_SHOWN_CHARACTERS]


def flatten(document: object) -> dict[str, object]:
    """The values of a nested document by dotted name, unchecked; names may be dotted at any level.

    Raises `InvalidConfig` for unknown names, for anything but an object where a section stands, and for a section
    given both as an object and in dotted names (two values for one key could hide there).
    """
    flat: dict[str, object] = {}
    as_object: set[str] = set()
    by_dots: set[str] = set()

    def walk(section: str, members: object) -> None:
        if not isinstance(members, Mapping):
            raise InvalidConfig(f"{section or 'the configuration'} must be an object, not {_shown(members)}")
        for member, value in members.items():
            name = _joined(section, str(member))
            if name in SECTIONS:
                as_object.add(name)
                walk(name, value)
            else:
                flat[key_named(name).name] = value
            by_dots.update(_sections_between(section, name))

    walk("", document)
    for section in sorted(as_object & by_dots):
        raise InvalidConfig(f"{section} is given twice, as an object and in dotted names")
    return flat


def _sections_between(section: str, name: str) -> Iterator[str]:
    """The sections that a dotted member name passes through: a and a.b for `a.b.c` in the outermost section."""
    parts = name.split(".")
    first = section.count(".") + 1 if section else 0
    for end in range(first + 1, len(parts)):
        yield ".".join(parts[:end])


def value_of(settings: Settings, name: str) -> Any:
    """The value of the key of that name."""
    return attrgetter(name)(settings)


def build(flat: Mapping[str, object]) -> Settings:
    """The settings with the values of `flat` and defaults for the rest, checked one by one and then together."""
    checked = {name: check(name, value) for name, value in flat.items()}
    settings = cast(Settings, _assembled(Settings, "", checked))
    check_together(settings)
    return settings


def _assembled(section_class: type, section: str, flat: Mapping[str, object]) -> object:
    members: dict[str, object] = {}
    for field in dataclasses.fields(section_class):
        name = _joined(section, field.name)
        if name in SECTIONS:
            members[field.name] = _assembled(SECTIONS[name], name, flat)
        elif name in flat:
            members[field.name] = flat[name]
    return section_class(**members)


def to_document(settings: Settings) -> dict[str, Any]:
    """The nested document of all keys in the order of declaration. `build(flatten(it))` gives the settings back."""
    return dataclasses.asdict(settings)
