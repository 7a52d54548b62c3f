"""Who meets a requirement."""

from __future__ import annotations

import pytest

from kvtwisted.core.errors import PermissionDenied, Unauthenticated
from kvtwisted.http.routes import ROUTES
from kvtwisted.sessions import policy
from kvtwisted.sessions.grants import OPERATIONS, Principal

from .support import grant


def test_every_requirement_of_a_route_is_one() -> None:
    """An operation, or one of the words; public is health alone."""
    requirements = {route.requirement for route in ROUTES}
    assert requirements <= {policy.PUBLIC, policy.AUTHENTICATED, *OPERATIONS}
    assert [route.name for route in ROUTES if route.requirement == policy.PUBLIC] == ["health"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_admit(operation: str) -> None:
    """Whoever may do it somewhere passes; others are told whether it is the token or the right that is missing."""
    able, other = Principal("a", [grant(operation)]), Principal("b", [])
    policy.admit(operation, able)
    with pytest.raises(PermissionDenied):
        policy.admit(operation, other)
    with pytest.raises(Unauthenticated, match="a token is required"):
        policy.admit(operation, None)
    for anybody in (able, other, None):
        policy.admit(policy.PUBLIC, anybody)
    policy.admit(policy.AUTHENTICATED, other)
    with pytest.raises(Unauthenticated):
        policy.admit(policy.AUTHENTICATED, None)
    with pytest.raises(PermissionDenied):
        policy.admit(policy.NOBODY, able)
    with pytest.raises(Unauthenticated):
        policy.admit(policy.NOBODY, None)


def test_a_prefix_passes_at_the_door() -> None:
    """Which keys is looked at later, when they are known."""
    policy.admit("get", Principal("a", [grant("get", b"x/")]))
