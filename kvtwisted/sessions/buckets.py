"""Rates in operations and bytes per second, kept by token buckets.

A bucket is one number, the time at which it is full again (the generic cell rate algorithm, ITU-T I.371; the same as a
token bucket). What a request costs moves that time on; a request whose cost does not fit is refused, with the seconds
after which it would. One that costs more than the bucket holds at all needs a full one, and owes the rest.

`now` is a time of `time.monotonic` everywhere. Safe from any thread.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from threading import Lock
from typing import NamedTuple

from ..core.errors import RateLimited

#: Seconds' worth that a bucket holds, unless told otherwise.
BURST_SECONDS = 1.0
#: Addresses that are remembered; a new one replaces the one that was silent for the longest.
MAX_ADDRESSES = 65_536


class Rate(NamedTuple):
    """Operations and bytes per second; 0 is no limit. A batch counts its keys, a scan is one operation."""

    operations: float = 0
    bytes: float = 0

    @property
    def limited(self) -> bool:
        """Whether there is any limit."""
        return bool(self.operations or self.bytes)

    def __str__(self) -> str:
        """For messages: "10 operations and 1000 bytes a second"."""
        parts = [f"{amount:.15g} {unit}" for amount, unit in zip(self, self._fields) if amount]
        return f"{' and '.join(parts)} a second"


class Limiter:
    """Two buckets, of operations and of bytes, that are taken from together or not at all."""

    __slots__ = ("_burst", "_byte_seconds", "_bytes_full", "_lock", "_operation_seconds", "_operations_full", "rate")

    def __init__(self, rate: Rate, burst: float = BURST_SECONDS) -> None:
        """`burst` is how many seconds' worth may come at once; both buckets begin full."""
        self.rate = rate
        self._operation_seconds = 1 / rate.operations if rate.operations else 0.0
        self._byte_seconds = 1 / rate.bytes if rate.bytes else 0.0
        self._burst = burst
        self._operations_full = self._bytes_full = 0.0
        self._lock = Lock()

    def take(self, operations: int, size: int, now: float) -> float:
        """Take that many operations and bytes and return 0, or take nothing and return the seconds to wait."""
        burst = self._burst
        cost = operations * self._operation_seconds
        byte_cost = size * self._byte_seconds
        with self._lock:
            full = self._operations_full
            if full < now:
                full = now
            bytes_full = self._bytes_full
            if bytes_full < now:
                bytes_full = now
            latest = now + burst
            wait = full + (cost if cost < burst else burst) - latest
            byte_wait = bytes_full + (byte_cost if byte_cost < burst else burst) - latest
            if wait > 0 or byte_wait > 0:
                return wait if wait > byte_wait else byte_wait
            self._operations_full = full + cost
            self._bytes_full = bytes_full + byte_cost
        return 0.0

    def spend(self, operations: int, size: int, now: float) -> None:
        """Take that much in any case: for costs that are known only afterwards, such as an answer's bytes.

        Less than 0 gives back what `take` took.
        """
        if not operations and not self._byte_seconds:
            return
        with self._lock:
            full, bytes_full = self._operations_full, self._bytes_full
            self._operations_full = (full if full > now else now) + operations * self._operation_seconds
            self._bytes_full = (bytes_full if bytes_full > now else now) + size * self._byte_seconds


class Budget:
    """What requests of a principal from one address are taken from: its own rate, if it has one, and the address's.

    They are taken from together or not at all.
    """

    __slots__ = ("_addresses", "_limiter", "_network")

    def __init__(self, limiter: Limiter | None, addresses: Addresses, network: str) -> None:
        """`network` is what `network_of` says of the address."""
        self._limiter = limiter
        self._addresses = addresses
        self._network = network

    def take(self, operations: int, size: int, now: float) -> float:
        """See `Limiter.take`."""
        own = self._limiter
        wait = 0.0 if own is None else own.take(operations, size, now)
        if not wait:
            wait = self._addresses.take(self._network, operations, size, now)
            if wait and own is not None:
                own.spend(-operations, -size, now)
        return wait

    def spend(self, operations: int, size: int, now: float) -> None:
        """See `Limiter.spend`."""
        if self._limiter is not None:
            self._limiter.spend(operations, size, now)
        self._addresses.spend(self._network, operations, size, now)


class Addresses:
    """A limiter for each address (an IPv6 network of 64 bits counts as one), of a bounded number of them.

    An attacker with more addresses than that can get buckets forgotten, and starts with full ones; without the bound it
    could take all the memory instead.
    """

    def __init__(self, rate: Rate, *, burst: float = BURST_SECONDS, capacity: int = MAX_ADDRESSES) -> None:
        self._lock = Lock()
        self._capacity = capacity
        # In the order of last use. Of a plain dict the first entry is slow to find when many before it were deleted.
        self._limiters: OrderedDict[str, Limiter] = OrderedDict()
        self.retune(rate, burst)

    def __len__(self) -> int:
        """Addresses that are remembered."""
        return len(self._limiters)

    def retune(self, rate: Rate, burst: float = BURST_SECONDS) -> None:
        """Use another rate from now on. All buckets are full again."""
        with self._lock:
            self.rate, self._burst = rate, burst
            #: Whether there is any limit; without one there is no need to ask.
            self.limited = rate.limited
            self._limiters = OrderedDict()

    def take(self, network: str, operations: int, size: int, now: float) -> float:
        """See `Limiter.take`. `network` is what `network_of` says."""
        return self._limiter(network).take(operations, size, now)

    def spend(self, network: str, operations: int, size: int, now: float) -> None:
        """See `Limiter.spend`."""
        self._limiter(network).spend(operations, size, now)

    def _limiter(self, network: str) -> Limiter:
        with self._lock:
            limiter = self._limiters.get(network)
            if limiter is None:
                limiter = self._limiters[network] = Limiter(self.rate, self._burst)
                if len(self._limiters) > self._capacity:
                    self._limiters.popitem(last=False)
            else:
                self._limiters.move_to_end(network)
        return limiter


def network_of(host: str) -> str:
    """What an address counts as: an IPv4 address itself, an IPv6 one its network of 64 bits. Called once for each
    connection.

    A whole such network usually belongs to one subscriber (RFC 6177). An IPv4 address that came in on an IPv6 socket
    (`::ffff:192.0.2.1`) counts as the IPv4 address. Anything else, such as the path of a socket, counts as itself.
    """
    if ":" not in host:
        return host
    try:
        address = ipaddress.IPv6Address(host.partition("%")[0])
    except ValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)))


def admit(wait: float, whose: str) -> None:
    """Raise RateLimited when `wait`, as `take` returned it, is not 0. `whose` begins the sentence: "the token"."""
    if wait:
        raise RateLimited(f"{whose} is over its rate; try again in {max(wait, 0.001):.3f} s", wait)
