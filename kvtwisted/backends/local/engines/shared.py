"""What the engines share: the bound of `multi_get`, a folder made whole or not at all, what memory tells."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Callable

from ....core.errors import ResponseTooLarge, StorageError

#: Options that both bindings take as they are, under RocksDB's names: those of the database, and those of a family.
OF_DATABASE = (
    "max_background_jobs", "max_open_files", "max_total_wal_size", "bytes_per_sync", "max_log_file_size",
    "keep_log_file_num",
)  # fmt: skip
OF_FAMILIES = (
    "write_buffer_size", "max_write_buffer_number", "target_file_size_base", "max_bytes_for_level_base",
    "level_compaction_dynamic_level_bytes", "level0_file_num_compaction_trigger", "level0_slowdown_writes_trigger",
    "level0_stop_writes_trigger",
)  # fmt: skip


def within(budget: int, values: Iterable[bytes | None], keep: Callable[[bytes], bool]) -> list[bytes | None]:
    """The values as a list; ResponseTooLarge, and no further value is taken, once they exceed `budget` bytes.

    A value that `keep` says no to does not count; it is None in the list unless the values are few anyway.
    """
    if isinstance(values, list) and sum(map(len, filter(None, values))) <= budget:
        return values
    taken: list[bytes | None] = []
    left = budget
    for value in values:
        if value is not None and not keep(value):
            value = None
        if value is not None:
            left -= len(value)
            if left < 0:
                raise ResponseTooLarge(
                    f"keys: the values exceed {budget} bytes, the limit of one answer; ask for fewer"
                )
        taken.append(value)
    return taken


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """For a block that makes the folder `path`: gives the name of a temporary folder beside it.

    Neither folder is made here. If the block fails, `path` is removed; the temporary folder is removed in any case.
    Raises StorageError when there is anything at `path` already, which is left alone.
    """
    if os.path.lexists(path):
        raise StorageError(f"cannot copy the database to {path!r}: there is something already")
    temporary = f"{path}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        yield temporary
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def within_memory(may_exist: bool, value: bytes | None) -> tuple[bool, bytes | None]:
    """Whether memory told, and what.

    An empty value tells nothing: when the index block of a table is not in the cache, RocksDB (6.25 and 9.8 at least)
    says that it found the key, with an empty value.
    """
    if not may_exist:
        return True, None
    return (True, value) if value else (False, None)
