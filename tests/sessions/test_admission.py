"""The bound on work under way."""

from __future__ import annotations

import threading

import pytest

from kvtwisted.core.errors import Overloaded, Unavailable
from kvtwisted.sessions.admission import Admission


def test_capacity() -> None:
    """As many as the capacity get in, the next is refused with the limit's name, and one may follow one that left."""
    admission = Admission(2)
    admission.enter()
    admission.enter()
    assert admission.in_flight == 2
    with pytest.raises(Overloaded) as caught:
        admission.enter()
    assert str(caught.value) == "too many requests: limits.max_in_flight is 2; try again"
    assert admission.in_flight == 2
    admission.leave()
    admission.enter()
    assert admission.in_flight == 2


def test_closed() -> None:
    """After `close` nobody gets in, full or not; those inside may leave."""
    admission = Admission(1)
    admission.enter()
    admission.close()
    with pytest.raises(Unavailable, match="the server is stopping"):
        admission.enter()
    admission.leave()
    assert admission.in_flight == 0
    with pytest.raises(Unavailable):
        admission.enter()


def test_bytes() -> None:
    """What has none is let in whatever there is; what has more than there may be, when nothing else has any."""
    admission = Admission(10, 100)
    admission.enter(60)
    admission.enter(40)
    admission.enter()
    with pytest.raises(Overloaded) as caught:
        admission.enter(1)
    assert str(caught.value) == "too many bytes in requests: limits.max_bytes_in_flight is 100; try again"
    admission.check()
    assert (admission.in_flight, admission.bytes, admission.refused) == (3, 100, 1)
    admission.leave(2, 100)
    admission.enter(1000)
    assert admission.bytes == 1000
    for size in (1, 1000):
        with pytest.raises(Overloaded):
            admission.enter(size)
    admission.leave(2, 1000)
    assert (admission.in_flight, admission.bytes) == (0, 0)


def test_a_share_is_less_than_the_whole() -> None:
    """One principal is refused when the share is full, and others still find room, until all is full."""
    whole = Admission(4, 400)
    one, another = whole.share(), whole.share()
    for _ in range(3):
        one.enter(1)
    for call in (one.enter, one.check):
        with pytest.raises(Overloaded) as caught:
            call()
        assert str(caught.value) == "too many requests: limits.max_in_flight_per_principal is 3; try again"
    another.check()
    another.enter(1)
    assert (one.in_flight, another.in_flight, whole.in_flight, whole.bytes) == (3, 1, 4, 4)
    for call in (another.enter, another.check):
        with pytest.raises(Overloaded, match=r"limits\.max_in_flight is 4"):
            call()
    assert whole.refused == 4
    one.leave(3, 3)
    another.leave(1, 1)
    assert (one.in_flight, one.bytes, another.in_flight, whole.in_flight, whole.bytes) == (0, 0, 0, 0, 0)


def test_a_share_of_the_bytes() -> None:
    """As large a part of them as of the requests; what is refused there has not entered the whole."""
    whole = Admission(10, 1000, share=2)
    one, another = whole.share(), whole.share()
    one.enter(150)
    with pytest.raises(Overloaded) as caught:
        one.enter(51)
    assert str(caught.value) == (
        "too many bytes in requests: of limits.max_bytes_in_flight each principal may have 200; try again"
    )
    another.enter(850)  # more than its share, but there is no other in it
    with pytest.raises(Overloaded, match=r"limits\.max_bytes_in_flight is 1000; try again"):
        one.enter(1)
    assert (whole.in_flight, whole.bytes, one.bytes, another.bytes) == (2, 1000, 150, 850)


def test_who_grows_needs_room_in_the_whole() -> None:
    """Beside room in its share; what is refused there is not counted anywhere."""
    whole = Admission(10, 1000, share=8)
    one, another = whole.share(), whole.share()
    one.enter(100)
    another.enter(700)
    with pytest.raises(Overloaded, match=r"limits\.max_bytes_in_flight is 1000; try again"):
        one.grow(300)
    assert (one.bytes, whole.bytes) == (100, 800)
    one.grow(200)
    assert (one.bytes, whole.bytes) == (300, 1000)


@pytest.mark.parametrize(("capacity", "share", "allowed"), [(1, 0, 1), (2, 0, 1), (8, 0, 6), (8, 3, 3), (8, 100, 8)])
def test_how_large_a_share_is(capacity: int, share: int, allowed: int) -> None:
    """As configured, three quarters when it is not, one at least, and never more than there is."""
    one = Admission(capacity, share=share).share()
    for _ in range(allowed):
        one.enter()
    with pytest.raises(Overloaded):
        one.enter()


def test_a_closed_whole_closes_its_shares() -> None:
    """Also those that are made later."""
    whole = Admission(4)
    one = whole.share()
    whole.close()
    for share in (one, whole.share()):
        for call in (share.enter, share.check):
            with pytest.raises(Unavailable, match="the server is stopping"):
                call()


@pytest.mark.parametrize("shared", [False, True])
def test_threads(shared: bool) -> None:
    """However many threads come and go, no more than the capacity are inside, and at the end none."""
    whole = Admission(3, share=3)
    admission = whole.share() if shared else whole
    start = threading.Barrier(8)
    most: list[int] = []
    admitted: list[int] = []

    def come_and_go() -> None:
        start.wait(60)
        times = 0
        while times < 500:
            try:
                admission.enter()
            except Overloaded:
                continue
            most.append(admission.in_flight)
            times += 1
            admission.leave()
        admitted.append(times)

    threads = [threading.Thread(target=come_and_go) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert admitted == [500] * 8
    assert max(most) <= 3
    assert (admission.in_flight, whole.in_flight) == (0, 0)


def test_an_administrator_has_some_beyond_the_capacity() -> None:
    """When others have taken all, a few of his are let in; with these he is refused like anybody."""
    whole = Admission(4)
    other, administrator = whole.share(), whole.share(2)
    for _ in range(3):
        other.enter()
    whole.enter()
    with pytest.raises(Overloaded):
        whole.share().enter()
    for _ in range(2):
        administrator.check()
        administrator.enter()
    for refused in (administrator.enter, administrator.check):
        with pytest.raises(Overloaded, match=r"limits\.max_in_flight is 4"):
            refused()
    administrator.leave(2)
    assert (whole.in_flight, administrator.in_flight) == (4, 0)
    whole.close()
    with pytest.raises(Unavailable):
        administrator.enter()
