"""Options of a gRPC server, for both transports."""

from __future__ import annotations

from dataclasses import dataclass

from ..tls.renewal import Certificates


@dataclass(frozen=True)
class GrpcOptions:
    """Where to listen (port 0: any free one) and how much to take on.

    `threads` run the calls of the threaded transport; `max_in_flight` calls may run or wait; keys and values of one
    request have at most `max_request_bytes`. Without `certificates` there is no TLS. The bytes that are unfinished or
    unsent are the native transport's, and see `NativeGrpcServer.retune`. For the last two see `stream_slots`.
    """

    host: str
    port: int
    threads: int
    max_in_flight: int
    max_request_bytes: int
    certificates: Certificates | None = None
    max_unfinished_bytes: int = 256 << 20
    max_unsent_bytes: int = 256 << 20
    max_pipelines: int = 100
    max_watches: int = 1000
