"""What `python -m bench.libraries` compares does run, as far as it needs nothing that is not installed."""

from __future__ import annotations

from pathlib import Path
from typing import Callable

import pytest

from bench import libraries
from bench.libraries import Row


@pytest.mark.parametrize(
    "make",
    [
        libraries.header_block,
        lambda: libraries.huffman(1),
        libraries.set_message,
        libraries.batch_answer,
        libraries.body_json,
        libraries.body_strict,
        libraries.config_json,
        libraries.counted,
    ],
)
def test_rows_run_both_ways(make: Callable[[], Row]) -> None:
    """Ours and theirs."""
    row = make()
    row.ours()
    row.theirs()
    assert row.times > 0


def test_a_call_is_answered() -> None:
    """Ours, which needs no h2."""
    libraries.http2().ours()


def test_group_runs(tmp_path: Path) -> None:
    """A batch and single writes."""
    for row in libraries.group(str(tmp_path)):
        row.ours()
