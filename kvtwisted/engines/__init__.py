"""The engines: one file for each, which alone imports its binding and translates its errors.

Only the binding of the engine that is opened is imported.
"""

from __future__ import annotations

import importlib

from ..core.engine import Engine
from ..core.errors import InvalidConfig, StorageError
from ..core.options import EngineOptions

#: Module and class of each engine, what to install for it, and on which Python.
_ENGINES = {
    "rocksdict": ("rocksdict_engine", "RocksdictEngine", "pip install rocksdict (CPython 3.9 or newer)"),
    "lbry": ("lbry_engine", "LbryEngine", "pip install lbry-rocksdb (CPython 3.7 to 3.9)"),
    "memory": ("memory_engine", "MemoryEngine", ""),
}
#: What `auto` takes, the first that can be imported.
_PREFERRED = ("rocksdict", "lbry")


def open_engine(name: str, path: str, options: EngineOptions) -> Engine:
    """Open the engine that `storage.engine` names: auto, rocksdict, lbry or memory. Blocks while the log is replayed.

    Raises InvalidConfig for any other name, StorageError with what to install when the binding is missing, and what
    the engine itself raises when the folder `path` is locked, damaged or cannot be made.
    """
    if name != "auto" and name not in _ENGINES:
        raise InvalidConfig(f"storage.engine must be one of auto, {', '.join(_ENGINES)}; got {name!r}")
    missing = []
    for candidate in _PREFERRED if name == "auto" else (name,):
        module, engine_class, installation = _ENGINES[candidate]
        try:
            found = importlib.import_module(f".{module}", __name__)
        except ImportError as error:
            missing.append(f"{installation}: {error}")
            continue
        engine: Engine = getattr(found, engine_class)(path, options)
        return engine
    raise StorageError(
        f"storage.engine {name!r} needs a RocksDB binding that cannot be imported here; {'; or '.join(missing)}"
    )
