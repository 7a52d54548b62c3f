"""Shared by the commands' option parsers."""

from __future__ import annotations

import getopt
from collections.abc import Sequence

from twisted.python import usage


class AnywhereOptions(usage.Options):
    """Options that stand before and after the arguments; Twisted by itself takes them before only."""

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """Parse a command line. Raises UsageError."""
        try:
            found, arguments = getopt.gnu_getopt(list(options or ()), self.shortOpt, self.longOpt)
        except getopt.error as error:
            raise usage.UsageError(str(error)) from None
        ahead = [f"{name}={value}" if f"{name[2:]}=" in self.longOpt else name for name, value in found]
        super().parseOptions([*ahead, "--", *arguments])
