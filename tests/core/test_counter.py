"""A count without a lock."""

from __future__ import annotations

import sys
import threading

from kvtwisted.core.counting import Counter


def test_counts() -> None:
    """From 0, by one; looking does not count."""
    counter = Counter()
    assert (counter.value, counter.value) == (0, 0)
    drawn = [counter.advance() for _ in range(3)]
    assert drawn == [drawn[0] + number for number in range(3)]
    assert (counter.value, counter.value) == (3, 3)


def test_no_count_is_lost_between_threads() -> None:
    """Threads that take turns every few bytecodes lose nothing."""
    counter = Counter()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=lambda: [counter.advance() for _ in range(20_000)]) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert counter.value == 80_000


def test_readings_of_many_threads_do_not_count() -> None:
    """Each sees a count that was true, and none is left in it."""
    counter = Counter()
    seen: list[int] = []

    def look() -> None:
        for _ in range(2000):
            counter.advance()
            seen.append(counter.value)

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < min(seen) <= max(seen) <= counter.value == 8000
