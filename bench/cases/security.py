"""What authentication costs: Gets with one token in use, beside the same Gets at a server that asks nobody who he is.

The token may get and set what begins as all keys do, and read the metrics, by which the harness counts what was served.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import grpc as grpcio

from .. import client, messages, wrk
from ..load import LoadError
from ..messages import Messages
from ..plan import Group, Plan, start_servers
from ..rounds import Probe
from ..server import KEY, PATIENCE, Server, name
from ..trees import NOW
from . import grpc, http

#: The forms of all cases; ratios are to the second.
TOKEN, OPEN = "one token", "no tokens"
GRPC, HTTP = "Get, gRPC 4 x 16", "GET, HTTP"
#: What the console script `kvtwisted` does, without the help of PATH.
_COMMAND = (sys.executable, "-c", "from kvtwisted.cli import main; main()")


def make_token(folder: Path) -> tuple[Path, str]:
    """A file of one token, in a folder, and the token. Raises RuntimeError when the command that makes it fails."""
    file = folder / "tokens.json"
    grants = ("--grant", f"get,set:{KEY}", "--grant", "metrics")
    done = subprocess.run(  # noqa: S603 - built here
        [*_COMMAND, "token", "create", "bench", "--file", str(file), *grants],
        env=NOW.environment(), capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"kvtwisted token create: {done.stderr.strip() or done.stdout.strip()}")
    return file, done.stdout.strip()


def check_asked(server: Server, get: Messages, key: str) -> None:
    """Ask without the token. Raises LoadError unless both interfaces refuse: then there would be nothing to measure."""
    try:
        grpc.check(server.grpc, get, {})
    except grpcio.RpcError as error:
        if error.code() is not grpcio.StatusCode.UNAUTHENTICATED:
            raise
    else:
        raise LoadError("gRPC answers without a token")
    try:
        http.check(server.http, http.get(), key, {})
    except LoadError as error:
        if " 401 " not in str(error):
            raise
    else:
        raise LoadError("HTTP answers without a token")


def open_security(stack: ExitStack, plan: Plan, cases: Sequence[str]) -> list[Probe]:
    """A server for each form and tree, which all cases share."""
    file, token = make_token(plan.folder)
    forms = {TOKEN: ("--security-tokens", str(file)), OPEN: ()}
    servers = start_servers(stack, plan, "security", forms, {TOKEN: token})
    get = messages.get(plan.keys, plan.value)
    probes: list[Probe] = []
    for (form, tree), server in servers.items():
        if form == TOKEN:
            check_asked(server, get, name(0))
        against = OPEN if form == TOKEN else None
        if GRPC in cases:
            calls = grpc.Load(server, get, grpc.MANY, plan)
            probes.append(Probe("security", GRPC, form, tree, calls.warm_up, calls.run, "calls/s", against=against))
        if HTTP in cases:
            gets = http.Load(server, http.get(), plan.keys, http.CONNECTIONS, plan.whole_seconds)
            probes.append(Probe("security", HTTP, form, tree, gets.warm_up, gets.run, "requests/s", against=against))
    return probes


GROUP = Group("security", {GRPC: client.PROGRAM, HTTP: wrk.PROGRAM}, open_security)
