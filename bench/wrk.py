"""HTTP load with wrk (https://github.com/wg/wrk): keep-alive connections, each with one request at a time.

wrk runs a Lua script of ours. It makes every request before the clock starts, sends them in random order, and prints
one line at the end with what wrk has counted, in plain units.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from .load import LoadError, Outcome, run_program
from .server import PATIENCE, name

PROGRAM = "wrk"
_SCRIPT = """
local requests = {{}}
function init(arguments)
  math.randomseed(os.time())
  local headers, body, mark = {{{headers}}}, {body}, "{mark}"
  if body ~= "" then headers["Content-Type"] = "application/json" else body = nil end
  local text = wrk.format({method}, {path}, headers, body)
  local first, last = string.find(text, mark, 1, true)
  local before, after = string.sub(text, 1, first - 1), string.sub(text, last + 1)
  for number = 0, {keys} - 1 do
    requests[number + 1] = before .. string.format("key%08d", number) .. after
  end
end
function request()
  return requests[math.random({keys})]
end
function done(summary, latency, _)
  local errors = summary.errors
  io.write(string.format("counted %d %d %d %d %d %d %d %d %d\\n", summary.requests, summary.duration,
    errors.connect, errors.read, errors.write, errors.timeout, errors.status,
    latency:percentile(50), latency:percentile(99)))
end
"""
_ERRORS = ("connect", "read", "write", "timeout", "status")


def script(method: str, path: str, body: str, keys: int, headers: Mapping[str, str]) -> str:
    """The Lua script that sends requests on random ones of so many keys; KEY in path or body is the key."""
    # JSON's strings are Lua's, for what is asked here: printable ASCII.
    # The mark is as long as a key, so that a body keeps its length.
    mark = name(0).replace("0", "*")
    text = {"method": method, "path": path.replace("KEY", mark), "body": body.replace("KEY", mark)}
    words = {word: json.dumps(value) for word, value in text.items()}
    lines = ", ".join(f"[{json.dumps(name)}] = {json.dumps(value)}" for name, value in headers.items())
    return _SCRIPT.format(keys=keys, mark=mark, headers=lines, **words)


def run(address: str, file: Path, connections: int, seconds: int) -> Outcome:
    """Send the requests of the script in `file`. Raises LoadError unless each had an answer below 400."""
    command = [PROGRAM, "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(file)]
    return parse(*run_program([*command, f"http://{address}"], PATIENCE + 2 * seconds))


def parse(output: str, client: float) -> Outcome:
    """What wrk and the script have printed. Raises LoadError when any request failed, or none was made."""
    line = re.search(r"^counted ([\d ]+)$", output, re.MULTILINE)
    if line is None:
        raise LoadError(f"wrk did not print what it counted:\n{output}")
    requests, duration, *errors, p50, p99 = [int(word) for word in line[1].split()]
    failed = [f"{number} x {kind}" for kind, number in zip(_ERRORS, errors) if number]
    # wrk's own lines, should it ever count what the script does not print.
    if failed or "Socket errors" in output or "Non-2xx" in output:
        raise LoadError(f"wrk counted errors ({', '.join(failed)}):\n{output}")
    if requests == 0:
        raise LoadError(f"wrk had no answer at all:\n{output}")
    return Outcome(requests, requests / duration * 1e6, p50, p99, client)
