"""The command `kvtwisted token`: what it prints, what it keeps, and many of them at once."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from twisted.python import usage

from kvtwisted.cli import client as cli
from kvtwisted.cli import tokens as token_cli
from kvtwisted.sessions import tokens
from kvtwisted.sessions.authority import Authority
from kvtwisted.sessions.buckets import MAX_ADDRESSES
from kvtwisted.sessions.entries import MAX_GRANTS, MAX_TOKENS, OwnRate, TokenEntry, read_entries
from kvtwisted.sessions.grants import OPERATIONS, Grant
from kvtwisted.sessions.token_file import MAX_FILE_BYTES, edit, load
from tests.docs.pages import ROOT, blocks, prose, session, tables
from tests.e2e.harness import PATIENCE, environment
from tests.sessions.support import PEER, made

PAGE = ROOT / "docs" / "security.md"


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is what the command line says."""
    monkeypatch.delenv(token_cli.VARIABLE, raising=False)


@pytest.fixture
def path(tmp_path: Path) -> str:
    """Where there is no file yet."""
    return str(tmp_path / "tokens.json")


def run(*arguments: str) -> tuple[int, str]:
    """Status and output of `kvtwisted token`."""
    options = cli.Options()
    options.parseOptions(["token", *arguments])
    said: list[str] = []
    command: Any = options.command
    return command.run(said.append), "\n".join(said)


def test_a_token_is_made_listed_used_and_revoked(path: str) -> None:
    """The whole life of one."""
    status, token = run(
        "create", "app", "--file", path, "--grant", "get,set,scan:app/", "--grant=metrics",
        "--not-after", "2099-01-01T00:00:00Z", "--rate-operations", "100", "--rate-bytes", "0",
    )  # fmt: skip
    assert status == 0
    (entry,) = load(path)
    assert entry == TokenEntry(
        "app",
        tokens.digest_of(token.rpartition("_")[2].encode()),
        (Grant(frozenset({"get", "set", "scan"}), b"app/"), Grant(frozenset({"metrics"}))),
        4_070_908_800,
        OwnRate(100, 0),
    )
    authority = Authority()
    authority.replace(load(path))
    assert authority.principal([f"Bearer {token}".encode()], PEER).name == "app"
    assert run("list", "--file", path) == (
        0,
        "ID   NOT AFTER             RATE                     GRANTS\n"
        "app  2099-01-01T00:00:00Z  100 op/s, unlimited B/s  get,set,scan:app/  metrics",
    )
    assert run("revoke", "app", "--file", path) == (0, "revoked app")
    assert run("list", "--file", path) == (0, "no tokens")
    assert load(path) == []


