"""Checks addresses before grpcio gets them, which neither says what is wrong nor stays quiet."""

from __future__ import annotations

import errno
import os
import socket

from ..core.errors import Unavailable

#: Ports below it are for root.
FIRST_FREE_PORT = 1024
#: Connections that the kernel keeps until they are accepted: enough for a flood not to shut others out at once.
BACKLOG = 1024


def joined(host: str, port: int) -> str:
    """`host:port`, with an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def check_address(host: str, port: int) -> None:
    """Raise Unavailable, with one line that names host and port, when nothing can listen there now.

    Every address of a host name must be free, except those of a family that this machine does not have.
    """
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise cannot_listen(host, port, error.strerror or str(error)) from None
    failures = [code for family, _, _, _, address in addresses if (code := _bind(family, address))]
    taken = [code for code in failures if code not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)]
    if taken or len(failures) == len(addresses):
        raise cannot_listen(host, port, os.strerror((taken or failures)[0]))


def cannot_listen(host: str, port: int, reason: str) -> Unavailable:
    """The error to raise when the server cannot listen."""
    return Unavailable(f"grpc: cannot listen on {joined(host, port)}: {reason}")


def _bind(family: int, address: tuple[object, ...]) -> int:
    """The error number of binding to an address, or 0 when it can be had."""
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # As grpcio will: connections of an earlier server that are still closing do not count.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        return error.errno or errno.EADDRNOTAVAIL
    return 0
