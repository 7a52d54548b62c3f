"""The one way in: `python -m bench`, or `make bench` and `make bench-compare BASE=<revision>`."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from . import client, wrk
from .cases import BESIDE, GROUPS
from .cases.beside import OTHERS
from .compare import NoSuchRevision, base_tree
from .load import LoadError
from .plan import Group, Plan
from .report import as_json, as_markdown, comparison_table, put_into, results_table
from .rounds import Result, run_rounds, say
from .trees import NOW, NotInTree, Tree


def make_parser() -> argparse.ArgumentParser:
    """The arguments."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    usual = Plan((), Path())
    parser.add_argument(
        "--only", action="append", default=[], metavar="TEXT",
        help='measure the cases whose group and title ("grpc Get, 4 x 16") contain this; more than once: any of these',
    )  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the groups and titles of all cases, and end")
    parser.add_argument("--base", metavar="REVISION", help="compare with this revision of git")
    parser.add_argument(
        "--beside", type=_others, default=[], metavar="NAMES",
        help=f"measure these beside ours where they are installed ({','.join(OTHERS)}); without --only nothing else",
    )  # fmt: skip
    parser.add_argument(
        "--tree", type=Path, metavar="FOLDER", help="measure the code of this folder, not the present one"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples there")
    parser.add_argument("--into", type=Path, metavar="FILE", help="put the report between this document's marks")
    parser.add_argument("--engine", default=usual.engine, choices=("auto", "rocksdict", "lbry"))
    parser.add_argument("--keys", type=_positive, default=usual.keys)
    parser.add_argument("--value-bytes", type=_positive, default=usual.value_bytes)
    parser.add_argument("--rounds", type=_positive, default=usual.rounds)
    parser.add_argument("--seconds", type=_seconds, default=usual.seconds, help="of load in one turn; wrk rounds them")
    parser.add_argument("--idle", type=_positive, default=usual.idle, help="idle connections")
    parser.add_argument("--active", type=_positive, default=usual.active, help="active connections")
    parser.add_argument(
        "--cold-mib", type=_positive, default=usual.cold_bytes >> 20, help="MiB of values that are cold"
    )
    return parser


def _others(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in OTHERS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(OTHERS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not 1 or more")
    return number


def _seconds(text: str) -> float:
    seconds = float(text)
    # nan is not more than 0 either.
    if not 0 < seconds <= 600:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 600")
    return seconds


def chosen_cases(group: Group, only: Sequence[str]) -> list[str]:
    """The cases of a group whose group and title contain any of these texts; all of them without any text."""
    return [
        case for case in group.cases if not only or any(text.lower() in f"{group.name} {case}".lower() for text in only)
    ]


def measurable(plan: Plan, group: Group, cases: Sequence[str]) -> list[str]:
    """Those of the cases whose program is installed; the others are left out with a line."""
    found = []
    for case in cases:
        if lacking := missing(group.cases[case]):
            plan.leave_out(f"{group.name} {case}: {lacking}")
        else:
            found.append(case)
    return found


def missing(program: str | None) -> str:
    """What is not installed of what a case needs, and where it comes from; empty when all is there."""
    if program == wrk.PROGRAM and not shutil.which(program):
        return f"{program} is not installed (apt-get install wrk)"
    if program == client.PROGRAM and (needed := client.missing()):
        return f"{needed} is not installed (apt-get install {client.PACKAGES[needed]})"
    return ""


def groups(beside: Sequence[str], only: Sequence[str]) -> Sequence[Group]:
    """Those that may be measured: others beside ours when they are asked for, and without `only` nothing but them."""
    if not beside:
        return GROUPS
    return (*GROUPS, BESIDE) if only else (BESIDE,)


def measure(plan: Plan, only: Sequence[str]) -> list[Result]:
    """Every chosen group in turn, each with servers of its own. Raises LoadError when anything fails under load."""
    results: list[Result] = []
    for group in groups(plan.beside, only):
        cases = measurable(plan, group, chosen_cases(group, only))
        if not cases:
            continue
        with ExitStack() as stack:
            say(f"{group.name}: starting")
            started = time.monotonic()
            probes = group.open(stack, plan, cases)
            if probes:
                results += run_rounds(probes, plan.rounds)
        say(f"{group.name}: {time.monotonic() - started:.0f} s")
    return results


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = make_parser()
    chosen = parser.parse_args(arguments)
    if chosen.list:
        print("\n".join(f"{group.name} {case}" for group in (*GROUPS, BESIDE) for case in group.cases))
        return
    if chosen.beside and chosen.base:
        parser.error("--beside compares with other servers, --base with another revision: one at a time")
    if not any(chosen_cases(group, chosen.only) for group in groups(chosen.beside, chosen.only)):
        parser.error(f"no case contains {' or '.join(map(repr, chosen.only))}; --list names them")
    if chosen.into:
        try:
            put_into(chosen.into.read_text("utf-8"), "")
        except (OSError, ValueError) as error:
            parser.error(f"--into {chosen.into}: {error}")
    # So that servers and folders go with us.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="kvtwisted-bench-"))
        stack.callback(shutil.rmtree, folder)
        try:
            now = Tree("now", chosen.tree.resolve()) if chosen.tree else NOW
            trees = [stack.enter_context(base_tree(chosen.base, folder)), now] if chosen.base else [now]
            plan = Plan(
                trees, folder, chosen.engine, chosen.keys, chosen.value_bytes, chosen.rounds, chosen.seconds,
                chosen.idle, chosen.active, chosen.cold_mib << 20, chosen.beside, [],
            )  # fmt: skip
            results = measure(plan, chosen.only)
        except (LoadError, NoSuchRevision, NotInTree) as error:
            sys.exit(f"bench: {error}")
        report = as_markdown(results, plan, comparison_table(results) if chosen.base else results_table(results))
        print(report)
        if chosen.json:
            chosen.json.write_text(json.dumps(as_json(results, plan), indent=1) + "\n", encoding="utf-8")
        if chosen.into:
            chosen.into.write_text(put_into(chosen.into.read_text("utf-8"), report), encoding="utf-8")


if __name__ == "__main__":
    main()
