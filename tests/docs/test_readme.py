"""The README: its examples are run as they stand there, and its commands and limits are the real ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from kvtwisted.config.settings import GrpcSettings, HttpSettings, LimitSettings
from kvtwisted.core.limits import MAX_KEY_BYTES, MAX_TTL_SECONDS, MAX_VALUE_BYTES
from kvtwisted.core.options import MIB
from kvtwisted.http.urls import DEFAULT_SCAN_LIMIT, MAX_SCAN_LIMIT
from tests.e2e.harness import PATIENCE, Server, environment

from .pages import README, ROOT, Step, blocks, session, tables

HTTP = f"{HttpSettings.host}:{HttpSettings.port}"
GRPC = f"{GrpcSettings.host}:{GrpcSettings.port}"
#: Printed after each command; nothing in the README looks like it.
MARK = "--- end of step ---"


def at(server: Server, text: str) -> str:
    """`text` with the default addresses replaced by those of `server`."""
    return text.replace(HTTP, server.http_address).replace(GRPC, server.grpc_address)


def run(script: str, folder: Path) -> str:
    """What one shell prints for `script`, with `python` being the one that runs the tests."""
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    done = subprocess.run(
        ["/bin/sh", "-c", script],
        cwd=folder,
        env=environment({"PATH": path, "PYTHONIOENCODING": "utf-8", "PYTHONUTF8": "1"}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout


def settled(text: str) -> str:
    """`text` with the two ttls as the README shows them, although a slow machine took a second from Set to Get, and
    with revisions as nobody knows them."""
    text = re.sub(r'(?<="revision":)\d{16}', "any", text)
    return re.sub(r'(?<="ttl":)3599|(?<=blue )59', lambda left: str(int(left[0]) + 1), text)


def test_examples_print_what_the_readme_shows(server: Server, tmp_path: Path) -> None:
    """All commands in one shell, in the order of the page; the Python program under the name it is to be saved as."""
    (program,) = blocks(README, "python")
    (name,) = re.findall(r"Save this as `(\S+)`", README.read_text("utf-8"))
    (tmp_path / name).write_text(at(server, program), encoding="utf-8")
    steps = session(README)
    script = "".join(f"{step.command}printf '\\n{MARK}\\n'\n" for step in steps)
    printed = run(at(server, script), tmp_path).split(f"\n{MARK}\n")[:-1]
    shown = [Step(step.command, settled(step.output).rstrip("\n")) for step in steps]
    assert [Step(step.command, settled(text).rstrip("\n")) for step, text in zip(steps, printed)] == shown


def test_examples_show_all_operations() -> None:
    """The ten operations of both interfaces, and gRPC's pipeline; not what came later."""
    routes = ["set ", "get/", "delete/", "mset ", "mget ", "mdelete ", "scan?prefix", "config ", "config |"]
    commands = "".join(step.command for step in session(README))
    assert "keys_only=true" in commands
    assert [route for route in routes if f"/api/v1/{route}" not in commands] == []
    methods = re.findall(r"rpc (\w+)\(", (ROOT / "proto" / "keyvalue.proto").read_text("utf-8"))
    # The others have pages of their own.
    del methods[methods.index("Pipeline") + 1 :]
    assert len(methods) == 11
    (program,) = blocks(README, "python")
    assert [method for method in methods if f'call["{method}"]' not in program] == []


def test_make_targets_exist() -> None:
    """Every `make` command of the README is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = set(re.findall(r"^make (\w+)", "\n".join(blocks(README, "sh")), re.MULTILINE))
    named |= set(re.findall(r"`make (\w+)", README.read_text("utf-8")))
    assert {"run", "test"} <= named <= targets


def test_limits_are_the_real_ones() -> None:
    """The table of limits has the numbers of the code, in its words for them."""
    limits = LimitSettings()
    assert {row[0]: row[1] for row in tables(README, "what")} == {
        "key": f"1 to {MAX_KEY_BYTES:,} bytes of UTF-8",
        "value": f"0 to {MAX_VALUE_BYTES:,} bytes; text is UTF-8",
        "ttl": f"whole seconds, at most {MAX_TTL_SECONDS:,} (100 years); 0 or none: never expires",
        "one batch": f"{limits.max_batch_keys:,} keys (`limits.max_batch_keys`), "
        f"{limits.max_request_bytes // MIB} MiB in all (`limits.max_request_bytes`)",
        "one answer": f"HTTP {HttpSettings.max_response_bytes // MIB} MiB (`http.max_response_bytes`), "
        f"gRPC {GrpcSettings.max_response_bytes // MIB} MiB (`grpc.max_response_bytes`); scans go on by cursor",
        "one page of a scan over HTTP": f"{DEFAULT_SCAN_LIMIT} entries unless told otherwise, "
        f"at most {MAX_SCAN_LIMIT:,}",
        "requests at once": f"{limits.max_in_flight:,} (`limits.max_in_flight`), "
        f"with {limits.max_bytes_in_flight // MIB} MiB in all (`limits.max_bytes_in_flight`)",
        "one request": f"{limits.request_timeout} seconds (`limits.request_timeout`)",
    }
