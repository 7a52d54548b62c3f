"""The command `kvtwisted`: what it asks for, what it says, and with which status it ends."""

from __future__ import annotations

import configparser
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import pytest_twisted
from cryptography.x509 import DNSName
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.python import usage
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import Resource
from twisted.web.server import Site

from kvtwisted import __version__
from kvtwisted.cli import client as cli
from kvtwisted.config.manager import ConfigManager
from kvtwisted.config.settings import HttpSettings
from kvtwisted.sessions.certificates import CertificateFiles
from kvtwisted.tls.renewal import Certificates

from ..docs.pages import ROOT, prose, tables
from ..e2e.harness import PATIENCE, REPOSITORY, environment
from ..http.live import LiveSite
from ..support.certificates import LOCALHOST, Pair, authority

BACKUP = "monday: 7 files, 12345 bytes, begun 2026-11-22T23:06:21Z, in /srv/kv/backups/monday"


@pytest_twisted.async_yield_fixture
async def live(tmp_path: Path) -> Any:
    """A server with a disk that is only told of."""
    pool = ThreadPool(minthreads=0, maxthreads=4, name="test")
    pool.start()
    configuration = ConfigManager.load(None, {}, {}, str(tmp_path / "runtime.json"))
    site = LiveSite(reactor, pool, configuration, fast_lane=True)
    yield site
    await site.stop()
    pool.stop()


class Fixed(Resource):
    """Answers everything alike."""

    isLeaf = True

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__()
        self._status = status
        self._body = body

    def render(self, request: Any) -> bytes:
        """The same for every method and path."""
        request.setResponseCode(self._status)
        return self._body


class HangUp(Protocol):
    """Ends the connection at the first bytes."""

    def dataReceived(self, data: bytes) -> None:
        """Say nothing."""
        self.transport.loseConnection()


def parsed(*arguments: str) -> Any:
    """The command that a command line gives."""
    options = cli.Options()
    options.parseOptions(list(arguments))
    return options.command


async def run(port: int, *arguments: str) -> tuple[int, str]:
    """Status and output of a command that asks the server on `port`."""
    return await carry_out(*arguments, "--url", f"http://127.0.0.1:{port}")


async def carry_out(*arguments: str) -> tuple[int, str]:
    """Status and output of a command."""
    said: list[str] = []
    command = parsed(*arguments)
    return await cli.run(reactor, command, said.append), "\n".join(said)


@pytest_twisted.ensureDeferred
async def test_commands(live: LiveSite) -> None:
    """All of them, in words."""
    assert await run(live.port, "backups") == (0, "no backups")
    assert await run(live.port, "backup", "monday") == (0, f"backup {BACKUP}, made in 0.25 s")
    status, said = await run(live.port, "backup")
    assert (status, said.split(":")[0]) == (0, "backup 20261122T230621Z")
    status, said = await run(live.port, "backups")
    assert (status, said.splitlines()) == (0, [BACKUP, BACKUP.replace("monday", "20261122T230621Z")])
    assert await run(live.port, "orphans") == (0, "removed 2 files, 3000000 bytes")
    assert await run(live.port, "eviction") == (
        0,
        "the disk is 83.5 % full, the threshold is 80 %\n"
        "4096 of 70000 bytes have to go, policy lru:\n"
        "  expired: 1 keys, 96 bytes\n"
        "  lru: 40 keys, 4000 bytes",
    )


@pytest_twisted.ensureDeferred
async def test_json(live: LiveSite) -> None:
    """With --json the answer comes as it is."""
    await run(live.port, "backup", "monday")
    status, said = await run(live.port, "backups", "--json")
    assert status == 0
    assert [backup["name"] for backup in json.loads(said)["backups"]] == ["monday"]


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"needed": 0, "futile": False}, "nothing would be evicted"),
        ({"needed": 9, "futile": True}, "nothing would be evicted: 9 bytes have to go, but the server holds only 5"),
    ],
)
def test_eviction_that_would_not_happen(plan: dict[str, Any], said: str) -> None:
    """And why."""
    answer = {"disk_percent": 12.345, "threshold": 80, "policy": "lru", "own_bytes": 5, "victims": {}, **plan}
    first, second = parsed("eviction").told(answer).splitlines()
    assert (first, second) == ("the disk is 12.3 % full, the threshold is 80 %", said)


@pytest_twisted.ensureDeferred
async def test_refusals_of_the_server(live: LiveSite, capsys: pytest.CaptureFixture[str]) -> None:
    """One line on standard error with the server's sentence, and status 1."""
    await run(live.port, "backup", "monday")
    assert await run(live.port, "backup", "monday") == (1, "")
    assert capsys.readouterr().err == "kvtwisted: name: there is a backup monday already\n"
    assert await run(live.port, "backup", "../x") == (1, "")
    assert capsys.readouterr().err.startswith("kvtwisted: name: must be 1 to 64 of the characters")


