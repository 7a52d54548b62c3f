"""Tests of what is freed without the cyclic collector."""

from __future__ import annotations

import functools
import gc
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable
from unittest.mock import patch

from twisted.python import failure


@contextmanager
def without_collector() -> Iterator[None]:
    """Within the block cycles are not collected; what was garbage before is gone.

    And failures are cleaned as in a server: pytest-twisted has them keep their frames. `gc.get_objects` tells only what
    has been made within: all that the tests before have loaded is much to look through.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        with patch.object(failure.Failure, "cleanFailure", _clean_failure()):
            yield
    finally:
        gc.enable()
        gc.unfreeze()


@functools.cache
def _clean_failure() -> Callable[[Any], None]:
    spec = importlib.util.spec_from_file_location("another_failure", failure.__file__)
    assert spec is not None
    assert spec.loader is not None
    another = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(another)
    clean: Callable[[Any], None] = another.Failure.cleanFailure
    return clean
