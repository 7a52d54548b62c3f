"""`kvtwisted`: the operator's command, a client of a running server's HTTP interface. Only `kvtwisted token` works on a
file: see `kvtwisted.cli.tokens`, the only module here that imports other rooms.

Exit status 0: done. 1: the server refused, failed or could not be reached, told in one line on standard error. 2: the
command line is wrong.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Callable, ClassVar, NoReturn
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificates
from OpenSSL import SSL, crypto
from service_identity import VerificationError
from treq.client import HTTPClient
from twisted.internet import ssl
from twisted.internet.defer import ensureDeferred
from twisted.internet.error import ConnectError, DNSLookupError, TimeoutError, VerifyError
from twisted.internet.task import react
from twisted.python import usage
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseFailed
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from .. import __version__
from ..reactor.process import keep_true_time
from .options import AnywhereOptions

if TYPE_CHECKING:
    from .tokens import TokenOptions

DEFAULT_URL = "http://127.0.0.1:8080"
#: Holds the token itself, if no file is named. On the command line others could see it.
TOKEN_VARIABLE = "KVTWISTED_TOKEN"  # noqa: S105 - no secret
#: Seconds to connect. For the answer there is no limit: a backup takes as long as it takes.
CONNECT_TIMEOUT = 10.0

#: A JSON object.
Document = Mapping[str, Any]


class Refusal(Exception):
    """Why the command was not carried out, in one line."""


class _Command(AnywhereOptions):
    """One subcommand: the request it sends, and how the answer is printed."""

    method: ClassVar[str] = "GET"
    path: ClassVar[str]
    optParameters: ClassVar[list[list[Any]]] = [
        ["url", None, DEFAULT_URL, "Where the server listens for HTTP."],
        ["ca", None, None, "PEM file of the authorities to trust with https; by default those of the system."],
        ["cert", None, None, "PEM file of the certificate to show the server, and the chain above it."],
        ["key", None, None, "PEM file of its private key; by default it is in the same file."],
        ["token-file", None, None, f"File of the token to send; by default ${TOKEN_VARIABLE} is the token."],
    ]
    optFlags: ClassVar[list[list[Any]]] = [["json", None, "Print the server's answer as it is."]]

    def postOptions(self) -> None:
        """Refuse a URL that cannot be one."""
        try:
            parts = urlsplit(self["url"])
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 0) >= 0
        except ValueError:
            good = False
        if not good or parts.query or parts.fragment:
            raise usage.UsageError(f"--url: must be like {DEFAULT_URL}, not {self['url']!r}")
        if self["key"] and not self["cert"]:
            raise usage.UsageError("--key: goes with --cert")
        given = [f"--{name}" for name in ("ca", "cert") if self[name]]
        if given and parts.scheme != "https":
            raise usage.UsageError(f"{given[0]}: is for https, and --url is {self['url']!r}")

    def document(self) -> Document | None:
        """What is sent, if anything."""
        return {} if self.method == "POST" else None

    def token(self) -> str | None:
        """The token to send, if there is one. Raises Refusal."""
        path = self["token-file"]
        if path is None:
            return os.environ.get(TOKEN_VARIABLE)
        try:
            token = _read_file("--token-file", path).decode("ascii").strip()
        except UnicodeDecodeError:
            token = ""
        if not token.isprintable() or not token or " " in token:
            raise Refusal(f"--token-file: {path} has no token in it, or more than one")
        return token

    def told(self, answer: Document) -> str:
        """The answer in words."""
        raise NotImplementedError


class _Backup(_Command):
    """Make a backup now."""

    synopsis = "[NAME]"
    longdesc = "Waits until the backup is whole. Without a name it gets one from the time."
    method = "POST"
    path = "/api/v1/admin/backup"

    def parseArgs(self, name: str | None = None) -> None:
        """At most the name."""
        self.name = name

    def document(self) -> Document:
        """The name, if there is one."""
        return {} if self.name is None else {"name": self.name}

    def told(self, answer: Document) -> str:
        """One line."""
        return f"backup {_line(answer)}, made in {answer['seconds']} s"


class _Backups(_Command):
    """List the server's backups."""

    path = "/api/v1/admin/backups"

    def told(self, answer: Document) -> str:
        """One line each, the oldest first."""
        return "\n".join(map(_line, answer["backups"])) or "no backups"


