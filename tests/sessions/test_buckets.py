"""Rates: what goes in, when, and against a naive model."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtwisted.core.errors import RateLimited
from kvtwisted.sessions.buckets import Addresses, Budget, Limiter, Rate, admit, network_of

#: Costs and pauses whose sums are exact in binary.
COSTS = st.integers(1, 12)
PAUSES = st.integers(0, 40).map(lambda number: number / 8)


class NaiveBucket:
    """A bucket as one would explain it: tokens that come back over time, and may be owed."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate = rate
        self.size = rate * burst
        self.tokens = self.size
        self.at = 0.0

    def take(self, cost: float, now: float) -> bool:
        """Whether it fits."""
        self.tokens = min(self.size, self.tokens + (now - self.at) * self.rate)
        self.at = now
        if self.tokens < min(cost, self.size):
            return False
        self.tokens -= cost
        return True


@given(st.sampled_from([1, 2, 4, 8]), st.sampled_from([0.5, 1.0, 2.0]), st.lists(st.tuples(COSTS, PAUSES), max_size=40))
def test_like_a_token_bucket(rate: int, burst: float, requests: list[tuple[int, float]]) -> None:
    """The same requests go in, and a refused one would at the time that is told, and not before."""
    limiter, naive, now = Limiter(Rate(rate), burst), NaiveBucket(rate, burst), 64.0
    naive.at = now
    for cost, pause in requests:
        now += pause
        wait = limiter.take(cost, 10**9, now)
        fits = naive.take(cost, now)
        assert (wait == 0) is fits
        if wait:
            assert NaiveBucket.take(copied(naive), cost, now + wait)
            assert not NaiveBucket.take(copied(naive), cost, now + wait / 2)


def copied(bucket: NaiveBucket) -> NaiveBucket:
    """One that can be tried."""
    copy = NaiveBucket(bucket.rate, 1)
    copy.__dict__.update(bucket.__dict__)
    return copy


def test_operations_and_bytes_together_or_not_at_all() -> None:
    """What is refused for its bytes takes no operation, and the other way round."""
    limiter = Limiter(Rate(10, 100))
    assert limiter.take(1, 100, 5.0) == 0
    assert limiter.take(9, 1, 5.0) == pytest.approx(0.01)
    assert limiter.take(9, 0, 5.0) == 0
    assert limiter.take(1, 0, 5.0) == pytest.approx(0.1)
    assert limiter.take(1, 10, 5.2) == 0


def test_more_than_a_bucket_holds() -> None:
    """A batch larger than the bucket needs a full one, and is paid for afterwards."""
    limiter = Limiter(Rate(10))
    assert limiter.take(50, 0, 0.0) == 0
    assert limiter.take(1, 0, 4.0) == pytest.approx(0.1)
    assert limiter.take(1, 0, 4.2) == 0
    assert limiter.take(50, 0, 4.3) > 0


def test_what_is_known_afterwards_is_owed() -> None:
    """An answer's bytes are taken, also more than there are; the next request waits for them."""
    limiter = Limiter(Rate(0, 100))
    limiter.spend(0, 300, 0.0)
    assert limiter.take(1, 0, 0.0) == pytest.approx(2)
    assert limiter.take(1, 0, 1.0) == pytest.approx(1)
    assert limiter.take(1, 0, 2.0) == 0
    assert Limiter(Rate(5)).take(5, 0, 0.0) == 0


def test_giving_back() -> None:
    """What was taken for nothing is there again, and no more than that."""
    limiter = Limiter(Rate(2, 16))
    for _ in range(10):
        assert limiter.take(1, 8, 0.0) == 0
        limiter.spend(-1, -8, 0.0)
    assert [limiter.take(1, 8, 0.0) for _ in range(3)] == [0, 0, 0.5]


def test_no_limit() -> None:
    """0 is none."""
    limiter = Limiter(Rate())
    assert all(limiter.take(10**9, 10**12, 1.0) == 0 for _ in range(10))
    assert not Rate().limited
    assert Rate(1).limited
    assert Rate(0, 1).limited


def test_a_clock_that_stands_still_or_goes_back() -> None:
    """It gives nothing back, and takes nothing."""
    limiter = Limiter(Rate(2))
    assert [limiter.take(1, 0, now) > 0 for now in (10, 10, 10, 9, 8)] == [False, False, True, True, True]
    assert limiter.take(1, 0, 10.5) == 0


def test_many_threads_take_no_more_than_there_is() -> None:
    """Each token goes to one of them."""
    limiter = Limiter(Rate(1024))
    taken: list[int] = []

    def take() -> None:
        taken.append(sum(limiter.take(1, 0, 7.0) == 0 for _ in range(500)))

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1024


def test_each_address_has_its_own() -> None:
    """One that is used up leaves others as they are."""
    addresses = Addresses(Rate(1))
    assert addresses.take("192.0.2.1", 1, 0, 1.0) == 0
    assert addresses.take("192.0.2.1", 1, 0, 1.0) == pytest.approx(1)
    assert addresses.take("192.0.2.2", 1, 0, 1.0) == 0
    addresses.spend("192.0.2.3", 2, 0, 1.0)
    assert addresses.take("192.0.2.3", 1, 0, 1.0) == pytest.approx(2)


def test_addresses_are_bounded() -> None:
    """The one that was not seen for the longest is forgotten, and no other."""
    addresses = Addresses(Rate(1), capacity=3)
    for network in ("a", "b", "c", "a", "d"):
        addresses.take(network, 1, 0, 1.0)
    assert len(addresses) == 3
    assert addresses.take("a", 1, 0, 1.0) > 0
    assert addresses.take("c", 1, 0, 1.0) > 0
    assert addresses.take("b", 1, 0, 1.0) == 0
    for number in range(1000):
        addresses.take(str(number), 1, 0, 1.0)
    assert len(addresses) == 3


def test_another_rate() -> None:
    """From the next request on."""
    addresses = Addresses(Rate())
    assert not addresses.limited
    addresses.retune(Rate(1))
    assert addresses.limited
    assert addresses.take("a", 1, 0, 1.0) == 0
    assert addresses.take("a", 1, 0, 1.0) > 0


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::1", "::/64"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("/run/kv.sock", "/run/kv.sock"),
        ("a:b", "a:b"),
        ("", ""),
    ],
)
def test_networks(host: str, network: str) -> None:
    """IPv6 counts by 64 bits, IPv4 by the address, whichever socket it came in on."""
    assert network_of(host) == network


def test_admit() -> None:
    """Nothing to wait for passes; else the error says for how long."""
    admit(0.0, "the token")
    with pytest.raises(RateLimited, match=r"the token is over its rate; try again in 1\.500 s") as refused:
        admit(1.5, "the token")
    assert refused.value.retry_after == 1.5


def test_two_budgets_are_taken_from_together_or_not_at_all() -> None:
    """What the second refuses is not taken from the first either, and the first is asked first."""
    first, addresses = Limiter(Rate(10)), Addresses(Rate(2))
    both = Budget(first, addresses, "192.0.2.1")
    assert [both.take(1, 0, 0.0) for _ in range(2)] == [0, 0]
    assert both.take(1, 0, 0.0) == pytest.approx(0.5)
    assert first.take(8, 0, 0.0) == 0  # two of ten were taken
    assert both.take(1, 0, 0.0) > 0
    both.spend(0, 100, 0.0)
    # Another address has a budget of its own.
    assert Budget(None, addresses, "192.0.2.2").take(2, 0, 0.0) == 0
