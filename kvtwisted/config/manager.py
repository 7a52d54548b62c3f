"""The configuration of a running server: its layers, the settings that result, and changes at run time.

Note [Configured and running]: `settings` is what is configured, as GetConfig shows it; `running` is what the server
uses. They differ in keys that were changed at run time and need a restart. Code that acts on a value reads `running`.
"""

from __future__ import annotations

import json
import logging
import os
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable

from ..commands.command import ANONYMOUS, Actor
from ..core.durable import replace_file
from ..core.errors import InvalidConfig, InvalidRequest, KvError, PermissionDenied
from ..core.paths import kind_of
from ..core.strict_json import loads
from .schema import KEYS, build, to_document, value_of
from .settings import Settings
from .sources import (
    MAX_DEPTH,
    Pin,
    check_document,
    environment_pins,
    flag_pins,
    load_file,
    load_runtime_file,
    runtime_file_refused,
)

#: Called with the running settings before and after an update.
Listener = Callable[[Settings, Settings], None]
#: Called with what happened ("config_changed" or "config_refused"), who did it, and the details.
Auditor = Callable[[str, str, Mapping[str, object]], None]

#: Called with the configured settings and the changed ones. Raises InvalidConfig, naming the key, if the server could
#: not start with the latter. May block; leaves nothing behind.
Rehearsal = Callable[[Settings, Settings], None]

#: Where updates at run time are kept when there is no configuration file.
DEFAULT_RUNTIME_FILE = "kvtwisted.runtime.json"
_log = logging.getLogger(__name__)
_NAMES = re.compile("|".join(sorted(map(re.escape, KEYS), key=len, reverse=True)))

Flat = dict[str, object]


@dataclass(frozen=True)
class _Layers:
    """The layers below the runtime one (file) and above it (environment and command line)."""

    file: Flat
    pins: Mapping[str, Pin]
    file_path: str | None
    runtime_path: str

    def settings(self, runtime: Flat) -> Settings:
        return build({**self.file, **runtime, **{name: pin.value for name, pin in self.pins.items()}})

    def explained(self, message: str, runtime: Flat, keys: Sequence[str] = ()) -> str:
        """See `ConfigManager.explained`."""
        named = dict.fromkeys(_NAMES.findall(message)) or keys
        return "; ".join([message, *[self._origin(name, runtime) for name in named]])

    def _origin(self, name: str, runtime: Flat) -> str:
        pin = self.pins.get(name)
        if pin is not None:
            value, by = pin.value, f"set by the {pin.by}"
        elif name in runtime:
            value, by = runtime[name], f"set in {self.runtime_path}, which keeps changes made at run time"
        elif name in self.file:
            value, by = self.file[name], f"set in {self.file_path}"
        else:
            value, by = KEYS[name].default, "its default"
        return f"{name} is {json.dumps(value)}, {by}"


@dataclass(frozen=True)
class _State:
    """What an update replaces by one assignment."""

    runtime: Flat
    settings: Settings
    running: Settings


