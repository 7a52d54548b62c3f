"""What is known of a call before its message: whether who makes it may ever call that method. Any thread."""

from __future__ import annotations

from ..sessions.policy import AUTHENTICATED, NOBODY, PIPELINE, rpc_requirement
from ..sessions.session import Session
from . import pipeline
from .methods import SERVICES

_PIPELINES = frozenset(f"/{service}/{pipeline.NAME}" for service in SERVICES)


def check(admitted: Session, path: str, address: str) -> None:
    """Raise Unauthenticated or PermissionDenied if nothing that the method at `path` does is open to this one.

    A refusal costs an operation; RateLimited if there is none left. `address` is for the audit log.
    """
    requirement = rpc_requirement(path)
    if requirement == NOBODY and admitted.is_known:
        return  # that there is no such method is no secret to them
    if path in _PIPELINES and admitted.is_known:
        # Which operations come is not known; one of them must be possible.
        allowed = [operation for operation in PIPELINE.values() if admitted.principal.may_ever(operation)]
        requirement = AUTHENTICATED if allowed else next(iter(PIPELINE.values()))
    admitted.require(requirement, address)
