"""What the load programs print is read rightly, and no error passes for a result. The outputs are real ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench import others, wrk
from bench.load import LoadError, Outcome, run_program
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

OUTPUTS = Path(__file__).parent / "outputs"


def output(name: str) -> str:
    """What a program has once printed."""
    return (OUTPUTS / name).read_text("ascii")


def test_wrk_good() -> None:
    """Requests over the real duration, and latencies in microseconds; wrk's own lines say the same."""
    outcome = wrk.parse(output("wrk-good.txt"), 0.5)
    assert outcome == Outcome(29555, pytest.approx(29546.17, abs=0.01), 112, 378, 0.5)
    assert "Requests/sec:  29546.17" in output("wrk-good.txt")


@pytest.mark.parametrize(
    ("name", "counted"), [("wrk-some-missing.txt", "250 x status"), ("wrk-server-gone.txt", "5 x read, 52551 x write")]
)
def test_wrk_errors(name: str, counted: str) -> None:
    """One request in a hundred for a missing key, or a server that went away: there is no result."""
    with pytest.raises(LoadError, match=counted):
        wrk.parse(output(name), 0.5)


@pytest.mark.parametrize("kind", range(5))
def test_wrk_single_error(kind: int) -> None:
    """A single error of any kind is enough."""
    counts = ["0"] * 5
    counts[kind] = "1"
    with pytest.raises(LoadError, match="1 x"):
        wrk.parse(f"counted 100 1000000 {' '.join(counts)} 1 2\n", 0.5)


def test_wrk_believes_either_count() -> None:
    """wrk's own line about errors counts too."""
    good = output("wrk-good.txt")
    for line in ("  Non-2xx or 3xx responses: 1\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"):
        with pytest.raises(LoadError):
            wrk.parse(line + good, 0.5)


@pytest.mark.parametrize("text", ["", "unable to connect", "counted 0 1000000 0 0 0 0 0 0 0\n"])
def test_wrk_without_result(text: str) -> None:
    """Nothing printed, or nothing answered, is no result."""
    with pytest.raises(LoadError):
        wrk.parse(text, 0.5)


def test_wrk_script() -> None:
    """The script has method, path and body as Lua's strings."""
    text = wrk.script("POST", "/api/v1/set", '{"key": "KEY"}', 7, {"authorization": "Bearer kv1_a_b"})
    assert '{["authorization"] = "Bearer kv1_a_b"}' in text
    assert r'"{\"key\": \"key********\"}"' in text
    assert '"POST"' in text
    assert "math.random(7)" in text


def test_redis_benchmark() -> None:
    """Commands a second, and latencies in microseconds; anything else is no result."""
    assert others.parse(output("redis-benchmark-good.txt")) == (41666.67, 231, 407)
    for text in ("", output("redis-benchmark-good.txt").splitlines()[0], "Could not connect\n"):
        with pytest.raises(LoadError, match="did not print"):
            others.parse(text)


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 100_000])
def test_fields_are_those_of_protobuf(size: int) -> None:
    """What is made by hand for etcd."""
    assert others.field(2, b"x" * size) == kv.SetRequest(value="x" * size).SerializeToString()


def test_what_a_program_costs() -> None:
    """The share of a core that it used, and no other; a failing one is no result, with what it says."""
    printed, busy = run_program([sys.executable, "-c", "for _ in range(2_000_000): pass\nprint(1)"], 60)
    _, idle = run_program(["sleep", "0.2"], 60)
    assert printed == "1\n"
    assert 0 <= idle < busy
    with pytest.raises(LoadError, match="sleep: invalid time interval"):
        run_program(["sleep", "x"], 60)
