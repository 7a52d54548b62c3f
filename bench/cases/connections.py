"""Connections: what an idle one costs in memory, and what many active ones at once leave of the rate."""

from __future__ import annotations

import resource
import socket
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from http.client import HTTPResponse
from itertools import count
from typing import Callable

from .. import client, messages, wrk
from ..client import Shape
from ..load import LoadError
from ..plan import Group, Plan, each_tree, start_server, start_servers
from ..rounds import Probe, Sample
from ..server import PATIENCE, Server, name
from ..trees import Tree
from . import grpc, http
from .grpc import TRANSPORTS
from .http import LANES

#: Connections that are opened before those that are measured, so that what the first one needs is not counted.
_FIRST = 50
#: Connections from one address of the loopback network, so that a limit for each address is not in the way.
_PER_ADDRESS = 100
#: File descriptors of this process besides the connections.
_OTHER_FILES = 200
# What an HTTP/2 client says first: the preface, and SETTINGS without any setting. RFC 9113, section 3.4.
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
_SETTINGS, _ACK = 4, 1


def greet(peer: socket.socket) -> None:
    """Make an HTTP/2 connection: send our settings, and read until the server has acknowledged them."""
    peer.sendall(_GREETING)
    while True:
        length, kind, flags = struct.unpack(">I", b"\0" + _exactly(peer, 3))[0], *_exactly(peer, 6)[:2]
        _exactly(peer, length)
        if (kind, flags) == (_SETTINGS, _ACK):
            return


def _exactly(peer: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = peer.recv(size - len(data))
        if not more:
            raise LoadError("the server closed a connection that was to be idle")
        data += more
    return data


def get_once(peer: socket.socket) -> None:
    """GET one key on a new connection, which stays open."""
    path = http.get().path.replace("KEY", name(0))
    peer.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))
    answer = http_client_answer(peer)
    if answer != 200:
        raise LoadError(f"GET {path} answers {answer} on a connection that was to be idle")


def http_client_answer(peer: socket.socket) -> int:
    """Read one answer; its status."""
    answer = HTTPResponse(peer)
    answer.begin()
    answer.read()
    if answer.will_close:
        raise LoadError("the server closes connections after one answer")
    return answer.status


def open_connections(stack: ExitStack, address: str, number: int, begin: Callable[[socket.socket], None]) -> None:
    """Open so many connections, spread over addresses of the loopback network; they close with the stack."""
    host, port = address.rsplit(":", 1)
    for index in range(number):
        source = f"127.0.{1 + index // _PER_ADDRESS}.1"
        peer = socket.create_connection((host, int(port)), PATIENCE, (source, 0))
        begin(stack.enter_context(peer))


def kib_each(server: Server, address: str, number: int, begin: Callable[[socket.socket], None]) -> float:
    """KiB of resident memory that each of so many idle connections costs."""
    with ExitStack() as stack:
        open_connections(stack, address, _FIRST, begin)
        before = server.memory()
        open_connections(stack, address, number, begin)
        return (server.memory() - before) / number / 1024


def allow_files(number: int) -> None:
    """Let this process, and the servers that it starts, have so many files open. Raises LoadError if it may not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = number + _OTHER_FILES
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise LoadError(f"{number} connections need {needed} file descriptors, and ulimit -Hn allows {hard}")
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def open_idle(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """Every turn starts a server of its own, since memory that was once used is not given back."""
    allow_files(plan.idle + _FIRST)
    numbers = count()
    probes: list[Probe] = []

    def turn(case: str, options: Sequence[str], tree: Tree) -> Sample:
        with ExitStack() as own:
            server = start_server(own, plan, tree, f"idle-{next(numbers)}", options)
            server.fill(1, lambda _: plan.value)
            address, begin = (server.http, get_once) if case == "HTTP" else (server.grpc, greet)
            return Sample(kib_each(server, address, plan.idle, begin))

    def add(case: str, form: str, options: Sequence[str], against: str, tree: Tree) -> None:
        with ExitStack() as own:
            # Whether it can be started at all.
            start_server(own, plan, tree, f"idle-{next(numbers)}", options)
        other = None if form == against else against
        run = partial(turn, case, options, tree)
        probes.append(Probe("idle", case, form, tree.name, lambda: None, run, "KiB", False, other))

    for case in cases:
        forms = LANES if case == "HTTP" else TRANSPORTS
        against = list(forms)[1]
        for form, options in forms.items():
            each_tree(plan, f"idle, {form}", partial(add, case, form, options, against))
    return probes


def open_active(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """The loads of the groups `http` and `grpc` on many more connections."""
    allow_files(plan.active)
    probes: list[Probe] = []
    if "HTTP GET" in cases:
        for key, server in start_servers(stack, plan, "active", LANES).items():
            load = http.Load(server, http.get(), plan.keys, plan.active, plan.whole_seconds)
            probes.append(http.probe("active", "HTTP GET", key, load))
    if "gRPC Get" in cases:
        sent = messages.get(plan.keys, plan.value)
        for key, server in start_servers(stack, plan, "active", TRANSPORTS).items():
            load = grpc.Load(server, sent, Shape(plan.active, 1), plan)
            probes.append(grpc.probe("active", "gRPC Get", key, load))
    return probes


IDLE = Group("idle", {"HTTP": None, "gRPC": None}, open_idle)
ACTIVE = Group("active", {"HTTP GET": wrk.PROGRAM, "gRPC Get": client.PROGRAM}, open_active)
