"""Answers as frames."""

from __future__ import annotations

import pytest

from kvtwisted.rpc.http2.responses import percent_encoded


@pytest.mark.parametrize(
    ("sentence", "encoded"),
    [
        ("plain: a-z ~", b"plain: a-z ~"),
        ("50 % more", b"50 %25 more"),
        ("%41", b"%2541"),
        ("gr\u00fcn\n\x7f", b"gr%C3%BCn%0A%7F"),
    ],
)
def test_sentences_are_percent_encoded(sentence: str, encoded: bytes) -> None:
    """The percent sign too, or what looks like a code would be read as one."""
    assert percent_encoded(sentence) == encoded
