"""HPACK header blocks, decoded (RFC 7541): one pass over the bytes. The library's decoder copies the rest of the block
for each header. The tables are the library's.
"""

from __future__ import annotations

from hpack import HPACKError, OversizedHeaderListError
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

from .huffman import decoded

Headers = list["tuple[bytes, bytes]"]

#: Updates of the dynamic table's size at the beginning of a block (section 4.2).
_SIZE_UPDATES = 2
#: Bytes that a number goes on for, at most: as much as 32 bits take (section 5.1).
_LONGEST_NUMBER = 5
#: What each header counts beside its bytes.
_OVERHEAD = 32
#: Bytes of a list that are decoded in the time of one byte of a Huffman string that `huffman` does not know.
_SLOW = 8


class HpackDecoder:
    """The decoder of one connection, whose dynamic table may have the 4,096 bytes of the default."""

    def __init__(self, max_list_bytes: int) -> None:
        """A list of over `max_list_bytes`, 32 counted for each header, is given up in the middle."""
        self._max_list_bytes = max_list_bytes
        self._table = HeaderTable()
        self._max_table_bytes = self._table.maxsize
        #: Whether the last block changed the dynamic table.
        self.changed = False
        #: What the last block took to decode: as long as a list of so many bytes, of 30 ns each.
        self.work = 0

    def decode(self, block: bytes) -> Headers:
        """The headers in a whole block. Raises HPACKError; OversizedHeaderListError is one of them."""
        self.changed = False
        self.work = 0
        table = self._table
        headers: Headers = []
        position, end, left = self._size_updates(block), len(block), self._max_list_bytes
        while position < end:
            first = block[position]
            if first & 0x80:
                index, position = _number(block, position, 0x7F)
                header = table.get_by_index(index)
            elif first & 0xC0 == 0x40:
                header, position = self._literal(block, position, 0x3F)
                self.changed = True
                table.add(*header)
            elif first & 0xE0 == 0x20:
                raise HPACKError("an update of the table's size is not at the beginning of its block")
            else:
                header, position = self._literal(block, position, 0x0F)
            size = len(header[0]) + len(header[1]) + _OVERHEAD
            self.work += size
            left -= size
            if left < 0:
                raise OversizedHeaderListError(f"a list has over {self._max_list_bytes} bytes")
            headers.append(header)
        return headers

    def _size_updates(self, block: bytes) -> int:
        """Do as the updates say that the block begins with; returns where they end."""
        position = updates = 0
        while position < len(block) and block[position] & 0xE0 == 0x20:
            size, position = _number(block, position, 0x1F)
            updates += 1
            if updates > _SIZE_UPDATES or size > self._max_table_bytes:
                raise HPACKError("too many updates of the table's size, or too large a one")
            self.changed = True
            self._table.maxsize = size
        return position

    def _literal(self, block: bytes, position: int, mask: int) -> tuple[tuple[bytes, bytes], int]:
        if block[position] & mask:
            index, position = _number(block, position, mask)
            name = self._table.get_by_index(index)[0]
        else:
            name, position = self._string(block, position + 1)
        value, position = self._string(block, position)
        return (name, value), position

    def _string(self, block: bytes, position: int) -> tuple[bytes, int]:
        """A string, and where it ends (section 5.2)."""
        huffman = block[position : position + 1] >= b"\x80"
        length, start = _number(block, position, 0x7F)
        end = start + length
        if end > len(block):
            raise HPACKError("a string is longer than its block")
        string = block[start:end]
        if not huffman:
            return string, end
        text = decoded(string)
        if text is None:
            self.work += _SLOW * length
            text = decode_huffman(string)
        return text, end


def _number(block: bytes, position: int, mask: int) -> tuple[int, int]:
    """A number that begins with the bits of `mask`, and where it ends (section 5.1)."""
    try:
        number = block[position] & mask
        position += 1
        if number == mask:
            for shift in range(0, 7 * _LONGEST_NUMBER, 7):
                byte = block[position]
                position += 1
                number += (byte & 0x7F) << shift
                if byte < 0x80:
                    return number, position
            raise HPACKError("a number is too long")
    except IndexError:
        raise HPACKError("a block ends within a number") from None
    return number, position
