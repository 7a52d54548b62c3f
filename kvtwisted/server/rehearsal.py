"""Tries a change of the configuration before it is accepted: could the server start with it?

Each changed value is tried by doing it once: folders are made, engines opened, files of secrets read, ports bound,
threads started; then all is undone. What cannot be known beforehand (a port that another process takes meanwhile) fails
only at the start.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

from ..config.schema import KEYS, value_of
from ..config.settings import Settings
from ..core.errors import InvalidConfig, KvError
from ..core.options import EngineOptions
from ..rpc.listening import FIRST_FREE_PORT
from ..sessions import token_file
from ..sessions.certificates import CertificateFiles, read_identity
from ..sessions.connections import descriptors, room
from .sockets import GRPC, HTTP, bound

#: Opens an engine by name, in a folder, with options, and closes it. Raises KvError.
TryEngine = Callable[[str, str, EngineOptions], object]

_FOLDERS = ("rocksdb.path", "value.disk_path", "backup.path", "logging.directory")
_MEMORY = ("cache.max_bytes", "rocksdb.options.block_cache_size", "rocksdb.options.write_buffer_size")
_THREADS = ("storage.threads", "grpc.threads")


class Rehearsal:
    """The trials, of a server that runs with `running`. Any thread; they block, for a second at most as a rule."""

    def __init__(
        self,
        running: Callable[[], Settings],
        try_engine: TryEngine,
        check_values: Callable[[Settings], object],
        *,
        is_persistent: Callable[[str], bool],
        gave_up_root: bool,
    ) -> None:
        """`check_values` raises KvError when the folder of large values is not the one of the database.

        `is_persistent` tells by an engine's name whether it keeps what it is given.
        `gave_up_root` says that the process had more rights when it bound its ports.
        """
        self._running = running
        self._try_engine = try_engine
        self._check_values = check_values
        self._is_persistent = is_persistent
        self._gave_up_root = gave_up_root

    def __call__(self, configured: Settings, wanted: Settings) -> None:
        """Raise InvalidConfig, naming key, value and reason, when the server could not start with `wanted`."""
        running = self._running()
        # What is in force has been tried by the start.
        changed = {
            name for name in KEYS if value_of(wanted, name) not in (value_of(configured, name), value_of(running, name))
        }
        self._check_folders(changed, wanted)
        self._check_engine(changed, wanted)
        self._check_secrets(changed, wanted)
        self._check_ports(changed, wanted)
        self._check_amounts(changed, wanted)

    def _check_folders(self, changed: set[str], wanted: Settings) -> None:
        for name in _FOLDERS:
            path = value_of(wanted, name)
            # Nothing of these is opened without a disk, but logs.
            unused = not self._is_persistent(wanted.storage.engine) and name != "logging.directory"
            if name in changed and path and not unused:
                with _refusing(name, path):
                    try_folder(path)
        if changed & {"rocksdb.path", "value.disk_path"} and self._is_persistent(wanted.storage.engine):
            with _refusing("value.disk_path", wanted.value.disk_path):
                self._check_values(wanted)

    def _check_engine(self, changed: set[str], wanted: Settings) -> None:
        names = sorted(name for name in changed if name == "storage.engine" or name.startswith("rocksdb.options."))
        # Options that take effect without opening the database again need no trial.
        names = [name for name in names if name != "rocksdb.options.sync"]
        if not names or not self._is_persistent(wanted.storage.engine):
            return
        with _refusing(names[0], value_of(wanted, names[0])), _folder(wanted.rocksdb.path) as folder:
            trial = tempfile.mkdtemp(prefix=".trial-", dir=folder)
            try:
                self._try_engine(wanted.storage.engine, trial, wanted.rocksdb.options)
            finally:
                shutil.rmtree(trial)

    def _check_secrets(self, changed: set[str], wanted: Settings) -> None:
        if "security.tokens" in changed and wanted.security.tokens:
            with _refusing("security.tokens", wanted.security.tokens):
                token_file.load(wanted.security.tokens)
        files = sorted(name for name in changed if ".tls_" in name)
        if files:
            with _refusing(files[0], value_of(wanted, files[0])):
                _check_certificates(wanted)

    def _check_ports(self, changed: set[str], wanted: Settings) -> None:
        running = self._running()
        ours = {running.http.port, running.grpc.port}
        for name, listener in ((HTTP, wanted.http), (GRPC, wanted.grpc)):
            keys = sorted(changed & {f"{name}.host", f"{name}.port"}, reverse=True)
            privileged = 0 < listener.port < FIRST_FREE_PORT and self._gave_up_root
            if not keys or (privileged and not (name == GRPC and wanted.grpc.transport == "threaded")):
                continue
            # A port of ours is free at the next start; the address can be tried all the same.
            port = 0 if listener.port in ours else listener.port
            with _refusing(keys[0], value_of(wanted, keys[0])):
                bound(name, listener.host, port).close()

    def _check_amounts(self, changed: set[str], wanted: Settings) -> None:
        most = memory() // 2
        for name in _MEMORY:
            size = value_of(wanted, name)
            if name in changed and size > most:
                raise InvalidConfig(f"{name} must be at most {most} here, half of the memory, not {size}")
        free = room(wanted.rocksdb.options.max_open_files, descriptors())
        if "limits.max_connections" in changed and wanted.limits.max_connections > free:
            raise InvalidConfig(
                f"limits.max_connections must be at most {free} here, for which there are descriptors (ulimit -n), "
                f"not {wanted.limits.max_connections}"
            )
        for name in _THREADS:
            if name in changed:
                threads = value_of(wanted, name)
                with _refusing(name, threads):
                    _try_threads(threads - value_of(self._running(), name))


def _check_certificates(wanted: Settings) -> None:
    # Here, because OpenSSL takes its time to load and most servers do without.
    from ..tls.contexts import make_context

    for name, listener in ((HTTP, wanted.http), (GRPC, wanted.grpc)):
        if listener.tls_certificate:
            files = CertificateFiles(name, listener.tls_certificate, listener.tls_private_key, listener.tls_client_ca)
            make_context(read_identity(files), b"")


def try_folder(path: str) -> None:
    """Make the folder and a file in it, and undo both. Raises OSError."""
    with _folder(path) as folder:
        descriptor, name = tempfile.mkstemp(prefix=".trial-", dir=folder)
        os.close(descriptor)
        os.unlink(name)


def memory() -> int:
    """Bytes that this process may have: the machine's, or less if its control group says so."""
    found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError), open(name, encoding="utf-8") as file:
            found = min(found, int(file.read()))
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return found if limit == resource.RLIM_INFINITY else min(found, limit)


@contextmanager
def _refusing(name: str, value: object) -> Iterator[None]:
    try:
        yield
    except (KvError, OSError, RuntimeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        reason = reason[len(name) + 2 :] if reason.startswith(f"{name}: ") else reason
        raise InvalidConfig(f"{name} cannot be {value!r}: {reason}") from None


@contextmanager
def _folder(path: str) -> Iterator[str]:
    """The folder at `path`; what had to be made for it is removed again."""
    folder, made = os.path.abspath(path), []
    missing = folder
    while not os.path.lexists(missing):
        made.append(missing)
        missing = os.path.dirname(missing)
    try:
        os.makedirs(folder, 0o700, exist_ok=True)
        yield folder
    finally:
        for name in made:
            with suppress(OSError):  # it was not made, or somebody has put something there
                os.rmdir(name)


def _try_threads(more: int) -> None:
    """Start so many more threads for a moment. Raises RuntimeError."""
    enough, threads = threading.Event(), []
    try:
        for _ in range(more):
            thread = threading.Thread(target=enough.wait, daemon=True)
            thread.start()
            threads.append(thread)
    finally:
        enough.set()
        for thread in threads:
            thread.join()
