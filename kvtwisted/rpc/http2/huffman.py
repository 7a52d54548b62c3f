"""HPACK's Huffman strings, read by zlib.

Note [Huffman by zlib]: HPACK's code (RFC 7541, appendix B) is canonical, as those of DEFLATE are (RFC 1951, section
3.2.2): the lengths of the symbols' codes determine the codes. DEFLATE's codes have at most 15 bits. So a string of
symbols with such codes is the inside of a DEFLATE block whose head names those lengths, except for the order of bits in
each byte. 15 ones are the code for the block's end: the padding, with more ones after it, and all longer codes begin
so. The longer codes are those of backslash, control characters and non-ASCII bytes; strings that have them are left to
hpack. zlib needs 15 ns for a byte of the string, hpack 230. So a client that sends many of them pays for it: see
`HpackDecoder.work`.
"""

from __future__ import annotations

import zlib

from hpack.huffman_constants import REQUEST_CODES_LENGTH

#: Strings below that hpack decodes sooner than zlib is set up.
_SHORT = 40
#: The longest code of DEFLATE, and the one symbol that gets what is left: the end of a block.
_LONGEST, _END = 15, 256


def _bits(number: int, width: int) -> str:
    """A number as DEFLATE writes it, its lowest bit first."""
    return f"{number:0{width}b}"[::-1]


def _start() -> tuple[zlib._Decompress, int]:
    """A decompressor that has read a block's head, and how many bytes it gives before what comes next."""
    lengths = [length if length <= _LONGEST else 0 for length in REQUEST_CODES_LENGTH[:_END]]
    lengths += [_LONGEST, 0]  # the end of the block, and one distance that there is no code for
    # The lengths are themselves symbols, of which each is given four bits: 0 to 15 are then their own codes.
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
    head = "1" + _bits(2, 2) + _bits(0, 5) + _bits(0, 5) + _bits(len(order) - 4, 4)
    head += "".join([_bits(0 if symbol > _LONGEST else 4, 3) for symbol in order])
    head += "".join([f"{length:04b}" for length in lengths])
    # Zeros, which have five bits, up to the end of a byte.
    zeros = next(number for number in range(8) if (len(head) + 5 * number) % 8 == 0)
    head += "00000" * zeros
    started = zlib.decompressobj(-zlib.MAX_WBITS)
    given = started.decompress(bytes([int(head[at : at + 8][::-1], 2) for at in range(0, len(head), 8)]))
    return started, zeros - len(given)


_STARTED, _PENDING = _start()
_REVERSED = bytes([int(f"{byte:08b}"[::-1], 2) for byte in range(256)])
_LENGTHS = bytes([min(length, 255) for length in REQUEST_CODES_LENGTH[:_END]])


def decoded(string: bytes) -> bytes | None:
    """The text of a Huffman string; None: it is for hpack, or wrong. See Note [Huffman by zlib]."""
    if len(string) < _SHORT:
        return None
    decompressor = _STARTED.copy()
    text = decompressor.decompress(string.translate(_REVERSED) + b"\xff\xff")[_PENDING:]
    padding = 8 * len(string) - sum(text.translate(_LENGTHS))
    return text if decompressor.eof and 0 <= padding < 8 else None
