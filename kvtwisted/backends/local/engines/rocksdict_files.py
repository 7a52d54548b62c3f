"""How rocksdict opens the files of a database, and what it finds out about a damaged log beforehand.

RocksDB reads a damaged log in one of several ways, of which some drop what comes behind the damage without a word.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from rocksdict import AccessType, Cache, DBRecoveryMode, Options, Rdict

from ....core.errors import Corruption
from ....core.options import EngineOptions
from .engine import FAMILIES, OTHER_FAMILIES
from .reopening import rehearsed
from .rocksdict_database import OpenDatabase
from .rocksdict_options import native_options, write_options


class DatabaseFiles:
    """The files of a database in the folder `path`. Every method blocks, and raises what rocksdict raises."""

    def __init__(self, path: str, options: EngineOptions) -> None:
        self._path = path
        self._options = options

    def opened(self, *, create: bool = False) -> OpenDatabase:
        """The database, open, with all families; made if there is none and `create` says so.

        Raises Corruption when the log has lost more than a torn tail.
        """
        try:
            return self._open(DBRecoveryMode.tolerate_corrupted_tail_records(), create=create)
        except Exception as error:
            if not str(error).startswith("Corruption"):
                raise
            self._check_damaged_log()
            return self._open(DBRecoveryMode.point_in_time(), create=create)

    def rehearsed(self, database: OpenDatabase) -> OpenDatabase:
        """What is to be read while `database`, which is open, is opened again.

        Raises Corruption if the files lack anything that it has acknowledged.
        """
        for family in database.families.values():
            with suppress(Exception):  # the log has what cannot be flushed
                family.flush()
        return rehearsed(partial(self._copy, database))

    def _copy(self, database: OpenDatabase) -> OpenDatabase:
        acknowledged = database.root.latest_sequence_number()
        copy = OpenDatabase(self._opened_for_reading())
        replayed = copy.root.latest_sequence_number()
        if replayed < acknowledged:
            copy.close()
            raise Corruption(
                f"the write-ahead log in {self._path!r} has lost the last {acknowledged - replayed} changes that were "
                "acknowledged; they are left in memory alone, so copy the data before the server stops"
            )
        return copy

    def _opened_for_reading(self, recovery: DBRecoveryMode | None = None) -> Rdict:
        """What the files hold, log included, read beside a database that may be open. It writes no file."""
        options, *others = self._native_options(0, recovery or DBRecoveryMode.point_in_time())
        return Rdict(self._path, options, dict(zip(OTHER_FAMILIES, others)), access_type=AccessType.read_only())

    def _open(self, recovery: DBRecoveryMode, *, create: bool) -> OpenDatabase:
        options, *others = self._native_options(self._options.block_cache_size, recovery)
        options.create_if_missing(create)
        root = Rdict(self._path, options, dict(zip(OTHER_FAMILIES, others)))
        root.set_write_options(write_options())
        return OpenDatabase(root)

    def _native_options(self, cache_size: int, recovery: DBRecoveryMode) -> list[Options]:
        cache = Cache(cache_size)
        options = [native_options(self._options, cache) for _ in FAMILIES]
        options[0].set_wal_recovery_mode(recovery)
        return options

    def _check_damaged_log(self) -> None:
        """Raise if the log, which is damaged, goes on behind the damage.

        Damage in the last 32 KiB, a block of the log, is taken for what a crash of the machine leaves of writes that no
        fsync covered. Anywhere else RocksDB would drop all that comes after, without a word.
        """
        before = self._last_change(DBRecoveryMode.point_in_time())
        behind = self._last_change(DBRecoveryMode.skip_any_corrupted_record()) - before
        if behind > 0:
            raise Corruption(
                f"the write-ahead log in {self._path!r} is damaged, and {behind} changes behind the damage would be "
                "lost; docs/failures.md says how to go on without them"
            )

    def _last_change(self, recovery: DBRecoveryMode) -> int:
        copy = self._opened_for_reading(recovery)
        try:
            last: int = copy.latest_sequence_number()
        finally:
            copy.close()
        return last
