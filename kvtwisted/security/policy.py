"""Which operation each RPC and each route needs: one table, and what is not in it is denied."""

from __future__ import annotations

#: The operation that a route needs, by its name; None: it is public. Those on keys are looked at again key by key.
ROUTES: dict[str, str | None] = {
    "set": "set",
    "get": "get",
    "delete": "delete",
    "scan": "scan",
    "mset": "set",
    "mget": "get",
    "mdelete": "delete",
    "get_config": "config_read",
    "update_config": "config_write",
    "admin_backup": "admin",
    "admin_backups": "admin",
    "admin_eviction": "admin",
    "admin_orphans": "admin",
    "openapi": None,
    "health": None,
    "metrics": "metrics",
}