class _Eviction(_Command):
    """Show what an eviction would delete now."""

    path = "/api/v1/admin/eviction"

    def told(self, answer: Document) -> str:
        """How full the disk is, and what that means."""
        lines = [f"the disk is {answer['disk_percent']:.1f} % full, the threshold is {answer['threshold']} %"]
        if not answer["needed"]:
            lines.append("nothing would be evicted")
        elif answer["futile"]:
            lines.append(
                f"nothing would be evicted: {answer['needed']} bytes have to go, but the server holds only "
                f"{answer['own_bytes']}"
            )
        else:
            lines.append(f"{answer['needed']} of {answer['own_bytes']} bytes have to go, policy {answer['policy']}:")
            lines += [f"  {why}: {of['keys']} keys, {of['bytes']} bytes" for why, of in answer["victims"].items()]
        return "\n".join(lines)


class _Orphans(_Command):
    """Remove the files of large values that no key uses."""

    method = "POST"
    path = "/api/v1/admin/orphans"

    def told(self, answer: Document) -> str:
        """One line."""
        return f"removed {answer['files']} files, {answer['bytes']} bytes"


def _token() -> usage.Options:
    # Imported here, so that the other commands need no other room.
    from .tokens import TokenOptions

    return TokenOptions()


class Options(usage.Options):
    """The command line. `command` is the subcommand, once parsed."""

    synopsis = "COMMAND [options]"
    longdesc = "Asks a running kvtwisted server, which is started by `twistd kvtwisted`. `token` works on a file."
    subCommands: ClassVar[list[Any]] = [
        (name, None, command, command.__doc__)
        for name, command in (
            ("backup", _Backup), ("backups", _Backups), ("eviction", _Eviction), ("orphans", _Orphans),
        )
    ]  # fmt: skip
    subCommands.append(("token", None, _token, "Make, list and revoke tokens, in their file."))

    @property
    def command(self) -> _Command | TokenOptions:
        """What is to be done."""
        found: _Command | TokenOptions = self.subOptions
        return found

    def opt_version(self) -> None:
        """Show the version and exit."""
        print(f"kvtwisted {__version__}")
        raise SystemExit(0)

    def postOptions(self) -> None:
        """There must be a command."""
        if self.subCommand is None:
            raise usage.UsageError("a command is missing; `kvtwisted --help` lists them")


@implementer(IPolicyForHTTPS)
class Trust:
    """The authorities to trust over https, and the client's own certificate."""

    def __init__(self, ca: str | None = None, certificate: str | None = None, key: str | None = None) -> None:
        """Paths of PEM files, as the options have them. Raises Refusal, naming the option and the file."""
        self._facts: dict[str, Any] = {}
        if ca:
            authorities = map(ssl.Certificate, _certificates("--ca", ca))
            self._facts["trustRoot"] = ssl.trustRootFromCertificates(list(authorities))
        if certificate:
            first, *above = _certificates("--cert", certificate)
            option, path = ("--key", key) if key else ("--cert", certificate)
            try:
                private = crypto.PKey.from_cryptography_key(
                    load_pem_private_key(_read_file(option, path), None)  # type: ignore[arg-type]
                )
                own = ssl.PrivateCertificate.fromCertificateAndKeyPair(ssl.Certificate(first), ssl.KeyPair(private))
                self._facts["clientCertificate"] = own
                self._facts["extraCertificateOptions"] = {"extraCertChain": above}
                self.creatorForNetloc(b"localhost", 0)  # which fails when they do not fit
            except (ValueError, TypeError, SSL.Error, VerifyError):
                said = "has no private key of that certificate, or one with a passphrase"
                raise Refusal(f"{option}: {path} {said}") from None

    def creatorForNetloc(self, hostname: bytes, port: int) -> Any:
        """For one server; its certificate must have that name."""
        creator: Any = ssl.optionsForClientTLS(hostname.decode("ascii"), **self._facts)
        return creator


