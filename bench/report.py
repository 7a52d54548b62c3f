"""What a run found: a Markdown table for people and documents, and JSON for programs."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .figures import Summary, ratios, summary, verdict
from .plan import Plan
from .rounds import Result
from .trees import revision

#: Between these lines of a document stands the report: see `put_into`.
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"
_PROGRAMS = {"wrk": ("wrk", "-v"), "redis": ("redis-server", "--version"), "etcd": ("etcd", "--version")}
#: A load program that uses more than this of its core is the limit of what it measures.
LIMIT = 0.9
_PACKAGES = ("rocksdict", "lbry-rocksdb", "Twisted", "grpcio")


def machine(beside: Sequence[str] = ()) -> dict[str, str]:
    """Where and with what the run was made; `beside` are the other servers."""
    found = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    for program in ("wrk", *beside):
        try:
            done = subprocess.run(_PROGRAMS[program], capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
        except FileNotFoundError:
            continue
        # As in `wrk debian/4.1.0-3+b2 [epoll] ...`.
        if match := re.search(r"\d+\.\S+", done.stdout):
            found[program] = match[0]
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def find(results: Sequence[Result], like: Result, form: str, tree: str) -> Result | None:
    """The result of the same case in another form or of another tree."""
    for result in results:
        probe = result.probe
        if (probe.group, probe.case, probe.form, probe.tree) == (like.probe.group, like.probe.case, form, tree):
            return result
    return None


def number(value: float) -> str:
    """A figure as people read it: 138,096, 57.3, 5.04."""
    return f"{value:,.0f}" if value >= 100 else f"{value:,.1f}" if value >= 10 else f"{value:,.2f}"


def interval(low: float, high: float) -> str:
    """From the lowest to the highest."""
    return f"{number(low)} to {number(high)}"


def compared(result: Result, other: Result | None) -> Summary | None:
    """The ratio of the rounds to those of another result; None without one, or when it has figures of 0 or less.

    Few idle connections can be found to cost nothing.
    """
    if other is None or min(other.figures) <= 0:
        return None
    return ratios(result.figures, other.figures)


def ratio(value: Summary | None) -> str:
    """A ratio with the interval of its rounds; empty without one."""
    return "" if value is None else f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """A Markdown table, in columns that are as wide as they need; the first `left` are text, the others figures."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return "\n".join([line(head), line(rule), *[line(row) for row in rows]])


def results_table(results: Sequence[Result]) -> str:
    """A line for each probe: what `make bench` prints."""
    rows = []
    for result in results:
        probe, figures = result.probe, summary(result.figures)
        other = find(results, result, probe.against, probe.tree) if probe.against else None
        rows.append(
            (
                probe.group,
                probe.case,
                probe.form,
                probe.unit,
                number(figures.median),
                interval(figures.low, figures.high),
                _microseconds(result, "p50"),
                _microseconds(result, "p99"),
                _microseconds(result, "server"),
                _client(result),
                ratio(compared(result, other)),
            )
        )  # fmt: skip
    head = (
        "group", "case", "form", "unit", "median", "lowest to highest",
        "p50 us", "p99 us", "server us", "client", "ratio",
    )  # fmt: skip
    return table(head, rows, 4)


def _microseconds(result: Result, name: str) -> str:
    found = _median(result, name)
    return "" if found is None else number(found)


def _median(result: Result, name: str) -> float | None:
    """Of what not every sample has."""
    found = [value for sample in result.samples if (value := getattr(sample, name)) is not None]
    return summary(found).median if found else None


def _client(result: Result) -> str:
    """How many cores the load program used, and a mark when it could not use more."""
    found = _median(result, "client")
    return "" if found is None else f"{found:.2f}{' !' if found > LIMIT else ''}"


