"""The server's own entries in a database, and trials of whether it still works."""

from __future__ import annotations

import math
import secrets

from ...core.clock import Clock
from ...core.errors import Corruption
from .engines.engine import META, Engine
from .writer import Writer

#: META entries.
_FORMAT_KEY, _FORMAT = b"format", b"1"
_CLOCK_KEY = b"clock"
_IDENTITY_KEY = b"identity"


class Metadata:
    """Looks after one open database. Every method may block, and may be called from any thread."""

    def __init__(self, engine: Engine, writer: Writer, clock: Clock) -> None:
        """Sees to the format mark and the clock. Raises Corruption for a newer format, or marks nobody can read."""
        self._engine = engine
        self._writer = writer
        #: What expiry goes by.
        self.clock = clock
        stored = engine.get(_FORMAT_KEY, META)
        if stored is None:
            engine.write([(META, _FORMAT_KEY, _FORMAT)])
        elif stored != _FORMAT:
            raise Corruption(f"the data folder has format {stored!r}; this server reads format 1")
        mark = engine.get(_CLOCK_KEY, META)
        if mark is not None:
            try:
                clock.at_least(int(mark))
            except ValueError:
                raise Corruption(f"the data folder's clock mark is {mark!r}, which is no time") from None
        clock.mark_with(self._write_mark)

    def identity(self) -> str:
        """The database's identity: random, made when it is first asked for, and kept."""
        stored = self._engine.get(_IDENTITY_KEY, META)
        if stored is None:
            stored = secrets.token_hex(16).encode()
            self._engine.write([(META, _IDENTITY_KEY, stored)])
            self._engine.sync()
        return stored.decode("ascii", "replace")

    def mark_clock(self) -> None:
        """Write down the present time, so that a later run never goes back before it."""
        self.clock.mark(self.clock.now_ms())

    def mark_anew(self) -> None:
        """Forget what has been marked: from now on marks last longer (`Writer.durable`)."""
        self.clock.mark_with(self._write_mark)

    def _write_mark(self, now_ms: int) -> None:
        self._writer.commits.write_own([(META, _CLOCK_KEY, b"%d" % now_ms)])
        if self._writer.durable:
            self._writer.commits.sync()

    def check(self) -> None:
        """Read an entry of the server's own; raises StorageError where users' reads would."""
        if self._engine.get(_FORMAT_KEY, META) != _FORMAT:
            raise Corruption("the data folder's format mark cannot be read back")

    def probe(self) -> None:
        """Write, sync and read back an entry of the server's own; raises StorageError where users' writes would."""
        self._engine.write([(META, _FORMAT_KEY, _FORMAT)])
        # Only now: RocksDB gets over a write that failed for want of space, but not over a sync after that.
        self._engine.sync()
        self.check()

    def probe_files(self) -> None:
        """The same for the folder of large values, where there is one."""
        if self._writer.spill_threshold < math.inf:
            self._writer.files.retire([self._writer.files.store(_FORMAT)])

    def reopen(self) -> bool:
        """Close the database and open it again; see `CommitPoint.reopen`."""
        return self._writer.commits.reopen()
