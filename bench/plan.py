"""What a run is asked for, and what a group of cases is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Callable, NamedTuple

from .rounds import Probe, say
from .server import Server
from .trees import NotInTree, Tree


class Plan(NamedTuple):
    """One run: what is measured, on what, and how long."""

    #: `now` alone, or `now` and `base`.
    trees: Sequence[Tree]
    #: For servers and databases; removed at the end.
    folder: Path
    #: As `storage.engine`.
    engine: str = "auto"
    keys: int = 100_000
    value_bytes: int = 100
    rounds: int = 5
    #: How long a load lasts in one round; wrk takes whole seconds, and at least one.
    seconds: float = 1.0
    #: Idle connections whose memory is measured, and those that are active at once.
    idle: int = 1000
    active: int = 1000
    #: Bytes of values in the cold cases; the caches have 8 MiB each there.
    cold_bytes: int = 128 << 20
    #: Other servers that are measured beside ours, where they are installed: redis, etcd.
    beside: Sequence[str] = ()
    #: What was not measured, and why; the report prints it.
    left_out: list[str] = []  # noqa: RUF012 - each plan is given its own

    def leave_out(self, line: str) -> None:
        """Say now and in the report that something is not measured."""
        if line not in self.left_out:
            self.left_out.append(line)
            say(f"Left out: {line}")

    @property
    def value(self) -> str:
        """The value at every key, but for the cold cases."""
        return "x" * self.value_bytes

    @property
    def whole_seconds(self) -> int:
        """`seconds` for wrk."""
        return max(1, round(self.seconds))


class Group(NamedTuple):
    """Cases that are measured together, in the same rounds."""

    name: str
    #: The cases, each with the program that it needs, or none.
    cases: Mapping[str, str | None]
    #: Makes what the chosen cases need, entered into the stack, and their probes.
    open: Callable[[ExitStack, Plan, Sequence[str]], list[Probe]]


def each_tree(plan: Plan, what: str, make: Callable[[Tree], object]) -> None:
    """Call `make` with every tree. When `base` is too old for it that is left out; the present tree must do."""
    for tree in plan.trees:
        try:
            make(tree)
        except NotInTree as reason:
            if tree.name != "base":
                raise
            plan.leave_out(f"{what} of the base: {reason}")


def start_servers(
    stack: ExitStack,
    plan: Plan,
    group: str,
    forms: Mapping[str, Sequence[str]],
    tokens: Mapping[str, str] | None = None,
) -> dict[tuple[str, str], Server]:
    """A filled server for each form (its options are given, and its token if it needs one) and tree, by their names."""
    servers: dict[tuple[str, str], Server] = {}

    def add(form: str, options: Sequence[str], tree: Tree) -> None:
        server = start_server(stack, plan, tree, f"{group}-{form}", options, (tokens or {}).get(form, ""))
        server.fill(plan.keys, lambda _: plan.value)
        servers[form, tree.name] = server

    for form, options in forms.items():
        each_tree(plan, f"{group}, {form}", partial(add, form, options))
    return servers


def start_server(
    stack: ExitStack, plan: Plan, tree: Tree, name: str, options: Sequence[str], token: str = ""
) -> Server:
    """An empty server that ends with the stack. Raises NotInTree when it does not know an option."""
    folder = plan.folder / f"{name.replace(' ', '-')}-{tree.name}"
    return stack.enter_context(Server(tree, folder, "--storage-engine", plan.engine, *options, token=token))