def _certificates(option: str, path: str) -> list[crypto.X509]:
    try:
        return [crypto.X509.from_cryptography(found) for found in load_pem_x509_certificates(_read_file(option, path))]
    except ValueError:
        raise Refusal(f"{option}: {path} has no certificate in it") from None


def _read_file(option: str, path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as error:
        raise Refusal(f"{option}: {path}: {getattr(error, 'strerror', None) or error}") from None


def _why(reason: Failure) -> str:
    """Why there was no answer."""
    error = reason.value
    if isinstance(error, SSL.Error):
        said = error.args[0][-1][2] if error.args and error.args[0] else "it ended"
        return f"TLS: {said}" + ("; its authority is named by --ca" if "verify" in said else "")
    if isinstance(error, VerificationError):
        return "TLS: its certificate is another server's"
    return str(error)


async def ask(
    reactor: Any,
    url: str,
    method: str,
    path: str,
    document: Document | None,
    trust: Trust | None = None,
    token: str | None = None,
) -> Document:
    """The server's answer. Raises Refusal when it is an error, or there is none."""
    client = HTTPClient(Agent(reactor, trust or Trust(), connectTimeout=CONNECT_TIMEOUT))
    body: dict[str, Any] = {} if document is None else {"json": document}
    if token:
        body["headers"] = {"Authorization": f"Bearer {token}"}
    try:
        response = await client.request(method, url.rstrip("/") + path, allow_redirects=False, **body)
        content = await response.content()
    except (ConnectError, DNSLookupError, TimeoutError, OSError) as error:
        raise Refusal(f"cannot reach {url}: {error}") from None
    except ResponseFailed as error:
        reasons = "; ".join(_why(reason) for reason in error.reasons if reason is not None)
        raise Refusal(f"{url} gave no answer: {reasons}") from None
    return _read(url, response.code, content)


async def run(reactor: Any, command: _Command, write: Callable[[str], object]) -> int:
    """Carry out a command and return its exit status; output goes to `write`, failures to stderr."""
    try:
        trust = Trust(command["ca"], command["cert"], command["key"])
        url, token = command["url"], command.token()
        answer = await ask(reactor, url, command.method, command.path, command.document(), trust, token)
        try:
            said = json.dumps(answer, ensure_ascii=False, indent=2) if command["json"] else command.told(answer)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise Refusal(f"{command['url']} answers, but not like a kvtwisted of version {__version__}") from None
        write(said)
    except Refusal as refusal:
        print(f"kvtwisted: {refusal}", file=sys.stderr)
        return 1
    return 0


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console script `kvtwisted`. Ends the process with the exit status."""
    options = Options()
    try:
        options.parseOptions(list(sys.argv[1:] if arguments is None else arguments))
    except usage.UsageError as error:
        print(f"kvtwisted: {error}", file=sys.stderr)
        raise SystemExit(2) from None

    command = options.command
    if not isinstance(command, _Command):
        raise SystemExit(command.run(print))

    async def carry_out(reactor: Any) -> None:
        keep_true_time(reactor)
        raise SystemExit(await run(reactor, command, print))

    react(lambda reactor: ensureDeferred(carry_out(reactor)))
    raise AssertionError("react does not return")


def _read(url: str, status: int, content: bytes) -> Document:
    try:
        answer = json.loads(content)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or (status != 200 and "error" not in answer):
        raise Refusal(f"{url} answers with status {status}, but not like a kvtwisted server")
    if status != 200:
        incident = f" (incident {answer['incident']})" if "incident" in answer else ""
        raise Refusal(f"{answer['error']}{incident}")
    return answer


def _line(backup: Document) -> str:
    return "{name}: {files} files, {bytes} bytes, begun {time}, in {path}".format(**backup)
