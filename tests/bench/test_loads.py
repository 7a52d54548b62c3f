"""What the load programs print is read rightly, and no error passes for a result. The outputs are real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import h2load, wrk
from bench.load import LoadError, Outcome
from kvtwisted.rpc.generated import keyvalue_pb2 as kv

OUTPUTS = Path(__file__).parent / "outputs"
#: A frame's prefix and the answer to the Gets in the outputs.
ANSWER = 5 + kv.GetResponse(value="x" * 100, found=True).ByteSize()


def output(name: str) -> str:
    """What a program has once printed."""
    return (OUTPUTS / name).read_text("ascii")


def test_wrk_good() -> None:
    """Requests over the real duration, and latencies in microseconds; wrk's own lines say the same."""
    outcome = wrk.parse(output("wrk-good.txt"))
    assert outcome == Outcome(29555, pytest.approx(29546.17, abs=0.01), 112, 378)
    assert "Requests/sec:  29546.17" in output("wrk-good.txt")


@pytest.mark.parametrize(
    ("name", "counted"), [("wrk-some-missing.txt", "250 x status"), ("wrk-server-gone.txt", "5 x read, 52551 x write")]
)
def test_wrk_errors(name: str, counted: str) -> None:
    """One request in a hundred for a missing key, or a server that went away: there is no result."""
    with pytest.raises(LoadError, match=counted):
        wrk.parse(output(name))


@pytest.mark.parametrize("kind", range(5))
def test_wrk_single_error(kind: int) -> None:
    """A single error of any kind is enough."""
    counts = ["0"] * 5
    counts[kind] = "1"
    with pytest.raises(LoadError, match="1 x"):
        wrk.parse(f"counted 100 1000000 {' '.join(counts)} 1 2\n")


def test_wrk_believes_either_count() -> None:
    """wrk's own line about errors counts too."""
    good = output("wrk-good.txt")
    for line in ("  Non-2xx or 3xx responses: 1\n", "  Socket errors: connect 0, read 1, write 0, timeout 0\n"):
        with pytest.raises(LoadError):
            wrk.parse(line + good)


@pytest.mark.parametrize("text", ["", "unable to connect", "counted 0 1000000 0 0 0 0 0 0 0\n"])
def test_wrk_without_result(text: str) -> None:
    """Nothing printed, or nothing answered, is no result."""
    with pytest.raises(LoadError):
        wrk.parse(text)


def test_h2load_good() -> None:
    """Calls a second, when every answer has the bytes it should have."""
    assert h2load.parse(output("h2load-good.txt"), 2000, ANSWER) == 53191.49


@pytest.mark.parametrize("name", ["h2load-unknown-method.txt", "h2load-missing-key.txt"])
def test_h2load_takes_grpc_errors_for_success(name: str) -> None:
    """h2load says `2000 succeeded` of 2,000 gRPC errors, and of answers without a value; their bytes tell."""
    assert "2000 succeeded, 0 failed, 0 errored, 0 timeout" in output(name)
    with pytest.raises(LoadError, match="2000 answers of 109 bytes are 218000 bytes"):
        h2load.parse(output(name), 2000, ANSWER)


def test_h2load_one_grpc_error() -> None:
    """One answer without its message among all is enough."""
    with pytest.raises(LoadError, match="gRPC errors"):
        h2load.parse(output("h2load-good.txt").replace("(218000) data", "(217891) data"), 2000, ANSWER)


def test_h2load_failures() -> None:
    """Calls that broke, or fewer than were asked for, are no result."""
    with pytest.raises(LoadError, match="h2load counted errors"):
        h2load.parse(output("h2load-server-gone.txt"), 10_000_000, ANSWER)
    with pytest.raises(LoadError, match="h2load counted errors"):
        h2load.parse(output("h2load-good.txt"), 2001, ANSWER)
    with pytest.raises(LoadError, match="did not print"):
        h2load.parse("", 2000, ANSWER)


def test_h2load_log() -> None:
    """Median and 99th percentile of the real log's latencies, its last column."""
    latencies = sorted([int(line.split()[2]) for line in output("h2load-log.txt").splitlines()])
    assert h2load.percentiles(output("h2load-log.txt")) == (latencies[50], latencies[99])
    assert h2load.percentiles("1\t200\t30\n2\t200\t10\n3\t200\t20\n") == (20, 30)
    with pytest.raises(LoadError):
        h2load.percentiles("")


def test_wrk_script() -> None:
    """The script has method, path and body as Lua's strings."""
    text = wrk.script("POST", "/api/v1/set", '{"key": "KEY"}', 7, {"authorization": "Bearer kv1_a_b"})
    assert '{["authorization"] = "Bearer kv1_a_b"}' in text
    assert r'"{\"key\": \"key********\"}"' in text
    assert '"POST"' in text
    assert "math.random(7)" in text
