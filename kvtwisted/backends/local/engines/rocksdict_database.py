"""An open database of rocksdict with its parts.

Each part keeps the database open, and its folder locked, for as long as anybody has it: a variable of a frame that some
traceback holds is enough. So they are in one place, which closes or empties all of them.
"""

from __future__ import annotations

from typing import Any

from rocksdict import Rdict, WriteBatch

from ....core.errors import StorageError, without_frames
from .engine import DATA, OTHER_FAMILIES
from .reopening import READ_PATIENCE, patiently
from .translate import EngineReopening, in_use, stalled


class OpenDatabase:
    """A database that is open, for reading alone or for everything."""

    def __init__(self, root: Rdict) -> None:
        """Raises the binding's error when a column family is missing; then the database is closed."""
        self.root = root
        self._take_parts()

    def _take_parts(self) -> None:
        self.families: dict[str, Rdict] = {DATA: self.root}
        # None is the family "default", and cheaper than its handle.
        self.handles: dict[str, Any] = _Handles({DATA: None})
        self._open = [self.root]
        try:
            #: The family DATA. The root looks for it, by its name, in each read.
            self.data = self.root.get_column_family(DATA)
            self._open.append(self.data)
            for family in OTHER_FAMILIES:
                self.families[family] = self.root.get_column_family(family)
                self._open.append(self.families[family])
                self.handles[family] = self.root.get_column_family_handle(family)
        except BaseException:
            self.close()
            raise

    def shut(self) -> None:
        """Close it, whatever becomes of the flush. Raises StorageError while calls use it; then it is open, anew."""
        try:
            patiently(self.close, READ_PATIENCE)
        except Exception:
            self._take_parts()
            raise StorageError("cannot reopen the storage yet: reads under way do not end") from None

    def stands_still(self, copy: OpenDatabase, /) -> bool:
        """Whether late callers, who still hold this object, can write no more, and `copy` has all data."""
        try:
            self.root.write(WriteBatch(raw_mode=True))
        except Exception as error:
            return not stalled(error) and copy.root.latest_sequence_number() >= self.root.latest_sequence_number()
        return False

    def close(self) -> list[Exception]:
        """Flush and close: nothing is left of it, whoever still has this object or a part of it.

        Raises the binding's error while a call under way uses it (`in_use`): then it is to be called again. Any other
        failure is of the flush, and given back: it is closed all the same.
        """
        self.handles.clear()
        failures = []
        while self._open:
            try:
                self._open[-1].close()
            except Exception as error:
                if in_use(error):
                    raise
                failures.append(without_frames(error))
            self._open.pop()
        return failures


class _Handles(dict[str, Any]):
    """Handles by family; once the database is closed each is an error to try again upon."""

    def __missing__(self, family: str) -> Any:
        raise EngineReopening(family)
