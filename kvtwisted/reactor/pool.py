"""Work in a thread pool. Failures keep nothing of the thread's frames."""

from __future__ import annotations

from typing import Any, Callable, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from ..core.errors import without_frames

T = TypeVar("T")


def defer_to_pool(
    reactor: IReactorFromThreads, pool: ThreadPool, call: Callable[..., T], *args: Any, **kwargs: Any
) -> Deferred[T]:
    """Run `call` in a thread of the pool. The failure of the Deferred has its traceback as text alone.

    Twisted's worker holds the failure in a variable of a frame that the traceback would hold; see Note [Errors that are
    kept hold no frames] for why that is bad. Reactor thread.
    """
    # A Deferred whose result is a failure has failed.
    result: Deferred[Any] = deferToThreadPool(reactor, pool, _outcome, call, *args, **kwargs)
    return result


def caught() -> Failure:
    """The exception that is being handled, as a failure that may be kept: its traceback is text. Any thread.

    The exception may be kept without the failure: it remembers that text for its incident (`incidents.report`).
    """
    failure = Failure()
    failure.cleanFailure()
    if failure.value is not None:
        without_frames(failure.value).raised_at = failure.frames  # type: ignore[attr-defined]
    return failure


def _outcome(call: Callable[..., T], *args: Any, **kwargs: Any) -> T | Failure:
    try:
        return call(*args, **kwargs)
    except BaseException:
        return caught()
