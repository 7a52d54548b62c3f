"""What each RPC requires, and whether a caller may ever call it: known before the message is read. Any thread.

What is not in the table is refused. Tests compare it with what both servers really serve.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..sessions.policy import AUTHENTICATED, NOBODY, PUBLIC
from ..sessions.session import Session
from . import health, pipeline, reflection
from .methods import METHODS, SERVICES
from .streams import STREAM_METHODS

_PIPELINES = frozenset(f"/{service}/{pipeline.NAME}" for service in SERVICES)
#: What the operations of a pipeline require.
_OPERATIONS = tuple(method.right for method in pipeline.METHODS_BY_KIND.values())

#: By the path of the RPC.
RPCS: Mapping[str, str] = {
    **{f"/{service}/{method.name}": method.right for service in SERVICES for method in METHODS.values()},
    **{f"/{service}/{method.name}": method.right for service in SERVICES for method in STREAM_METHODS.values()},
    # Each of its operations is checked by itself.
    **dict.fromkeys(_PIPELINES, AUTHENTICATED),
    f"/{health.SERVICE}/Check": PUBLIC,
    f"/{health.SERVICE}/Watch": PUBLIC,
    # They tell only what the proto file does, but each takes one of few streams.
    **{f"/{name}/ServerReflectionInfo": AUTHENTICATED for name in reflection.NAMES},
}


def rpc_requirement(path: str) -> str:
    """What the RPC at `path` requires: an operation, or PUBLIC, AUTHENTICATED, NOBODY."""
    return RPCS.get(path, NOBODY)


def check(admitted: Session, path: str, address: str) -> None:
    """Raise Unauthenticated or PermissionDenied if this caller may never call the method at `path`.

    A refusal costs an operation; RateLimited if there is none left. `address` is for the audit log.
    """
    requirement = rpc_requirement(path)
    if requirement == NOBODY and admitted.is_known:
        return  # that there is no such method is no secret to them
    if path in _PIPELINES and admitted.is_known:
        # Which operations come is not known; one of them must be possible.
        allowed = any(admitted.principal.may_ever(operation) for operation in _OPERATIONS)
        requirement = AUTHENTICATED if allowed else _OPERATIONS[0]
    admitted.require(requirement, address)
