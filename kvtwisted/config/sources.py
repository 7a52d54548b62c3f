"""Where configuration values come from: a file, the environment, the command line. Each gives checked flat values.

Every refusal is an `InvalidConfig` that names the file, the variable or the option, and then the key.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import partial
from typing import Callable, NamedTuple

from ..core.errors import InvalidConfig, InvalidRequest
from ..core.strict_json import decode_utf8, loads
from .schema import KEYS, SECTIONS, check, environment_name, flag_name, flatten, parse_text, unknown

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Depth of a configuration document; the deepest key needs 3.
MAX_DEPTH = 16
#: The section that the environment and the command line may also set as a whole, by a JSON object.
OPTIONS_SECTION = "rocksdb.options"

_MAX_FILE_BYTES = 1 << 20
_VARIABLES = {environment_name(name): name for name in (*KEYS, OPTIONS_SECTION)}
_FLAGS = {flag_name(name): name for name in (*KEYS, OPTIONS_SECTION)}
_SECTION_PREFIXES = tuple(environment_name(section) + "_" for section in SECTIONS)


def load_file(path: str) -> dict[str, object]:
    """The values of a TOML or JSON file, told apart by its suffix. Blocks while it reads; holds nothing open."""
    parse = _PARSERS.get(os.path.splitext(path)[1].lower())
    if parse is None:
        raise InvalidConfig(f"configuration file {path}: its name must end in .toml or .json")
    try:
        return check_document(parse(_read(path)))
    except FileNotFoundError as error:
        raise InvalidConfig(f"configuration file {path}: there is no such file") from error
    except InvalidRequest as error:
        raise InvalidConfig(f"configuration file {path}: {error}") from error


def load_runtime_file(path: str) -> dict[str, object]:
    """The values of the JSON file in which updates at run time are kept; none when there is no such file."""
    try:
        return check_document(loads(_read(path), MAX_DEPTH))
    except FileNotFoundError:
        return {}
    except InvalidRequest as error:
        raise runtime_file_refused(path, error) from error


def runtime_file_refused(path: str, reason: InvalidRequest) -> InvalidConfig:
    """The error for a runtime file that cannot be used; it says what to do."""
    return InvalidConfig(
        f"runtime configuration file {path}: {reason}. Correct it, or delete it to undo every change made at run time"
    )


def check_document(document: object) -> dict[str, object]:
    """The values of a nested document by dotted name, each checked alone."""
    return {name: check(name, value) for name, value in flatten(document).items()}


def _read(path: str) -> bytes:
    """The bytes of a file; `InvalidConfig` when it cannot be read, except `FileNotFoundError`, which is passed on."""
    try:
        with open(path, "rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InvalidConfig(f"it cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise InvalidConfig(f"it is larger than {_MAX_FILE_BYTES} bytes")
    return data


def _parse_toml(data: bytes) -> object:
    try:
        return tomllib.loads(decode_utf8(data))
    except InvalidRequest:
        raise
    except ValueError as error:  # TOMLDecodeError, or an integer beyond the interpreter's limit
        raise InvalidConfig(f"invalid TOML: {error}") from error
    except RecursionError as error:
        raise InvalidConfig("invalid TOML: its arrays or tables are nested too deep") from error


_PARSERS: Mapping[str, Callable[[bytes], object]] = {".toml": _parse_toml, ".json": partial(loads, max_depth=MAX_DEPTH)}


class Pin(NamedTuple):
    """A value that cannot be changed at run time, and what set it: "environment variable KV_HTTP_PORT"."""

    value: object
    by: str


def environment_pins(environ: Mapping[str, str]) -> dict[str, Pin]:
    """What the `KV_*` variables set. `KV_ROCKSDB_OPTIONS` may hold a JSON object.

    A variable that begins with a section (`KV_HTTP_`) but names no key is an error: most likely a typing mistake. Other
    `KV_` variables belong to other programs and are ignored.
    """
    ours = {name: text for name, text in environ.items() if name.startswith(_SECTION_PREFIXES)}
    return _pins(ours, _VARIABLES, "environment variable")


def flag_pins(flags: Mapping[str, str | None]) -> dict[str, Pin]:
    """What command-line options set, by name with or without the leading `--`; None means not given.

    An option that names no key is an error. `--rocksdb-options` may hold a JSON object.
    """
    given = {"--" + name.lstrip("-"): text for name, text in flags.items() if text is not None}
    return _pins(given, _FLAGS, "command-line option")


def _pins(texts: Mapping[str, str], names: Mapping[str, str], kind: str) -> dict[str, Pin]:
    """The pins of `texts`, whose names `names` maps to keys or to the options section."""
    pins: dict[str, Pin] = {}
    for text_name, text in sorted(texts.items()):
        if text_name not in names:
            raise unknown(kind, text_name, names)
        name, by = names[text_name], f"{kind} {text_name}"
        try:
            values = _options(text) if name == OPTIONS_SECTION else {name: parse_text(name, text)}
        except InvalidRequest as error:
            raise InvalidConfig(f"{by}: {error}") from error
        for twice in sorted(pins.keys() & values.keys()):
            raise InvalidConfig(f"{by}: {twice} is also set by the {pins[twice].by}")
        pins.update({name: Pin(value, by) for name, value in values.items()})
    return pins


def _options(text: str) -> dict[str, object]:
    return check_document({OPTIONS_SECTION: loads(text, MAX_DEPTH)})
