"""The bound on work under way."""

from __future__ import annotations

import threading

import pytest

from kvtwisted.core.admission import Admission
from kvtwisted.core.errors import Overloaded, Unavailable


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


def test_threads() -> None:
    """However many threads come and go, no more than the capacity are inside, and at the end none."""
    admission = Admission(3)
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
    assert admission.in_flight == 0
