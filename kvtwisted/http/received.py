"""What a route needs of a request, and its limits, as plain values of no HTTP implementation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Received(NamedTuple):
    """What a route may need of a request."""

    #: The path behind the route, as it was sent (percent-encoded).
    tail: bytes = b""
    #: What follows the first `?`, as it was sent.
    query: bytes = b""
    content_type: str | None = None
    body: bytes = b""
    #: The content codings of the body, and the lines of Accept.
    codings: tuple[bytes, ...] = ()
    accept: tuple[bytes, ...] = ()


@dataclass
class Bounds:
    """Limits of one request. They follow the configuration from the next request on."""

    #: Bytes of keys and values in one answer.
    max_response_bytes: int
    #: Seconds.
    request_timeout: float
    #: Keys in one request.
    max_batch_keys: int

    def become(self, other: Bounds) -> None:
        """Take over the limits of another."""
        self.max_response_bytes = other.max_response_bytes
        self.request_timeout = other.request_timeout
        self.max_batch_keys = other.max_batch_keys