@pytest.mark.parametrize(
    ("status", "body", "line"),
    [
        (500, b'{"success":false,"error":"it failed","code":"x","incident":"abc"}', "it failed (incident abc)"),
        (404, b'{"success":false,"error":"no such path","code":"not_found"}', "no such path"),
        (404, b"<html>", "{url} answers with status 404, but not like a kvtwisted server"),
        (200, b"[]", "{url} answers with status 200, but not like a kvtwisted server"),
        (502, b"{}", "{url} answers with status 502, but not like a kvtwisted server"),
        (302, b"{}", "{url} answers with status 302, but not like a kvtwisted server"),
        (200, b"{}", f"{{url}} answers, but not like a kvtwisted of version {__version__}"),
        (200, b'{"backups":[{}]}', f"{{url}} answers, but not like a kvtwisted of version {__version__}"),
    ],
)
@pytest_twisted.ensureDeferred
async def test_other_answers(status: int, body: bytes, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of a server that fails, and of one that is none of ours: one line, status 1."""
    listening = reactor.listenTCP(0, Site(Fixed(status, body)), interface="127.0.0.1")
    port = listening.getHost().port
    assert await run(port, "backups") == (1, "")
    shown = line.replace("{url}", f"http://127.0.0.1:{port}")
    assert capsys.readouterr().err == f"kvtwisted: {shown}\n"
    await listening.stopListening()


@pytest_twisted.ensureDeferred
async def test_no_answer(capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens; or who does hangs up, as a server does that is killed."""
    listening = reactor.listenTCP(0, Factory.forProtocol(HangUp), interface="127.0.0.1")
    port = listening.getHost().port
    assert await run(port, "backup") == (1, "")
    assert capsys.readouterr().err.startswith(f"kvtwisted: http://127.0.0.1:{port} gave no answer: ")
    await listening.stopListening()
    assert await run(port, "backup") == (1, "")
    said = capsys.readouterr().err
    assert said.startswith(f"kvtwisted: cannot reach http://127.0.0.1:{port}: ")
    assert "refused" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["nonsense"],
        ["backup", "a", "b"],
        ["backups", "x"],
        ["backup", "--nonsense"],
        ["backup", "--url"],
        ["backup", "--url", "127.0.0.1:8080"],
        ["backup", "--url", "ftp://127.0.0.1"],
        ["backup", "--url", "http://"],
        ["backup", "--url", "http://x:y"],
        ["backup", "--url", "http://[::1"],
        ["backup", "--url", "http://x/?y"],
        ["backup", "--ca", "ca.pem"],
        ["backup", "--cert", "ann.pem"],
        ["backup", "--url", "https://x", "--key", "ann-key.pem"],
    ],
)
def test_bad_command_lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One line, and status 2; nobody is asked."""
    with pytest.raises(usage.UsageError):
        parsed(*arguments)
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("kvtwisted: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ["backup", "n", "--url", "http://x:1"],
        ["backup", "--url", "http://x:1", "n"],
        ["backup", "--url=http://x:1", "n"],
    ],
)
def test_options_stand_anywhere(arguments: list[str]) -> None:
    """Before and after the name."""
    command = parsed(*arguments)
    assert (command["url"], command.name, command.document()) == ("http://x:1", "n", {"name": "n"})


def test_default_url_is_the_servers_default() -> None:
    """Without options the command finds a server that was started without options."""
    assert parsed("backups")["url"] == f"http://{HttpSettings.host}:{HttpSettings.port}"


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names every command."""
    for option in ("--help", "--version"):
        with pytest.raises(SystemExit) as ended:
            cli.main([option])
        assert not ended.value.code
    said = capsys.readouterr().out
    assert f"kvtwisted {__version__}" in said
    for command in ("backup", "backups", "eviction", "orphans"):
        assert f"    {command} " in said


