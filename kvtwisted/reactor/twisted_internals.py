"""Twisted's private names that this program cannot do without, each with its reason.

A release of Twisted may take any of them away without a word. `tests/reactor/test_twisted_internals.py` says which one
is gone, and that no other one is used anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeVar

from twisted.internet.epollreactor import EPollReactor
from twisted.internet.tcp import Connection
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.web.http import HTTPChannel


class PrivateName(NamedTuple):
    """One of them: the class that has it, and what for."""

    owner: type
    name: str
    why: str


NAMES = (
    # `LineReceiver._buffer += data` in `dataReceived`: the public `clearLineBuffer` tells only by taking it away.
    PrivateName(HTTPChannel, "_buffer", "whether something has come that is not read: a head, or what is behind it"),
    # `self._dataBuffer.append(data)` in `rawDataReceived` and `_finishRequestBody`: no public name is told of it.
    PrivateName(HTTPChannel, "_dataBuffer", "whether something has come behind a request that is being answered"),
    # Called where no well-formed request is found; it writes its own answer, without a body, and no hook is before it.
    PrivateName(HTTPChannel, "_respondToBadRequestAndDisconnect", "to answer what is malformed as we answer all else"),
    # `FileDescriptor.write`: `self._tempDataBuffer.append(data); self._tempDataLen += len(data)`.
    PrivateName(Connection, "_tempDataLen", "bytes written to a transport that the kernel has not taken"),
    PrivateName(Connection, "_tempDataBuffer", "whether any are: then nothing may be sent before them"),
    # `FileDescriptor.loseWriteConnection`: `self._writeDisconnecting = True`.
    PrivateName(Connection, "_writeDisconnecting", "whether our side of the connection is being closed"),
    # `TLSMemoryBIOProtocol.write`: `self._appSendBuffer.append(bytes)` while OpenSSL takes nothing.
    PrivateName(TLSMemoryBIOProtocol, "_appSendBuffer", "bytes that wait for the handshake, or for the other side"),
    # For `tls.connections`, which ends connections as TCP does, and gives the kernel what OpenSSL has at once.
    PrivateName(TLSMemoryBIOProtocol, "_checkHandshakeStatus", "to know when the handshake is over"),
    PrivateName(TLSMemoryBIOProtocol, "_handshakeDone", "to know whether it is"),
    PrivateName(TLSMemoryBIOProtocol, "_flushSendBIO", "to send at once what OpenSSL gives"),
    PrivateName(TLSMemoryBIOProtocol, "_flushReceiveBIO", "to tell the end of input from the end of the connection"),
    PrivateName(TLSMemoryBIOProtocol, "_tlsConnection", "OpenSSL's connection"),
    PrivateName(TLSMemoryBIOProtocol, "_lostTLSConnection", "whether OpenSSL has nothing more to say"),
    PrivateName(TLSMemoryBIOProtocol, "_aborted", "whether the connection was aborted"),
    PrivateName(TLSMemoryBIOProtocol, "_shutdownTLS", "to send the closing alert without the end of the connection"),
    PrivateName(TLSMemoryBIOProtocol, "_tlsShutdownFinished", "to end the connection for OpenSSL's reason"),
    PrivateName(TLSMemoryBIOProtocol, "_producer", "to break a cycle that would keep a lost connection in memory"),
    # For `reactor.polling`, which does what `EPollReactor.doPoll` does.
    PrivateName(EPollReactor, "_poller", "to wait for what can be read"),
    PrivateName(EPollReactor, "_selectables", "to know whose descriptor it is"),
    PrivateName(EPollReactor, "_doReadOrWrite", "to leave all but what a TCP connection reads to Twisted"),
    PrivateName(EPollReactor, "_disconnectSelectable", "to end a connection that has nothing more to read"),
)

_Channel = TypeVar("_Channel", bound=type[HTTPChannel])


def has_unread_lines(channel: HTTPChannel) -> bool:
    """Whether something has come that twisted.web has not looked at: a part of a head, or what is behind a request."""
    return bool(channel._buffer)


def has_data_behind(channel: HTTPChannel) -> bool:
    """Whether something has come behind the request that twisted.web is working on."""
    return any(channel._dataBuffer)


def answers_malformed(channel: _Channel) -> _Channel:
    """For a class with a method `malformed`, which is called where Twisted finds no well-formed request."""

    # As a function it is found at the time of the call: a subclass may have another one.
    def answer(self: Any) -> None:
        self.malformed()

    channel._respondToBadRequestAndDisconnect = answer  # type: ignore[method-assign]
    return channel


def unsent_bytes(transport: Any) -> int:
    """Bytes that were written to `transport`, and to what is beneath it, and that the kernel has not taken yet."""
    waiting = 0
    while transport is not None:
        waiting += len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
        waiting += getattr(transport, "_tempDataLen", 0)
        waiting += sum(map(len, getattr(transport, "_appSendBuffer", ())))
        transport = getattr(transport, "transport", None)
    return waiting
