"""How rocksdict opens the files of a database, and what it finds out about a damaged log beforehand.

RocksDB reads a damaged log in one of several ways, of which some drop what comes behind the damage without a word.
"""

from __future__ import annotations

import tempfile

from rocksdict import AccessType, Cache, DBRecoveryMode, Options, Rdict

from ..core.engine import FAMILIES, OTHER_FAMILIES
from ..core.errors import Corruption
from ..core.options import EngineOptions
from .rocksdict_options import native_options


class DatabaseFiles:
    """The files of a database in the folder `path`. Every method blocks, and raises what rocksdict raises."""

    def __init__(self, path: str, options: EngineOptions) -> None:
        self._path = path
        self._options = options

    def opened(self) -> Rdict:
        """The database, open, with all families. Raises Corruption when the log has lost more than a torn tail."""
        try:
            return self._open(DBRecoveryMode.tolerate_corrupted_tail_records())
        except Exception as error:
            if not str(error).startswith("Corruption"):
                raise
            self._check_damaged_log(error)
            return self._open(DBRecoveryMode.point_in_time())

    def last_change(self) -> int:
        """The number of the last change that the files hold, read beside a database that may be open."""
        return self._last_change(DBRecoveryMode.point_in_time())

    def _open(self, recovery: DBRecoveryMode) -> Rdict:
        options, *others = self._native_options(self._options.block_cache_size, recovery)
        return Rdict(self._path, options, dict(zip(OTHER_FAMILIES, others)))

    def _native_options(self, cache_size: int, recovery: DBRecoveryMode) -> list[Options]:
        cache = Cache(cache_size)
        options = [native_options(self._options, cache) for _ in FAMILIES]
        options[0].set_wal_recovery_mode(recovery)
        return options

    def _check_damaged_log(self, error: Exception) -> None:
        """Raise if the log, which is damaged by `error`, goes on behind the damage.

        Damage in the last 32 KiB, a block of the log, is taken for what a crash of the machine leaves of writes that no
        fsync covered. Anywhere else RocksDB would drop all that comes after, without a word.
        """
        before = self.last_change()
        behind = self._last_change(DBRecoveryMode.skip_any_corrupted_record()) - before
        if behind > 0:
            raise Corruption(
                f"the write-ahead log in {self._path!r} is damaged, and {behind} changes behind the damage would be "
                "lost; docs/failures.md says how to go on without them"
            ) from error

    def _last_change(self, recovery: DBRecoveryMode) -> int:
        options, *others = self._native_options(0, recovery)
        with tempfile.TemporaryDirectory() as elsewhere:
            options.set_db_log_dir(elsewhere)  # not in the data folder, among those of the open database
            copy = Rdict(self._path, options, dict(zip(OTHER_FAMILIES, others)), access_type=AccessType.read_only())
            last: int = copy.latest_sequence_number()
            copy.close()
        return last
