"""What a request may require, and whether a principal meets it. Each route and RPC names its own requirement: see
`http.routes` and `rpc.rights`.

A requirement is checked when only the head of a request has been read. Which keys it may touch is decided when its
command is known, by `sessions.session`.
"""

from __future__ import annotations

from ..core.errors import PermissionDenied, Unauthenticated
from .grants import Principal

#: For everybody, without a token: what load balancers and supervisors ask, who have none.
PUBLIC = "public"
#: For everybody who has a valid token, whatever its grants.
AUTHENTICATED = "authenticated"
#: For nobody: what no table knows.
NOBODY = "nobody"

NO_TOKEN = "a token is required: send the header Authorization with Bearer and the token"  # noqa: S105 - no secret
_DENIED = "the token does not allow this"


def admit(requirement: str, principal: Principal | None) -> None:
    """Let `principal` (None: an unknown client) pass, or raise Unauthenticated or PermissionDenied.

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
