"""A folder that an engine makes whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from ....core.errors import StorageError


@contextmanager
def new_folder(path: str) -> Iterator[str]:
    """Within the block the folder `path` is made; the name of one to use meanwhile is given.

    Neither is made here. When the block fails, `path` is removed, and the other one in any case. Raises StorageError
    when there is anything at `path` already, which is left alone.
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