class ConfigManager:
    """Loads the layers once, then takes updates. Reading is lock-free and safe on any thread."""

    def __init__(self, layers: _Layers, runtime: Flat) -> None:
        """Use `ConfigManager.load`."""
        settings = layers.settings(runtime)
        self._layers = layers
        #: Where updates at run time are kept.
        self.runtime_path = layers.runtime_path
        self._state = _State(runtime, settings, settings)
        self._listeners: list[Listener] = []
        #: Called with each update, accepted or refused, on the updating thread. Must not raise.
        self.audit: Auditor = lambda event, who, facts: None
        #: Tries a change before it is taken, on the updating thread.
        self.rehearse: Rehearsal = lambda configured, wanted: None
        self._lock = threading.RLock()
        self._notifying = False

    @classmethod
    def load(
        cls,
        config_path: str | None,
        environ: Mapping[str, str],
        flags: Mapping[str, str | None],
        runtime_path: str | None = None,
    ) -> ConfigManager:
        """Read all layers: file < runtime updates < environment < command line. Nothing stays open.

        `runtime_path` is where updates at run time are kept: by default `<config_path>.runtime.json`, or
        `kvtwisted.runtime.json` in the current folder without a configuration file. Relative paths are resolved now.
        Raises `InvalidConfig` naming the layer and the key.
        """
        if runtime_path is None:
            runtime_path = DEFAULT_RUNTIME_FILE if config_path is None else f"{config_path}.runtime.json"
        runtime_path = os.path.abspath(runtime_path)
        file = {} if config_path is None else load_file(config_path)
        runtime = load_runtime_file(runtime_path)
        layers = _Layers(file, {**environment_pins(environ), **flag_pins(flags)}, config_path, runtime_path)
        try:
            return cls(layers, runtime)
        except InvalidConfig as error:
            try:
                layers.settings({})
            except InvalidConfig as without:  # the runtime file is not what makes the layers clash
                raise InvalidConfig(layers.explained(str(without), {})) from without
            raise runtime_file_refused(runtime_path, error) from error

    @property
    def settings(self) -> Settings:
        """What is configured, changes that need a restart included."""
        return self._state.settings

    @property
    def running(self) -> Settings:
        """What the server uses: the settings at its start, with the live changes since."""
        return self._state.running

    def show(self) -> str:
        """The JSON text of `settings`, nested, for GetConfig."""
        return json.dumps(to_document(self._state.settings), ensure_ascii=False)

    def explained(self, message: str, *keys: str) -> str:
        """`message`, of a start that failed, with the value of each key that it names and where that value was set.

        If it names no key, `keys` are explained.
        """
        return self._layers.explained(message, self._state.runtime, keys)

    def subscribe(self, listener: Listener) -> None:
        """Call `listener(old, new)` with the running settings after each update; they may be equal.

        It runs on the updating thread before `update` returns, one update at a time and in their order. It must not
        call `update`. If it raises, that is logged; the update stands and the other listeners are called.
        """
        with self._lock:
            self._listeners.append(listener)

    def update(self, document: object, actor: Actor = ANONYMOUS) -> list[str]:
        """Change all keys in a whole or partial nested document, or in the JSON text of one; or none on any error.

        The change is on disk before it takes effect. Returns, sorted, every key whose configured value takes effect
        only at a restart. Blocks for the fsyncs and the listeners; any thread may call it.

        Raises `InvalidConfig` when a key is unknown, a value is refused, the server could not start with it, or the
        environment or the command line has set a key to another value; `PermissionDenied` when a guarded key would
        change and `actor` does not administer the server; `StorageError` when the change cannot be saved:
        `StorageFull`, or `UnusablePath`.
        """
        try:
            return self._update(_parsed(document) if isinstance(document, str) else document, actor)
        except KvError as error:
            self.audit("config_refused", actor.name, {"reason": str(error)})
            raise

    def _update(self, document: object, actor: Actor) -> list[str]:
        changes = check_document(document)
        with self._lock:
            if self._notifying:
                raise RuntimeError("a configuration listener must not call update")
            before = self._state
            runtime = self._runtime_with(changes)
            settings = self._layers.settings(runtime)
            changed = _changed(before.settings, settings)
            _check_guarded(changed, actor)
            if changed:
                self.rehearse(before.settings, settings)
            after = _State(runtime, settings, _with_live_keys(before.running, settings))
            if runtime != before.runtime:
                self._save(runtime)
            self._state = after
            self.audit("config_changed", actor.name, {"changes": changed})
            self._notify(before.running, after.running)
            return sorted(_changed(after.running, after.settings))

    def _runtime_with(self, changes: Flat) -> Flat:
        """The runtime layer after `changes`: what it held, and what now differs from the layers below it."""
        runtime = dict(self._state.runtime)
        for name, value in changes.items():
            pin = self._layers.pins.get(name)
            if pin:
                if value != pin.value:
                    raise InvalidConfig(f"{name} is set by the {pin.by} and cannot be changed at run time")
            elif name in runtime or value != self._layers.file.get(name, KEYS[name].default):
                runtime[name] = value
        return runtime

    def _save(self, runtime: Flat) -> None:
        text = json.dumps(_nested(runtime), ensure_ascii=False, indent=2) + "\n"
        try:
            replace_file(self.runtime_path, text.encode("utf-8"))
        except OSError as error:
            raise kind_of(error)(
                f"the configuration was not changed: {self.runtime_path} (--runtime-config) cannot be saved: "
                f"{error.strerror}"
            ) from error

    def _notify(self, old: Settings, new: Settings) -> None:
        self._notifying = True
        try:
            for listener in list(self._listeners):
                try:
                    listener(old, new)
                except Exception:  # see subscribe
                    _log.exception("a configuration listener failed; the update stands")
        finally:
            self._notifying = False


def _parsed(text: str) -> object:
    try:
        return loads(text, MAX_DEPTH)
    except InvalidRequest as error:
        raise InvalidConfig(f"the configuration: {error}") from error


def _with_live_keys(running: Settings, settings: Settings) -> Settings:
    """`running` with the live keys of `settings`."""
    return build({name: value_of(settings if key.live else running, name) for name, key in KEYS.items()})


def _changed(old: Settings, new: Settings) -> dict[str, list[object]]:
    """The keys that differ, each with its old and new value. No value is a secret: secrets are in files."""
    both = {name: [value_of(old, name), value_of(new, name)] for name in KEYS}
    return {name: [before, after] for name, (before, after) in both.items() if before != after}


def _check_guarded(changed: Mapping[str, object], actor: Actor) -> None:
    guarded = [name for name in changed if KEYS[name].guarded]
    if guarded and not actor.administers:
        raise PermissionDenied(f"{guarded[0]} is changed by those alone whose token has the operation admin")


def _nested(flat: Flat) -> dict[str, Any]:
    """A document with one object per section, in the order of declaration."""
    document: dict[str, Any] = {}
    for name in KEYS:
        if name in flat:
            *sections, last = name.split(".")
            members = document
            for section in sections:
                members = members.setdefault(section, {})
            members[last] = flat[name]
    return document
