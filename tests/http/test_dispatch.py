"""From what came to an answer, without a connection: each request is told one, or none once nobody waits."""

from __future__ import annotations

from typing import Any

import pytest

from kvtwisted.http import routes
from kvtwisted.http.answers import Answer
from kvtwisted.http.dispatch import Dispatch
from kvtwisted.http.routes import Received
from kvtwisted.reactor.fair_pool import FairPool
from kvtwisted.sessions.gate import Gate, Visitor
from kvtwisted.sessions.threads import LAST_RESORT

from .support import World

#: Says that these tests need not run once for each lane, nor over each backend.
COMPARES_LANES = WITHOUT_BACKEND = True
SET = Received(content_type="application/json", body=b'{"key":"k","value":"v"}')
LARGE = Received(content_type="application/json", body=b'{"key":"k","value":"%b"}' % (b"v" * 200_000))
REQUESTS = {
    "get": (routes.GET, Received(b"k")),
    "set": (routes.SET, SET),
    "large set": (routes.SET, LARGE),
}


class Scene:
    """A dispatch over a world whose threads do nothing until a test says."""

    def __init__(self) -> None:
        self.world = World()
        self.world.held = True
        services: Any = None
        pool: Any = self.world.pool
        self.dispatch = Dispatch(self.world.reactor, FairPool(self.world.reactor, pool), services, self.world.bounds)
        self.session = Gate(self.world.door, self.world.admission).admit(Visitor(""))
        self.told: list[Answer] = []

    def ask(self, name: str) -> Any:
        """One request; returns what can be cancelled."""
        return self.dispatch.answer(self.session, *REQUESTS[name], self.told.append)


@pytest.fixture
def scene() -> Scene:
    """A new one."""
    return Scene()


@pytest.mark.parametrize("name", REQUESTS)
def test_one_answer(scene: Scene, name: str) -> None:
    """When it is done, and no other after its time."""
    scene.ask(name)
    scene.world.work()
    assert len(scene.told) == 1
    scene.world.reactor.advance(scene.world.bounds.request_timeout + LAST_RESORT + 1)
    assert len(scene.told) == 1
    assert scene.world.reactor.getDelayedCalls() == []


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_stuck_is_answered_once(scene: Scene, name: str) -> None:
    """In its place, after the last resort; what comes late answers nobody."""
    scene.ask(name)
    scene.world.reactor.advance(scene.world.bounds.request_timeout)
    assert scene.told == []
    scene.world.reactor.advance(LAST_RESORT)
    assert [answer.status for answer in scene.told] == [503]
    scene.world.work()
    assert len(scene.told) == 1
    assert scene.world.admission.in_flight == 0


@pytest.mark.parametrize("name", REQUESTS)
def test_who_has_gone_is_told_nothing(scene: Scene, name: str) -> None:
    """Nor is anything waited for any more."""
    scene.ask(name).cancel()
    scene.world.work()
    scene.world.reactor.advance(scene.world.bounds.request_timeout + LAST_RESORT + 1)
    assert scene.told == []
    assert (scene.world.admission.in_flight, scene.world.reactor.getDelayedCalls()) == (0, [])
