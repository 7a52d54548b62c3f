"""Recovery from writes that failed in the storage: health shows it, and trial writes find out when it is over."""

from __future__ import annotations

from ...core.errors import KvError, StorageError, StorageFull, Unavailable, WriteStalled
from ...core.health import Health
from .metadata import Metadata

_CONDITION = "storage"


class Recovery:
    """Knows whether writes fail, and tries to recover. Safe from any thread; only `attempt` blocks."""

    def __init__(self, metadata: Metadata, health: Health) -> None:
        self._metadata = metadata
        self._health = health

    @property
    def writes_fail(self) -> bool:
        """Whether a write has failed in the storage, and no trial write has succeeded since."""
        return self._health.failing(_CONDITION)

    def write_failed(self, error: KvError | str) -> None:
        """The storage failed a write, for `error`. A log that could not be synced counts as that."""
        self._health.fail(_CONDITION, f"writes fail: {error}")

    def attempt(self) -> None:
        """While writes are known to fail, try one; called now and then, so that health returns by itself.

        Blocks. RocksDB keeps refusing writes after some failures, so when the trial fails, and the disk could be
        written again, the database is closed and opened again. Raises StorageError or Unavailable as long as the cause
        stands.
        """
        if not self.writes_fail:
            return
        try:
            try:
                self._metadata.probe()
            except WriteStalled:
                raise
            except (StorageError, Unavailable):
                if not self._reopened():
                    raise
                self._metadata.probe()
            self._metadata.probe_files()
        except KvError as error:
            self.write_failed(error)
            raise
        self._health.recover(_CONDITION)

    def _reopened(self) -> bool:
        """Whether the engine can, and there was room for it; if not, what the trial met says more than how much room
        there should be."""
        try:
            return self._metadata.reopen()
        except StorageFull:
            return False