def test_console_script() -> None:
    """setup.cfg names a function that there is; as a process it ends with the status that it should."""
    setup = configparser.ConfigParser()
    setup.read(REPOSITORY / "setup.cfg")
    (script,) = setup["options.entry_points"]["console_scripts"].strip().splitlines()
    name, _, target = script.partition(" = ")
    module, _, function = target.partition(":")
    assert (name, getattr(import_module(module), function)) == ("kvtwisted", cli.main)
    program = f"from {module} import {function}; {function}()"
    done = subprocess.run(
        [sys.executable, "-c", program, "backups", "--url", "http://127.0.0.1:1"],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kvtwisted: cannot reach http://127.0.0.1:1: ")
    assert len(done.stderr.splitlines()) == 1


def test_commands_and_statuses_are_documented() -> None:
    """docs/operations.md has every command, docs/backup.md every exit status."""
    commands = {name for name, _, _, _ in cli.Options.subCommands}
    documented = [row[0].strip("`").split()[:2] for row in tables(ROOT / "docs" / "operations.md", "command")]
    assert sorted(documented) == sorted(["kvtwisted", name] for name in commands)
    page = ROOT / "docs" / "backup.md"
    assert [row[0] for row in tables(page, "exit status")] == ["0", "1", "2"]
    assert f"`{cli.DEFAULT_URL}`" in prose(page)


def tls_pair(tmp_path: Path, *, names: Any = LOCALHOST) -> tuple[Pair, Pair]:
    """A server's pair and the authority that has signed it."""
    signer = authority(tmp_path)
    return Pair(tmp_path, issuer=signer, authority=False, names=names), signer


@pytest_twisted.async_yield_fixture
async def secure(tmp_path: Path) -> Any:
    """Starts servers that speak https, with a pair and perhaps an authority for clients."""
    pool = ThreadPool(minthreads=0, maxthreads=4, name="test")
    pool.start()
    sites: list[LiveSite] = []

    def start(pair: Pair, client_ca: str = "") -> int:
        files = CertificateFiles("http", pair.certificate, pair.private_key, client_ca)
        configuration = ConfigManager.load(None, {}, {}, str(tmp_path / "runtime.json"))
        certificates = Certificates(files, b"http/1.1")
        sites.append(LiveSite(reactor, pool, configuration, fast_lane=False, certificates=certificates))
        return sites[-1].port

    yield start
    for site in sites:
        await site.stop()
    pool.stop()


@pytest_twisted.ensureDeferred
async def test_https(secure: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the authority that is to be trusted; without, one line says what is missing."""
    pair, signer = tls_pair(tmp_path)
    port = secure(pair)
    for host in ("localhost", "127.0.0.1"):
        asked = ("backups", "--url", f"https://{host}:{port}")
        assert await carry_out(*asked, "--ca", signer.certificate) == (0, "no backups")
        assert await carry_out(*asked) == (1, "")
        assert capsys.readouterr().err == (
            f"kvtwisted: https://{host}:{port} gave no answer: "
            "TLS: certificate verify failed; its authority is named by --ca\n"
        )


@pytest_twisted.ensureDeferred
async def test_https_with_another_name(secure: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate that is trusted, but not this server's."""
    pair, signer = tls_pair(tmp_path, names=[DNSName("elsewhere.example")])
    url = f"https://localhost:{secure(pair)}"
    assert await carry_out("backups", "--url", url, "--ca", signer.certificate) == (1, "")
    said = capsys.readouterr().err
    assert said == f"kvtwisted: {url} gave no answer: TLS: its certificate is another server's\n"


@pytest_twisted.ensureDeferred
async def test_clients_certificates(secure: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shown where they are asked for: in one file, in two, and with a certificate in the middle."""
    pair, signer = tls_pair(tmp_path)
    url = f"https://localhost:{secure(pair, signer.certificate)}"
    asked = ("backups", "--url", url, "--ca", signer.certificate)
    middle = Pair(tmp_path, "middle", common_names=("the middle",), names=(), issuer=signer)
    ann = Pair(tmp_path, "ann", common_names=("ann",), names=(), authority=False, issuer=middle)
    Path(ann.certificate).write_bytes(ann.chain + middle.chain)
    assert await carry_out(*asked, "--cert", ann.certificate, "--key", ann.private_key) == (0, "no backups")
    both = tmp_path / "both.pem"
    both.write_bytes(ann.key_pem + ann.chain + middle.chain)
    assert await carry_out(*asked, "--cert", str(both)) == (0, "no backups")
    assert await carry_out(*asked) == (1, "")
    assert capsys.readouterr().err.startswith(f"kvtwisted: {url} gave no answer: TLS: ")


@pytest_twisted.ensureDeferred
async def test_files_for_https(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is no good is named, with its option; nobody is asked."""
    pair, other = Pair(tmp_path), Pair(tmp_path, "other")
    no_key = "has no private key of that certificate, or one with a passphrase"
    for arguments, said in (
        (("--ca", "/no/file"), "--ca: /no/file: No such file or directory"),
        (("--ca", pair.private_key), f"--ca: {pair.private_key} has no certificate in it"),
        (("--cert", pair.private_key), f"--cert: {pair.private_key} has no certificate in it"),
        (("--cert", pair.certificate), f"--cert: {pair.certificate} {no_key}"),
        (("--cert", pair.certificate, "--key", other.private_key), f"--key: {other.private_key} {no_key}"),
    ):
        assert await carry_out("backups", "--url", "https://localhost:1", *arguments) == (1, "")
        assert capsys.readouterr().err == f"kvtwisted: {said}\n"
