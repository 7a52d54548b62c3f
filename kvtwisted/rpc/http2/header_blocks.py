"""Header blocks: decoded by `hpack` and remembered while they repeat, and those that the server sends.

Note [Header blocks repeat]: once a client's dynamic table has settled, the header blocks of its calls repeat byte for
byte. So the meaning of a block is remembered for each connection, as long as the table does not change. Decoding a
block takes some tens of microseconds, a lookup a tenth of one.

Sources: RFC 7541 (HPACK); RFC 9113, section 8.2 and 8.3 (which lists are well-formed).
"""

from __future__ import annotations

import re
from typing import Callable, Generic, NoReturn, TypeVar

from hpack import HPACKError, OversizedHeaderListError
from hpack.hpack import encode_integer

from .frames import ConnectionFault, ErrorCode, StreamFault
from .hpack_decoder import Headers as Headers
from .hpack_decoder import HpackDecoder

T = TypeVar("T")

#: Bytes of a header block as it arrives, CONTINUATION included. A connection that sends more is closed. The second
#: figure is for connections without an accepted call yet: a list within MAX_LIST_BYTES needs no more.
MAX_BLOCK_BYTES, MAX_UNKNOWN_BLOCK_BYTES = 32_768, 16_384
#: Bytes of a decoded list (32 more counted for each header), as SETTINGS_MAX_HEADER_LIST_SIZE tells; a call with more
#: is refused. A list of four times that ends the connection: the decoder stops in the middle.
MAX_LIST_BYTES = 16_384
_DECODE_BYTES = 4 * MAX_LIST_BYTES

#: More headers than any honest client sends with a call.
_MANY_HEADERS = 64

#: Remembered blocks of a connection, and bytes of one.
_REMEMBERED, _REMEMBERED_BYTES = 64, 1024

_PSEUDO_HEADERS = (b":method", b":scheme", b":path", b":authority")
_OF_A_CONNECTION = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"))
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
_BAD_IN_VALUE = re.compile(rb"[\0\r\n]|\A[ \t]|[ \t]\Z")
_BAD_WITHIN_VALUE = re.compile(rb"[\0\r\n]")
_BLANKS = b" \t"


class FieldFault(StreamFault):
    """A malformed header, as a careless client sends it. The client is told so before its stream is reset."""

    def __init__(self, sentence: str) -> None:
        super().__init__(ErrorCode.PROTOCOL_ERROR, sentence)


class HeaderBlocks(Generic[T]):
    """The header blocks that one connection's peer sends, and what `read` made of them. Reactor thread.

    `remembered.get(block)` is the short way to what `meaning(block)` has given before.
    """

    def __init__(
        self,
        read: Callable[[Headers], T],
        spend: Callable[[int], None] = lambda tokens: None,
        lasts: Callable[[T], bool] = lambda meaning: True,
    ) -> None:
        """`read` makes something immutable of a well-formed request's headers; it is remembered if it `lasts`.

        `spend` is called when there are many headers: a byte of a block can stand for a whole header, which takes a
        thousand times as long to read as to send.
        """
        self._read = read
        self._spend = spend
        self._lasts = lasts
        self._decoder = HpackDecoder(_DECODE_BYTES)
        self.remembered: dict[bytes, T] = {}
        #: Work for decoding the last block (see `HpackDecoder.work`); 0 if it was known.
        self.work = 0

    def meaning(self, block: bytes) -> T:
        """What `read` makes of a request's block. Raises ConnectionFault, or StreamFault if it is malformed."""
        known = self.remembered.get(block)
        if known is not None:
            self.work = 0
            return known
        meaning = self._read(checked_request(self.decode(block)))
        if self._lasts(meaning) and not self._decoder.changed and len(block) <= _REMEMBERED_BYTES:
            if len(self.remembered) >= _REMEMBERED:
                self.remembered.clear()
            self.remembered[block] = meaning
        return meaning

    def decode(self, block: bytes) -> Headers:
        """The headers in a block. Every block must go through here or `meaning`, for the table's sake."""
        try:
            headers = self._decoder.decode(block)
        except OversizedHeaderListError:
            raise ConnectionFault(
                ErrorCode.ENHANCE_YOUR_CALM, f"a header list is over {_DECODE_BYTES} bytes once it is decompressed"
            ) from None
        except HPACKError:
            raise ConnectionFault(ErrorCode.COMPRESSION_ERROR, "a header block is not valid HPACK") from None
        finally:
            self.work = self._decoder.work
        if self._decoder.changed:
            self.remembered.clear()
        if len(headers) > _MANY_HEADERS:
            self._spend((len(headers) - _MANY_HEADERS) // 8)
        return headers

    def let_go(self) -> None:
        """No more blocks come: forget who reads them."""
        self._read = _no_reader


def _no_reader(headers: Headers) -> NoReturn:
    raise ConnectionFault(ErrorCode.NO_ERROR, "the connection is gone")


def list_bytes(headers: Headers) -> int:
    """The size of a list as SETTINGS_MAX_HEADER_LIST_SIZE counts it."""
    return sum([len(name) + len(value) + 32 for name, value in headers])


def checked_request(headers: Headers) -> Headers:
    """The headers of a well-formed request, normalised; else raises StreamFault. Blanks around a value are removed:
    gRPC allows that, and a client that sends them is no attacker.
    """
    pseudo: dict[bytes, bytes] = {}
    regular: Headers = []
    for name, value in headers:
        if name[:1] == b":":
            if regular or name in pseudo or name not in _PSEUDO_HEADERS:
                raise _malformed("a pseudo-header is unknown, repeated or out of place")
            if _BAD_IN_VALUE.search(value):
                raise _malformed("a pseudo-header has characters that it must not have")
            pseudo[name] = value
        else:
            regular.append((name, _field(name, value)))
    # CONNECT, which has neither path nor scheme, is not supported.
    if not all(pseudo.get(name) for name in _PSEUDO_HEADERS[:3]):
        raise _malformed("a pseudo-header is missing or empty")
    return [*pseudo.items(), *regular]


def check_trailers(headers: Headers) -> None:
    """Raise StreamFault unless these are well-formed trailers."""
    for name, value in headers:
        if name[:1] == b":":
            raise _malformed("trailers have a pseudo-header")
        _field(name, value)


def _field(name: bytes, value: bytes) -> bytes:
    """The value of a header, without blanks around it."""
    if not _NAME.fullmatch(name) or _BAD_WITHIN_VALUE.search(value):
        text = name.decode("ascii", "backslashreplace")[:100]
        raise FieldFault(f"the name or the value of the header {text!r} has characters that it must not have")
    value = value.strip(_BLANKS)
    if name in _OF_A_CONNECTION or (name == b"te" and value.lower() != b"trailers"):
        raise FieldFault(f"the header {name.decode()} belongs to a connection of HTTP/1")
    return value


def _malformed(sentence: str) -> StreamFault:
    return StreamFault(ErrorCode.PROTOCOL_ERROR, sentence)


def encode(headers: Headers) -> bytes:
    """A block of literals that are in no table, so that it means the same at any time (RFC 7541, section 6.2.2)."""
    return b"".join([b"\x00" + _string(name) + _string(value) for name, value in headers])


def _string(text: bytes) -> bytes:
    # RFC 7541, section 5.1: a length of seven bits, or more of them.
    return bytes(encode_integer(len(text), 7)) + text
