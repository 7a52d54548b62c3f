"""Failures of a pool's threads hold nothing of those threads."""

from __future__ import annotations

import weakref
from collections.abc import Iterator

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from kvtwisted.core.errors import StorageError
from kvtwisted.reactor.pool import caught, defer_to_pool
from tests.support.collector import without_collector


@pytest.fixture(name="pool")
def _pool() -> Iterator[ThreadPool]:
    pool = ThreadPool(1, 1)
    pool.start()
    with without_collector():
        yield pool
    pool.stop()


class Message:
    """What a request holds."""


def fail(message: Message, *, like: type[Exception]) -> None:
    """A job that ends with an error that came of another."""
    try:
        raise KeyError
    except KeyError as error:
        kept = like("broken")
        raise kept from error


@pytest_twisted.ensureDeferred
async def test_result(pool: ThreadPool) -> None:
    """What the job returns comes back."""
    assert await defer_to_pool(reactor, pool, divmod, 7, 2) == (3, 1)


@pytest.mark.parametrize("like", [StorageError, TypeError])
@pytest_twisted.ensureDeferred
async def test_failure_holds_nothing(pool: ThreadPool, like: type[Exception]) -> None:
    """The failure is the job's and tells where it was raised, but its frames are gone, and with them the message."""
    message = Message()
    left = weakref.ref(message)
    failures: list[Failure] = []
    failing: Deferred[None] = defer_to_pool(reactor, pool, fail, message, like=like)
    failing.addErrback(failures.append)
    del message
    await failing
    (failure,) = failures
    assert failure.check(like)
    assert failure.value.__traceback__ is None
    assert "in fail" in failure.getTraceback()
    # The worker has the job until it takes up the next one.
    await defer_to_pool(reactor, pool, divmod, 7, 2)
    assert left() is None


def test_what_was_caught() -> None:
    """The exception that is being handled, without its frames."""
    message = Message()
    left = weakref.ref(message)
    with without_collector():
        try:
            fail(message, like=ValueError)
        except ValueError:
            failure = caught()
            del message
        assert left() is None
    assert "in fail" in failure.getTraceback()
    assert failure.check(ValueError)
