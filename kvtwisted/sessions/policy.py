"""Who may call what: the words for what is required, and the one table of every RPC. HTTP routes: `http.routes`.

What is not in the table is for nobody. Tests hold it against what the server really serves, both ways.

A requirement is looked at before anything of a request but its head is read. Which keys it may touch is decided
when its command is known, by `sessions.session`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..core.errors import PermissionDenied, Unauthenticated
from .grants import CONFIG_READ, CONFIG_WRITE, DELETE, GET, SCAN, SET, Principal

#: For everybody, without a token: what load balancers and supervisors ask, who have none.
PUBLIC = "public"
#: For everybody who has a valid token, whatever its grants.
AUTHENTICATED = "authenticated"
#: For nobody: what the table does not know.
NOBODY = "nobody"

NO_TOKEN = "a token is required: send the header Authorization with Bearer and the token"  # noqa: S105 - no secret
_DENIED = "the token does not allow this"

_METHODS = {
    "Set": SET,
    "Get": GET,
    "Delete": DELETE,
    "ScanKeys": SCAN,
    "ScanKeyValues": SCAN,
    "MSet": SET,
    "MGet": GET,
    "MDelete": DELETE,
    "GetConfig": CONFIG_READ,
    "UpdateConfig": CONFIG_WRITE,
    # Each of its operations is checked by itself; see PIPELINE.
    "Pipeline": AUTHENTICATED,
}

#: By the path of the RPC.
RPCS: Mapping[str, str] = {
    **{f"/kv.v1.KeyValueService/{method}": needed for method, needed in _METHODS.items()},
    **{f"/KeyValueService/{method}": needed for method, needed in _METHODS.items()},
    "/grpc.health.v1.Health/Check": PUBLIC,
    "/grpc.health.v1.Health/Watch": PUBLIC,
    # They tell only what the proto file does, but each takes one of few streams.
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": AUTHENTICATED,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": AUTHENTICATED,
}

#: A pipeline's operations, by the field that has them.
PIPELINE: Mapping[str, str] = {"set": SET, "get": GET, "delete": DELETE}


def rpc_requirement(path: str) -> str:
    """What the RPC at `path` requires: an operation, or PUBLIC, AUTHENTICATED, NOBODY."""
    return RPCS.get(path, NOBODY)


def admit(requirement: str, principal: Principal | None) -> None:
    """Let `principal` (None: nobody known) pass, or raise Unauthenticated or PermissionDenied.

    An operation on keys lets everybody pass who may do it on any key at all.
    """
    if requirement == PUBLIC:
        return
    if principal is None:
        raise Unauthenticated(NO_TOKEN)
    if requirement == AUTHENTICATED:
        return
    if requirement == NOBODY or not principal.may_ever(requirement):
        raise PermissionDenied(_DENIED)
