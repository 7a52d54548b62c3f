"""Answers whose bodies come in parts, as a client reads them."""

from __future__ import annotations

import json
from typing import Any, NamedTuple


class Streamed(NamedTuple):
    """One answer, as far as it has come; `is_whole` says that its end has."""

    status: int
    headers: dict[str, str]
    body: bytes
    is_whole: bool
    #: What came behind it.
    rest: bytes

    @property
    def lines(self) -> list[Any]:
        """The whole lines of the body, as JSON."""
        return [json.loads(line) for line in self.body.split(b"\n")[:-1]]


def streamed(raw: bytes) -> Streamed:
    """The first answer in `raw`: in chunks, of a length, or up to the end."""
    start, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        raise AssertionError(f"no whole head: {start!r}")
    status_line, *lines = start.decode("ascii").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    status = int(status_line.split(" ")[1])
    if "content-length" in headers:
        length = int(headers["content-length"])
        return Streamed(status, headers, rest[:length], len(rest) >= length, rest[length:])
    if headers.get("transfer-encoding") != "chunked":
        return Streamed(status, headers, rest, False, b"")
    body = b""
    while b"\r\n" in rest:
        size, _, behind = rest.partition(b"\r\n")
        length = int(size, 16)
        if len(behind) < length + 2:
            break
        body += behind[:length]
        rest = behind[length + 2 :]
        if not length:
            return Streamed(status, headers, body, True, rest)
    return Streamed(status, headers, body, False, rest)


def chunk(data: bytes) -> bytes:
    """One chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


#: The last chunk.
LAST = b"0\r\n\r\n"
