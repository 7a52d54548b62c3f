"""The engines: one file for each, which alone imports its binding and translates its errors.

Only the binding of the engine that is opened is imported.
"""

from __future__ import annotations

import importlib
from typing import NamedTuple

from ....core.errors import InvalidConfig, StorageError
from ....core.options import EngineOptions
from .engine import Engine


class _Kind(NamedTuple):
    """Module and class of an engine, what to install for it and on which Python, and `Engine.is_persistent`."""

    module: str
    engine_class: str
    installation: str = ""
    is_persistent: bool = True


_ENGINES = {
    "rocksdict": _Kind("rocksdict_engine", "RocksdictEngine", "pip install rocksdict (CPython 3.9 or newer)"),
    "lbry": _Kind("lbry_engine", "LbryEngine", "pip install lbry-rocksdb (CPython 3.7 to 3.9)"),
    "memory": _Kind("memory_engine", "MemoryEngine", is_persistent=False),
}
#: What `auto` takes, the first that can be imported.
_PREFERRED = ("rocksdict", "lbry")


def is_persistent(name: str) -> bool:
    """`Engine.is_persistent` of what `open_engine` opens by that name, before it is opened."""
    return all(_ENGINES[candidate].is_persistent for candidate in _candidates(name))


def open_engine(name: str, path: str, options: EngineOptions) -> Engine:
    """Open the engine that `storage.engine` names: auto, rocksdict, lbry or memory. Blocks while the log is replayed.

    Raises InvalidConfig for any other name, StorageError with what to install when the binding is missing, and what
    the engine itself raises when the folder `path` is locked, damaged or cannot be made.
    """
    if name != "auto" and name not in _ENGINES:
        raise InvalidConfig(f"storage.engine must be one of auto, {', '.join(_ENGINES)}; got {name!r}")
    missing = []
    for candidate in _candidates(name):
        kind = _ENGINES[candidate]
        try:
            found = importlib.import_module(f".{kind.module}", __name__)
        except ImportError as error:
            missing.append(f"{kind.installation}: {error}")
            continue
        engine: Engine = getattr(found, kind.engine_class)(path, options)
        return engine
    raise StorageError(
        f"storage.engine {name!r} needs a RocksDB binding that cannot be imported here; {'; or '.join(missing)}"
    )


def _candidates(name: str) -> tuple[str, ...]:
    return _PREFERRED if name == "auto" else (name,)