def test_a_certificate_in_place_of_a_secret(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed that would have to be kept secret; each name may be there once."""
    create = ("--file", path, "--certificate", "web.example.com", "--grant", "get:app/")
    assert run("create", "web", *create) == (0, "created web")
    grants = (Grant(frozenset({"get"}), b"app/"),)
    assert load(path) == [TokenEntry("web", b"", grants, certificate="web.example.com")]
    assert run("list", "--file", path)[1].splitlines()[1].endswith("get:app/  (certificate web.example.com)")
    (shown,) = json.loads(run("list", "--json", "--file", path)[1])["tokens"]
    assert shown["certificate"] == "web.example.com"
    assert run("create", "other", *create) == (1, "")
    assert "two have the same certificate" in capsys.readouterr().err
    assert len(load(path)) == 1
    authority = Authority()
    authority.replace(load(path))
    found = authority.of_certificate("web.example.com")
    assert found is not None
    assert found.name == "web"
    assert run("revoke", "web", "--file", path) == (0, "revoked web")


def test_lists_never_have_secrets_or_digests(path: str) -> None:
    """Nor has the file the secret."""
    _, token = run("create", "app", "--file", path, "--grant", "get")
    secret = token.rpartition("_")[2]
    (entry,) = load(path)
    for _, said in (run("list", "--file", path), run("list", "--json", "--file", path)):
        assert "app" in said
        assert secret not in said
        assert entry.digest.hex() not in said
    assert secret not in Path(path).read_text("utf-8")


def test_lists_as_json(path: str) -> None:
    """With what was not set."""
    run("create", "app", "--file", path, "--grant", "get:ä")
    assert json.loads(run("list", "--json", "--file", path)[1]) == {
        "tokens": [{"id": "app", "grants": [{"operations": ["get"], "prefix": "ä"}], "not_after": None}]
    }


def test_lists_of_what_is_over_and_of_strange_prefixes(path: str) -> None:
    """Expired ones are marked; nothing reaches the terminal that would move its cursor."""
    strange = Grant(frozenset({"get"}), b"\x1b[2J")
    entries = [made("old", not_after=1)[1], made("odd", strange, rate=OwnRate(None, 5))[1]]
    edit(path, lambda _: entries, create=True)
    _, old, odd = run("list", "--file", path)[1].splitlines()
    assert "1970-01-01T00:00:01Z (expired)" in old
    assert odd.split() == ["odd", "never", "default", "op/s,", "5", "B/s", r"get:\x1b[2J"]


def test_refusals(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error, and status 1."""
    assert run("list", "--file", path) == (1, "")
    assert capsys.readouterr().err == (
        f"kvtwisted: token file {path}: there is no such file; `kvtwisted token create` makes it\n"
    )
    run("create", "app", "--file", path, "--grant", "get")
    before = load(path)
    assert run("create", "app", "--file", path, "--grant", "set") == (1, "")
    assert capsys.readouterr().err == "kvtwisted: there is a token app already; revoke it first, or take another id\n"
    assert run("revoke", "other", "--file", path) == (1, "")
    assert capsys.readouterr().err == "kvtwisted: there is no token 'other'\n"
    assert load(path) == before
    os.chmod(path, 0o646)
    assert run("revoke", "app", "--file", path) == (1, "")
    assert "chmod 600" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "a command is missing"),
        (["nonsense"], "Unknown command"),
        (["create"], "ID: must be 1 to 32"),
        (["create", "App", "--grant", "get"], "ID: must be 1 to 32"),
        (["create", "server", "--grant", "get"], "ID: server is what the audit log calls others"),
        (["create", "a", "b", "--grant", "get"], "Wrong number of arguments"),
        (["create", "a"], "--grant: a token without one could do nothing"),
        (["create", "a", "--grant", ""], "unknown operation ''"),
        (["create", "a", "--grant", "get,fly"], "unknown operation 'fly'"),
        (["create", "a", "--grant", "get, set"], "unknown operation ' set'"),
        (["create", "a", "--grant", "admin:x"], "prefix: must be empty"),
        (["create", "a", "--grant", "get:" + "x" * 1025], "at most 1024 bytes"),
        (["create", "a", "--grant", "get", "--not-after", "tomorrow"], "--not-after: must be a time in UTC"),
        (["create", "a", "--grant", "get", "--not-after", "2020-01-01T00:00:00Z"], "is over"),
        (["create", "a", "--grant", "get", "--rate-operations", "-1"], "--rate-operations: must be an integer"),
        (["create", "a", "--grant", "get", "--rate-operations", "²"], "--rate-operations: must be an integer"),
        (["create", "a", "--grant", "get", "--rate-bytes", "1e9"], "--rate-bytes: must be an integer"),
        (["create", "a", "--grant", "get", "--rate-bytes", "9" * 5000], "--rate-bytes: must be an integer"),
        (["create", "a", "--grant", "get", "--certificate", ""], "--certificate: must have 1 to 255 printable"),
        (["create", "a", "--grant", "get", "--certificate", "a\x1b[2J"], "--certificate: must have 1 to 255 printable"),
        (["create", "a", "--grant", "get", "--certificate", "x" * 256], "--certificate: must have 1 to 255 printable"),
        (["list", "x"], "Wrong number of arguments"),
        (["revoke"], "ID: the token's id is missing"),
    ],
)
def test_bad_command_lines(arguments: list[str], reason: str, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and status 2; no file is made."""
    line = ["token", *arguments, *(["--file", path] if arguments and arguments != ["nonsense"] else [])]
    with pytest.raises(SystemExit) as ended:
        cli.main(line)
    assert ended.value.code == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert said.startswith("kvtwisted: ")
    assert reason in said
    assert os.listdir(os.path.dirname(path)) == []


def test_the_file_from_the_environment(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that sets it for the server does for the command, unless there is the option."""
    with pytest.raises(usage.UsageError, match="--file: the token file is missing"):
        run("list")
    monkeypatch.setenv(token_cli.VARIABLE, path)
    assert run("create", "app", "--grant", "get")[0] == 0
    assert [entry.id for entry in load(path)] == ["app"]
    assert run("list", "--file", path + ".other") == (1, "")


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as its users run it."""
    return subprocess.run(
        [sys.executable, "-c", "from kvtwisted.cli import main; main()", "token", *arguments],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_commands_at_once(path: str) -> None:
    """Processes that make tokens in the same moment: each is kept, and each has printed its token and nothing else."""
    names = [f"t{number}" for number in range(6)]
    with ThreadPoolExecutor(3) as threads:
        done = list(threads.map(lambda name: process("create", name, "--file", path, "--grant", "get"), names))
    assert [(one.returncode, one.stderr) for one in done] == [(0, "")] * len(names)
    authority = Authority()
    authority.replace(load(path))
    assert authority.tokens == len(names)
    for name, one in zip(names, done):
        (token,) = one.stdout.splitlines()
        assert authority.principal([f"Bearer {token}".encode()], PEER).name == name


def test_the_session_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints what the page shows, but for the secret."""
    monkeypatch.chdir(tmp_path)
    secret = re.compile(r"(kv1_app_)[0-9A-Za-z]{43}$", re.MULTILINE)
    steps = session(PAGE)
    assert len(steps) == 5
    for step in steps:
        program, *arguments = shlex.split(step.command)
        assert (program, arguments.pop(0)) == ("kvtwisted", "token")
        status, said = run(*arguments)
        assert status == 0
        assert secret.sub(r"\1", said + "\n") == secret.sub(r"\1", step.output)


def test_the_file_on_the_page() -> None:
    """It is a good one, and its limits are the real ones."""
    (example,) = blocks(PAGE, "json")
    (entry,) = read_entries(example.encode())
    assert (entry.id, entry.rate) == ("app", OwnRate(1000, 1 << 20))
    said = " ".join(prose(PAGE).split())
    assert f"at most {MAX_TOKENS:,} tokens of {MAX_GRANTS} grants each, and {MAX_FILE_BYTES >> 20} MiB" in said
    assert f"1 to {tokens.MAX_ID_LENGTH} of `a-z 0-9 -`" in said
    assert f"{MAX_ADDRESSES:,} addresses are remembered" in said


def test_help_and_page_have_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    """docs/security.md names each, and each command and operation."""
    with pytest.raises(SystemExit):
        cli.main(["token", "create", "--help"])
    said = capsys.readouterr().out
    for option in ("--file", "--grant", "--certificate", "--not-after", "--rate-operations", "--rate-bytes",
                   "--quota-bytes", "--quota-keys"):  # fmt: skip
        assert f"{option}=" in said
        assert f"`{option}" in prose(PAGE)
    for name, _, _, _ in token_cli.TokenOptions.subCommands:
        assert f"`kvtwisted token {name}" in prose(PAGE)
    assert [row[0].strip("`") for row in tables(PAGE, "operation")] == list(OPERATIONS)