def comparison_table(results: Sequence[Result]) -> str:
    """A line for each probe that both trees have: what `make bench-compare` prints."""
    rows = []
    for result in results:
        probe = result.probe
        base = find(results, result, probe.form, "base") if probe.tree == "now" else None
        if base is None:
            continue
        now, before = result.figures, base.figures
        times_taken = [[_microseconds(one, name) for one in (base, result)] for name in ("p50", "p99", "server")]
        rows.append(
            (
                probe.group,
                probe.case,
                probe.form,
                verdict(now, before, probe.more_is_better),
                probe.unit,
                number(summary(before).median),
                number(summary(now).median),
                ratio(compared(result, base)),
                *[f"{theirs} / {ours}" if ours else "" for theirs, ours in times_taken],
                _client(result),
            )
        )
    head = (
        "group", "case", "form", "verdict", "unit", "base", "now", "now / base",
        "p50 us: base / now", "p99 us: base / now", "server us: base / now", "client",
    )  # fmt: skip
    return table(head, rows, 5)


def asides(results: Sequence[Result]) -> list[str]:
    """A sentence for what samples say besides their figure."""
    lines = []
    for result in results:
        names = result.samples[0].aside or {}
        told = [
            f"{number(summary([(sample.aside or {})[name] for sample in result.samples]).median)} {name}"
            for name in names
        ]
        if told:
            probe = result.probe
            of_tree = "" if probe.tree == "now" else f" ({probe.tree})"
            lines.append(f"{probe.group}, {probe.case}, {probe.form}{of_tree}: {', '.join(told)}.")
    return lines


def limits(results: Sequence[Result]) -> list[str]:
    """A sentence for each load whose program was at its own limit: the server could do more than the figure says."""
    return [
        f"{probe.group}, {probe.case}, {probe.form} ({probe.tree}): the client was the limit, at {used:.2f} of a core."
        for probe, used in [(result.probe, _median(result, "client") or 0) for result in results]
        if used > LIMIT
    ]


def as_markdown(results: Sequence[Result], plan: Plan, body: str) -> str:
    """The whole report around its table."""
    facts = ", ".join(
        value if name in ("date", "processor", "memory", "system") else f"{name} {value}"
        for name, value in machine(plan.beside).items()
    )
    trees = ", ".join(f"{tree.name} is {revision(tree.folder)}" for tree in plan.trees)
    said = f"{plan.keys:,} keys, values of {plan.value_bytes} bytes, {plan.rounds} rounds; {trees}."
    parts = [f"{facts}.\n{said}", body]
    if extra := [*asides(results), *limits(results), *[f"Left out: {line}." for line in plan.left_out]]:
        parts.append("\n".join(f"- {line}" for line in extra))
    return "\n\n".join(parts)


def as_json(results: Sequence[Result], plan: Plan) -> dict[str, Any]:
    """All samples, and what was made of them."""
    lines = []
    for result in results:
        probe = result.probe
        line: dict[str, Any] = {
            "group": probe.group, "case": probe.case, "form": probe.form, "tree": probe.tree, "unit": probe.unit,
            "more_is_better": probe.more_is_better, **summary(result.figures)._asdict(),
            "samples": [sample._asdict() for sample in result.samples],
        }  # fmt: skip
        if probe.against and (times := compared(result, find(results, result, probe.against, probe.tree))):
            line["ratio"] = {"to": probe.against, **times._asdict()}
        base = find(results, result, probe.form, "base") if probe.tree == "now" else None
        if base:
            times = compared(result, base)
            line["compared"] = {
                **(times._asdict() if times else {}),
                "verdict": verdict(result.figures, base.figures, probe.more_is_better),
            }
        lines.append(line)
    return {
        "machine": machine(plan.beside),
        "revisions": {tree.name: revision(tree.folder) for tree in plan.trees},
        "keys": plan.keys, "value_bytes": plan.value_bytes, "rounds": plan.rounds, "seconds": plan.seconds,
        "idle_connections": plan.idle, "active_connections": plan.active, "cold_bytes": plan.cold_bytes,
        "results": lines,
        "left_out": plan.left_out,
    }  # fmt: skip


def put_into(document: str, report: str) -> str:
    """The document with the report in place of what stands between BEGIN and END. Raises ValueError without them."""
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there are no lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{report}\n\n{END}{after}"
