"""Header blocks as HPACK has them: our decoder says what the library's does."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Decoder, Encoder, HPACKError, OversizedHeaderListError
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.rpc.http2 import huffman
from kvtwisted.rpc.http2.hpack_decoder import HpackDecoder
from tests.support.properties import sampled

#: Says that these are about no backend.
WITHOUT_BACKEND = True

_ENCODER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)
_texts = st.binary(max_size=300) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=300).map(
    str.encode
)


def decoded(string: bytes) -> bytes:
    """As the decoder reads it."""
    text = huffman.decoded(string)
    return decode_huffman(string) if text is None else text


def outcome(decode: Any, data: bytes) -> Any:
    """What a decoder makes of it, or that it is wrong."""
    try:
        return decode(data)
    except HPACKError:
        return HPACKError


@sampled(100, 300, given(text=_texts, wrong=st.binary(max_size=3), cut=st.integers(0, 3)))
def test_huffman_strings(text: bytes, wrong: bytes, cut: int) -> None:
    """Long and short ones, with all symbols, cut short and with something after them."""
    string = _ENCODER.encode(text)
    assert decoded(string) == text
    for changed in (string[: len(string) - cut], string + wrong, wrong + string, wrong * 40):
        assert outcome(decoded, changed) == outcome(decode_huffman, changed)


def test_each_symbol_in_a_long_string() -> None:
    """Those of zlib's, and those that have longer codes than it knows."""
    for symbol in range(256):
        text = b"a" * 100 + bytes((symbol,)) + b"b" * 100
        assert decoded(_ENCODER.encode(text)) == text


def test_most_is_not_left_to_the_library() -> None:
    """What is printable, but for the backslash, is read by zlib, whatever its version."""
    for symbol in range(0x20, 0x7F):
        text = bytes((symbol,)) * 200
        assert huffman.decoded(_ENCODER.encode(text)) == (None if symbol == ord("\\") else text)


@sampled(100, 300, given(blocks=st.lists(st.binary(max_size=40), max_size=4)))
def test_any_bytes(blocks: list[bytes]) -> None:
    """The same headers, or wrong for both."""
    ours, theirs = HpackDecoder(65_536), Decoder(65_536)
    for block in blocks:
        # At the beginning of a block we are stricter: there is no reason for three updates of the table's size.
        if sum(byte & 0xE0 == 0x20 for byte in block) > 2:
            continue
        made = outcome(ours.decode, block)
        expected = outcome(lambda data: [tuple(header) for header in theirs.decode(data, raw=True)], block)
        assert made == expected
        if made is HPACKError:
            return


_fields = st.lists(st.tuples(_texts.filter(bool), _texts), max_size=6)


@sampled(
    50, 150, given(lists=st.lists(st.tuples(_fields, st.sampled_from((None, 0, 100, 4096)), st.booleans()), max_size=6))
)
def test_encoded_lists(lists: list[tuple[list[tuple[bytes, bytes]], int | None, bool]]) -> None:
    """What an encoder makes of them, with tables of any size, is what they were."""
    encoder, decoder = Encoder(), HpackDecoder(1 << 20)
    for fields, size, by_huffman in lists:
        if size is not None:
            encoder.header_table_size = size
        assert decoder.decode(encoder.encode(fields, huffman=by_huffman)) == fields
        size = sum(len(name) + len(value) + 32 for name, value in fields)
        assert decoder.work >= size if by_huffman else decoder.work == size


def test_work() -> None:
    """It is the list's bytes, and much more for Huffman strings that are short or have rare symbols; also if wrong."""
    for text, slow in ((b"a" * 9000, False), (b"\\" * 3000, True), (b"\xff" * 3000, True), (b"ab", True)):
        block = Encoder().encode([(b":authority", text)])
        decoder = HpackDecoder(1 << 20)
        decoder.decode(block)
        string = len(_ENCODER.encode(text)) if slow else 0
        assert decoder.work == len(b":authority") + len(text) + 32 + 8 * string
    decoder = HpackDecoder(1 << 20)
    assert outcome(decoder.decode, b"\x41\xfe" + b"\xff" * 126) is HPACKError
    assert decoder.work == 8 * 126


def test_a_list_is_given_up_in_the_middle() -> None:
    """A byte can stand for a header of 4,000: what a block decodes to is bounded, and so is the work on it."""
    header = b"\x40\x01n\x7f\xa1\x1e" + b"v" * 4000
    size = len(b"n") + 4000 + 32
    decoder = HpackDecoder(3 * size)
    assert decoder.decode(header + b"\xbe" * 2) == [(b"n", b"v" * 4000)] * 3
    with pytest.raises(OversizedHeaderListError):
        decoder.decode(b"\xbe" * 10_000)
    assert decoder.work == 4 * size
