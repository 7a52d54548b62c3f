"""Which backend a world is made over: the local one with a store in memory, or a late one.

Suites that import the fixture `backend` into their conftest run over both: over the late one at every change where a
module says BACKENDS_DIFFER, else in the long run. What is about the local backend alone is marked `local_backend`, and
modules whose tests are about none say WITHOUT_BACKEND. What needs the late one is marked `late_backend`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable

import pytest

from kvtwisted.backends.backend import Backend
from kvtwisted.backends.local.backend import LocalBackend
from kvtwisted.backends.local.recovery import Recovery
from kvtwisted.core.health import Health
from kvtwisted.core.limits import Limits
from kvtwisted.reactor.fair_pool import FairPool

from .late_backend import LateBackend, Remote
from .pools import ManualPool
from .storage import Storage

LOCAL, LATE = "local", "late"

HIDDEN = pytest.HIDDEN_PARAM

_chosen = LOCAL


def make_backend(
    reactor: Any, pool: Any, health: Health, storage: Any = None, *, limits: Limits | None = None
) -> tuple[Any, Backend]:
    """What holds the keys, and a backend over it: the one that was chosen. A `storage` that is given is kept.

    On a pool without threads, the late one's answers come by that: when a test says.
    """
    if _chosen == LATE and not isinstance(storage, Storage):
        remote = storage or Remote()
        by_pool = isinstance(pool, ManualPool)
        return remote, LateBackend(reactor, remote, _by(pool) if by_pool else reactor.callLater)
    kept: Storage = storage or Storage(limits=limits)
    recovery = Recovery(kept.store.metadata, health)
    return kept, LocalBackend(reactor, FairPool(reactor, pool), kept.store, recovery)


def _by(pool: ManualPool) -> Callable[..., object]:
    def call_later(seconds: float, call: Callable[[], object]) -> None:
        pool.callInThreadWithCallback(_told, call)

    return call_later


def _told(succeeded: bool, result: Any) -> None:
    if not succeeded:
        result.raiseException()


def over_both(metafunc: pytest.Metafunc) -> None:
    """Run a test over both backends; for `pytest_generate_tests`."""
    definition = metafunc.definition
    one = definition.get_closest_marker("local_backend") or definition.get_closest_marker("late_backend")
    if one is not None:
        metafunc.parametrize("backend", [LATE if one.name == "late_backend" else LOCAL], indirect=True, ids=[HIDDEN])
    elif not hasattr(metafunc.module, "WITHOUT_BACKEND"):
        marks = () if hasattr(metafunc.module, "BACKENDS_DIFFER") else pytest.mark.long
        both = [pytest.param(LOCAL, id=HIDDEN), pytest.param(LATE, marks=marks)]
        metafunc.parametrize("backend", both, indirect=True)


@pytest.fixture(autouse=True)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The backend that worlds are made over."""
    name: str = getattr(request, "param", LOCAL)
    monkeypatch.setattr(f"{__name__}._chosen", name)
    # pytest-twisted wraps a property anew each time that it runs, and a wrapped one cannot be wrapped again.
    prop = getattr(request.function, "hypothesis", None)
    inner = prop and prop.inner_test
    yield name
    if prop is not None:
        prop.inner_test = inner
