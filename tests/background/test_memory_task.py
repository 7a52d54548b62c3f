"""Giving memory back, as a task."""

from __future__ import annotations

import ctypes
import platform
import subprocess
import sys
from mmap import mmap
from pathlib import Path
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from kvtwisted.background.memory import (
    FAR_MORE,
    MANY_ENDED,
    MUCH_MORE,
    PAUSE,
    SELDOM,
    TIMES,
    MemoryTask,
    give_back_memory,
    resident_bytes,
)

from .tasks import at_once


class Scene:
    """The task, connections that a test ends, and how often memory was given back."""

    def __init__(self, defer: Any = at_once, resident: int = 100 << 20) -> None:
        self.ended = 0
        self.given_back = 0
        #: Bytes of memory.
        self.resident = resident
        self.task = MemoryTask(lambda: self.ended, defer, give_back=self.give_back, resident=lambda: self.resident)

    def give_back(self) -> None:
        """Count it."""
        self.given_back += 1

    def run(self, ended: int = 0) -> int:
        """So many more connections end, then one look; how often it has been given back by then."""
        self.ended += ended
        self.task.run()
        return self.given_back


def test_few_connections() -> None:
    """Nothing is done for them, nor when none end at all."""
    scene = Scene()
    assert [scene.run() for _ in range(3)] == [0, 0, 0]
    assert scene.run(MANY_ENDED - 1) == 0
    assert [scene.run() for _ in range(3)] == [0, 0, 0]


def test_few_become_many() -> None:
    """What ends one by one counts together, and is counted anew once it was given back."""
    scene = Scene()
    ends = MANY_ENDED // 8
    assert [scene.run(ends) for _ in range(8)] == [0] * 7 + [1]
    assert [scene.run(ends) for _ in range(8)] == [1] * 7 + [2]


def test_a_flood_is_waited_for() -> None:
    """While connections end by the hundred it is put off, and done when that is over."""
    scene = Scene()
    assert [scene.run(3000), scene.run(3000), scene.run(3000), scene.run(10)] == [0, 0, 0, 1]
    assert [scene.run() for _ in range(5)] == [1] * 5


def test_a_flood_without_an_end() -> None:
    """Now and then it is done all the same."""
    scene = Scene()
    counts = [scene.run(1000) for _ in range(44)]
    assert counts == [0] * 10 + [1] * 11 + [2] * 11 + [3] * 11 + [4]


def looks_until_given_back(scene: Scene, most: int = 100) -> int:
    """How many looks it takes, if it is not more than `most`."""
    before = scene.given_back
    for number in range(1, most + 1):
        if scene.run() > before:
            return number
    raise AssertionError(f"not given back in {most} looks")


def test_without_a_reason() -> None:
    """Once a minute, also where memory is not known."""
    scene = Scene()
    scene.resident += MUCH_MORE - 1
    assert [looks_until_given_back(scene) for _ in range(3)] == [SELDOM] * 3
    unknown = Scene(resident=0)
    assert [looks_until_given_back(unknown) for _ in range(3)] == [SELDOM] * 3


def test_much_more_memory() -> None:
    """It is given back once it no longer grows, and again and again for a while, since its cause may last."""
    scene = Scene()
    for _ in range(10):
        scene.resident += 2 << 20
        assert scene.run() == 0
    assert looks_until_given_back(scene) == 1
    assert [looks_until_given_back(scene) for _ in range(TIMES)] == [PAUSE] * (TIMES - 1) + [SELDOM]


def test_much_more_again() -> None:
    """What there was at the top of the last growth is the new level, or the least there has been since."""
    scene = Scene()
    scene.resident += MUCH_MORE
    assert [looks_until_given_back(scene) for _ in range(TIMES + 1)][-1] == SELDOM
    scene.resident += MUCH_MORE
    assert looks_until_given_back(scene) == PAUSE
    for _ in range(TIMES):
        looks_until_given_back(scene)
    scene.resident -= 50 << 20
    assert looks_until_given_back(scene) == SELDOM
    scene.resident += MUCH_MORE
    assert looks_until_given_back(scene) == PAUSE


