"""The table, the JSON, and the place of the report in a document."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.plan import Plan
from bench.report import (
    BEGIN,
    END,
    as_json,
    as_markdown,
    comparison_table,
    number,
    put_into,
    results_table,
)  # fmt: skip
from bench.rounds import Probe, Result, Sample
from bench.trees import NOW, Tree

BASE = Tree("base", NOW.folder)


def result(form: str, tree: str, figures: list[float], against: str | None = None) -> Result:
    """A measured case."""
    probe = Probe("grpc", "Get", form, tree, lambda: None, lambda: Sample(0), "calls/s", against=against)
    return Result(probe, [Sample(figure, 10, 2000, 0.95, 7) for figure in figures])


RESULTS = [
    result("native", "now", [100_000, 110_000, 120_000, 130_000, 140_000], "threaded"),
    result("native", "base", [60_000, 70_000, 80_000, 90_000, 95_000], "threaded"),
    result("threaded", "now", [4000, 5000, 6000, 5000, 4000]),
    result("threaded", "base", [4000, 5000, 6000, 5000, 4000]),
]


def cells(line: str) -> list[str]:
    """What stands in the columns of a line."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_results_table() -> None:
    """Median, spread, latencies, and the ratio to the other form round by round; columns in line."""
    lines = results_table([RESULTS[0], RESULTS[2]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    figures = ["median", "lowest to highest", "p50 us", "p99 us", "server us", "client", "ratio"]
    assert cells(lines[0]) == ["group", "case", "form", "unit", *figures]
    assert cells(lines[2]) == [
        "grpc", "Get", "native", "calls/s", "120,000", "100,000 to 140,000",
        "10.0", "2,000", "7.00", "0.95 !", "25.00 (20.00 to 35.00)",
    ]  # fmt: skip
    assert cells(lines[3])[-1] == ""


def test_comparison_table() -> None:
    """A line for each form that both trees have, with a plain verdict."""
    lines = comparison_table(RESULTS).splitlines()[2:]
    assert [cells(line)[2:4] for line in lines] == [["native", "better"], ["threaded", "within the noise"]]
    ratio = "1.50 (1.44 to 1.67)"
    times = ["10.0 / 10.0", "2,000 / 2,000", "7.00 / 7.00"]
    assert cells(lines[0])[5:] == ["80,000", "120,000", ratio, *times, "0.95 !"]
    assert comparison_table(RESULTS[:1]).splitlines()[2:] == []


def test_no_ratio_to_nothing() -> None:
    """Connections that were found to cost nothing are no measure; the line stays."""
    found = [result("native", "now", [1, 2], "threaded"), result("threaded", "now", [0, 1])]
    assert cells(results_table(found).splitlines()[2])[-1] == ""
    assert "ratio" not in as_json(found, Plan([NOW], Path()))["results"][0]


def test_json() -> None:
    """Everything is there, down to the samples."""
    plan = Plan([BASE, NOW], Path(), left_out=["this"])
    found = json.loads(json.dumps(as_json(RESULTS, plan)))
    first = found["results"][0]
    assert first["ratio"] == {"to": "threaded", "median": 25, "low": 20, "high": 35}
    assert first["compared"]["verdict"] == "better"
    assert [sample["figure"] for sample in first["samples"]] == RESULTS[0].figures
    assert "compared" not in found["results"][1]
    assert found["left_out"] == ["this"]
    assert set(found["revisions"]) == {"base", "now"}
    assert {"date", "processor", "Python"} <= found["machine"].keys()


def test_markdown() -> None:
    """What was left out, and what samples say besides, stands below the table."""
    plan = Plan([NOW], Path(), left_out=["HTTP: wrk is not installed"])
    cold = result("fast lane", "now", [1, 2, 3])
    cold.samples[:] = [Sample(1, aside={"KiB read": read}) for read in (2.0, 4.0, 3.0)]
    text = as_markdown([cold], plan, "the table")
    assert "\n\nthe table\n\n- grpc, Get, fast lane: 3.00 KiB read.\n- Left out: HTTP: wrk is not installed." in text
    assert "client was the limit" not in text
    assert "- grpc, Get, native (now): the client was the limit, at 0.95 of a core." in as_markdown(RESULTS, plan, "")
    assert "100,000 keys, values of 100 bytes, 5 rounds" in text


def test_numbers() -> None:
    """Three digits, or all."""
    assert [number(value) for value in (1234567, 123.4, 12.34, 1.234)] == ["1,234,567", "123", "12.3", "1.23"]


def test_put_into() -> None:
    """The report stands between the marks, instead of what stood there."""
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    assert put_into(page, "new") == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"
    assert put_into(put_into(page, "x"), "new") == put_into(page, "new")
    for broken in ("no marks", f"{END} {BEGIN}", BEGIN):
        with pytest.raises(ValueError, match="there are no lines"):
            put_into(broken, "new")


def test_the_page_has_the_marks() -> None:
    """docs/performance.md can take a report."""
    page = (NOW.folder / "docs" / "performance.md").read_text("utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert "new" in put_into(page, "new")
