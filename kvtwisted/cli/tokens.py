"""`kvtwisted token`: makes, lists and revokes tokens, in their file. A running server follows the file.

The exit status is as that of the other commands; see `kvtwisted.cli`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Callable, ClassVar

from twisted.python import usage

from ..sessions.audit import ANONYMOUS, SERVER
from ..sessions.entries import (
    MAX_QUOTA_BYTES,
    MAX_QUOTA_KEYS,
    MAX_RATE_BYTES,
    MAX_RATE_OPERATIONS,
    InvalidTokens,
    OwnRate,
    TokenEntry,
    make_grant,
    read_time,
    show_entry,
    write_time,
)
from ..sessions.grants import OPERATIONS, Grant
from ..sessions.peer_names import MAX_NAME, usable
from ..sessions.quotas import Quota
from ..sessions.token_file import edit, load
from ..sessions.tokens import MAX_ID_LENGTH, make, valid_id
from .options import AnywhereOptions

#: Names the file where the command line does not: it sets the same file for the server.
VARIABLE = "KV_SECURITY_TOKENS"

Write = Callable[[str], object]


class _TokenCommand(AnywhereOptions):
    """One subcommand on a token file."""

    optParameters: ClassVar[list[list[Any]]] = [["file", None, None, f"The token file; by default ${VARIABLE}."]]

    def postOptions(self) -> None:
        """There must be a file."""
        self["file"] = self["file"] or os.environ.get(VARIABLE)
        if not self["file"]:
            raise usage.UsageError(f"--file: the token file is missing; set it here or by {VARIABLE}")

    def carry_out(self, write: Write) -> None:
        """Do it; output goes to `write`. Raises InvalidTokens."""
        raise NotImplementedError


class _Create(_TokenCommand):
    """Make a token and print it, this once."""

    synopsis = "ID"
    longdesc = "Makes the file if there is none. ID names the token in lists and logs. Only its SHA-256 is kept."
    optParameters: ClassVar[list[list[Any]]] = [
        ["not-after", None, None, "When it ends: a time in UTC like 2027-01-01T00:00:00Z. By default never."],
        ["certificate", None, None, "The name in a client certificate, in place of a secret: none is made."],
        ["rate-operations", None, None, "Operations per second; 0: no limit. By default the server's."],
        ["rate-bytes", None, None, "Bytes per second; 0: no limit. By default the server's."],
        ["quota-bytes", None, None, "Bytes that may lie under the prefixes it may write; 0: no limit, the default."],
        ["quota-keys", None, None, "Keys that may lie there; 0: no limit, the default."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self.grants: list[Grant] = []

    def opt_grant(self, text: str) -> None:
        """Operations, and the prefix of the keys they are for: get,set:app/; without one all keys. May be repeated."""
        operations, _, prefix = text.partition(":")
        try:
            self.grants.append(make_grant(operations.split(","), prefix, "--grant: "))
        except InvalidTokens as error:
            raise usage.UsageError(str(error)) from None

    def parseArgs(self, token_id: str = "") -> None:
        """The id."""
        if not valid_id(token_id):
            raise usage.UsageError(f"ID: must be 1 to {MAX_ID_LENGTH} of a-z 0-9 - and not begin with -")
        if token_id in (SERVER, ANONYMOUS):
            raise usage.UsageError(f"ID: {token_id} is what the audit log calls others")
        self.id = token_id

    def postOptions(self) -> None:
        """There must be a grant; times, rates and quotas must be such."""
        super().postOptions()
        if not self.grants:
            raise usage.UsageError(f"--grant: a token without one could do nothing; there are {', '.join(OPERATIONS)}")
        try:
            self.not_after = None if self["not-after"] is None else read_time(self["not-after"])
        except InvalidTokens as error:
            raise usage.UsageError(f"--not-after: {error}") from None
        if self.not_after is not None and self.not_after <= time.time():
            raise usage.UsageError(f"--not-after: {self['not-after']} is over")
        certificate = self["certificate"]
        if certificate is not None and not usable(certificate):
            raise usage.UsageError(
                f"--certificate: must have 1 to {MAX_NAME} printable characters and no space at either end"
            )
        operations = self._number("rate-operations", MAX_RATE_OPERATIONS)
        size = self._number("rate-bytes", MAX_RATE_BYTES)
        self.rate = None if operations is None and size is None else OwnRate(operations, size)
        kept, keys = self._number("quota-bytes", MAX_QUOTA_BYTES), self._number("quota-keys", MAX_QUOTA_KEYS)
        self.quota = Quota(kept or 0, keys or 0) if kept or keys else None

    def _number(self, name: str, high: int) -> int | None:
        text = self[name]
        if text is None:
            return None
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= high):
            raise usage.UsageError(f"--{name}: must be an integer from 0 to {high}")
        return int(text)

    def carry_out(self, write: Write) -> None:
        """Print the token when it is on the disk."""
        token, digest = make(self.id)
        certificate = self["certificate"]
        if certificate is not None:
            token, digest = f"created {self.id}", b""
        entry = TokenEntry(self.id, digest, tuple(self.grants), self.not_after, self.rate, certificate, self.quota)

        def add(entries: list[TokenEntry]) -> list[TokenEntry]:
            if any(other.id == self.id for other in entries):
                raise InvalidTokens(f"there is a token {self.id} already; revoke it first, or take another id")
            return [*entries, entry]

        edit(self["file"], add, create=True)
        write(token)


class _List(_TokenCommand):
    """List the tokens, without their secrets."""

    optFlags: ClassVar[list[list[Any]]] = [["json", None, "Print them as JSON."]]

    def carry_out(self, write: Write) -> None:
        """One line each."""
        entries = load(self["file"], any_owner=os.geteuid() == 0)
        if self["json"]:
            shown = [show_entry(entry) for entry in entries]
            write(json.dumps({"tokens": shown}, ensure_ascii=False, indent=2))
            return
        now = time.time()
        rows = [("ID", "NOT AFTER", "RATE", "GRANTS"), *(_row(entry, now) for entry in entries)]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]) for row in rows]
        write("\n".join(lines) if entries else "no tokens")


class _Revoke(_TokenCommand):
    """Revoke a token: a running server refuses it from its next look at the file on."""

    synopsis = "ID"

    def parseArgs(self, token_id: str = "") -> None:
        """The id."""
        if not token_id:
            raise usage.UsageError("ID: the token's id is missing")
        self.id = token_id

    def carry_out(self, write: Write) -> None:
        """Take it out of the file."""

        def remove(entries: list[TokenEntry]) -> list[TokenEntry]:
            kept = [entry for entry in entries if entry.id != self.id]
            if len(kept) == len(entries):
                raise InvalidTokens(f"there is no token {self.id!a}")
            return kept

        edit(self["file"], remove)
        write(f"revoked {self.id}")


class TokenOptions(usage.Options):
    """The command line of `kvtwisted token`."""

    synopsis = "COMMAND [options]"
    subCommands: ClassVar[list[Any]] = [
        (name, None, command, command.__doc__)
        for name, command in (("create", _Create), ("list", _List), ("revoke", _Revoke))
    ]

    def postOptions(self) -> None:
        """There must be a command."""
        if self.subCommand is None:
            raise usage.UsageError("a command is missing; `kvtwisted token --help` lists them")

    def run(self, write: Write) -> int:
        """Carry out the command and return the exit status; output goes to `write`, failures to stderr."""
        command: _TokenCommand = self.subOptions
        try:
            command.carry_out(write)
        except InvalidTokens as error:
            print(f"kvtwisted: {error}", file=sys.stderr)
            return 1
        return 0


def _row(entry: TokenEntry, now: float) -> tuple[str, str, str, str]:
    shown = show_entry(entry)
    expires = "never" if entry.not_after is None else write_time(entry.not_after)
    if entry.not_after is not None and entry.not_after <= now:
        expires += " (expired)"
    rate = entry.rate or OwnRate()
    rates = [f"{_figure(rate.operations)} op/s", f"{_figure(rate.bytes)} B/s"]
    grants = [
        ",".join(grant["operations"]) + (f":{grant['prefix']}" if grant["prefix"] else "") for grant in shown["grants"]
    ]
    if entry.certificate is not None:
        grants.append(f"(certificate {entry.certificate})")
    if entry.quota is not None:
        kept = [f"{amount} {unit}" for amount, unit in zip(entry.quota, ("B", "keys")) if amount]
        grants.append(f"(quota {', '.join(kept) or 'unlimited'})")
    # A prefix may hold control characters, which could control the terminal.
    told = "  ".join(grants)
    printable = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in told)
    return entry.id, expires, "default" if entry.rate is None else ", ".join(rates), printable


def _figure(rate: int | None) -> str:
    return "default" if rate is None else "unlimited" if rate == 0 else str(rate)
