"""A tenant who wants what he did out of the audit log."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .harness import Launcher, eventually
from .test_authentication import Tokens


@pytest.mark.long
def test_the_audit_log_cannot_be_written_full(launch: Launcher) -> None:
    """Neither by writes, which are audited elsewhere, nor by refused changes with long values, nor by denials."""
    tokens = Tokens(launch.folder / "server")
    root, tenant = tokens.create("root", "admin,config_write"), tokens.create("tenant", "set,config_write")
    server = launch(
        "--security-tokens", str(tokens.path), "--security-audit-writes", "true",
        "--logging-max-bytes", "65536", "--logging-max-files", "1",
    )  # fmt: skip
    with server.http(root) as http:
        assert http.post("/api/v1/config", {"logging": {"performance_interval": 61}}).status == 200
    with server.http(tenant) as http:
        for number in range(600):
            assert http.post("/api/v1/set", {"key": f"{number:0100}", "value": ""}).status == 200
        for _ in range(50):
            assert http.post("/api/v1/config", {"http": {"host": "x" * 60_000}}).status == 400
            assert http.get("/api/v1/get/a").status == 403
            assert http.post("/api/v1/config", {"no": {"such": {"x" * 60_000: 1}}}).status == 400
    logs = server.folder / "logs"
    eventually((logs / "writes.log.1").exists)

    def told() -> list[dict[str, Any]]:
        return [json.loads(line) for line in server.log("audit").splitlines()]

    eventually(lambda: any(line["event"] == "denied" for line in told()))
    assert not (logs / "audit.log.1").exists()
    (changed,) = [line for line in told() if line["event"] == "config_changed"]
    assert (changed["who"], changed["changes"]) == ("root", {"logging.performance_interval": [60, 61]})
    server.stop()
    left_out = {line["event"]: line["left_out"] for line in told() if "left_out" in line}
    written = [line["event"] for line in told() if line["who"] == "tenant" and "left_out" not in line]
    assert left_out["config_refused"] + written.count("config_refused") == 100
    assert left_out["denied"] + written.count("denied") == 50