def far_more() -> Scene:
    """There is far more memory, for so long that nothing is done for its growth any more."""
    scene = Scene()
    scene.resident += FAR_MORE
    assert [looks_until_given_back(scene) for _ in range(TIMES + 1)][-1] == SELDOM
    return scene


def test_one_connection_that_held_much() -> None:
    """Its end is enough, long after the growth; then it is as before, and nothing is done for the next one."""
    scene = far_more()
    before = scene.given_back
    assert [scene.run() for _ in range(PAUSE)] == [before] * PAUSE
    assert scene.run(1) == before + 1
    scene.resident -= FAR_MORE
    assert scene.run(1) == before + 1
    assert [scene.run(1) for _ in range(PAUSE)] == [before + 1] * PAUSE


def test_far_more_that_is_in_use() -> None:
    """What does not go is asked for less and less often, however many end, down to what is done anyway."""
    scene = far_more()
    waits = []
    for _ in range(7):
        before, looks = scene.given_back, 1
        while scene.run(1) == before:
            looks += 1
        waits.append(looks)
    assert waits == [PAUSE, 2 * PAUSE, 4 * PAUSE, 8 * PAUSE, 16 * PAUSE, SELDOM, SELDOM]
    # It grows again, which is a reason to look anew.
    scene.resident += MUCH_MORE
    assert looks_until_given_back(scene) == PAUSE


def test_not_so_far_more() -> None:
    """One connection is no reason then."""
    scene = Scene()
    scene.resident += FAR_MORE - 1
    assert [looks_until_given_back(scene) for _ in range(TIMES + 1)][-1] == SELDOM
    before = scene.given_back
    assert [scene.run(1) for _ in range(SELDOM - 1)] == [before] * (SELDOM - 1)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_resident_bytes() -> None:
    """It grows with what is used."""
    before = resident_bytes()
    # Pages of its own, whatever the allocator has left of earlier tests.
    with mmap(-1, 64 << 20) as ballast:
        ballast.write(b"x" * len(ballast))
        assert resident_bytes() > before + len(ballast) // 2 > 1 << 20


def test_the_next_look_waits() -> None:
    """The Ticker is given what fires when the thread has done it; without work there is nothing to wait for."""
    jobs: list[Any] = []
    ended: Deferred[None] = Deferred()

    def defer(job: Any) -> Deferred[None]:
        jobs.append(job)
        return ended

    scene = Scene(defer)
    assert scene.task.run() is None
    scene.ended = MANY_ENDED
    assert scene.task.run() is None  # put off: they ended just now
    assert scene.task.run() is ended
    assert scene.given_back == 0
    jobs[0]()
    assert scene.given_back == 1


def test_giving_back() -> None:
    """It can be done wherever this runs."""
    give_back_memory()


@pytest.mark.parametrize("error", [OSError("no such library"), AttributeError("no such function")])
def test_other_libraries(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Where there is no malloc_trim, nothing happens."""

    def missing(name: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", missing)
    give_back_memory()


#: Threads that have had large blocks and stay; prints the MiB that are kept when all was given back.
_BLOCKS = """
import sys, threading
from kvtwisted.background.memory import give_back_memory, keep_little_memory, resident_bytes

if sys.argv[1] == "little":
    keep_little_memory()
before = resident_bytes()
done, over = threading.Semaphore(0), threading.Event()


def work():
    for mebibytes in (20, 24, 28, 20, 10):
        block = b"x" * (mebibytes << 20)
        del block
    done.release()
    over.wait()


threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    done.acquire()
give_back_memory()
print(resident_bytes() - before >> 20)
over.set()
"""


def _kept(how: str) -> int:
    command = [sys.executable, "-c", _BLOCKS, how]
    return int(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have their own ways")
def test_threads_keep_little_of_what_they_had() -> None:
    """Without being told, glibc keeps what each thread's largest block took, and does not give it back when asked."""
    assert _kept("little") < 4 * 4 + 4 < _kept("as it likes")
