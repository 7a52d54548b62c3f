"""Reading `http.cors_origins`: origins spelled as browsers spell them in the header Origin, or `*`.

The server compares byte for byte: there is no rule to be tricked, and an entry in any other spelling would never match.
Source: RFC 6454, section 6.2; the URL standard's serializer of hosts (https://url.spec.whatwg.org).
"""

from __future__ import annotations

import ipaddress
import json
import re

from ..core.errors import InvalidConfig

#: Every origin, in place of a list.
ANY = "*"

_ORIGIN = re.compile(r"(https?)://(\[[0-9a-f:]{2,39}\]|[a-z0-9._-]{1,253})(?::([1-9][0-9]{0,4}))?")
_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")
#: What has a last label like this is read as an IPv4 address.
_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)")
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_SHOWN_CHARACTERS = 60


def cors_origins(text: str) -> frozenset[str]:
    """The origins in a text, separated by commas and optional spaces; `{"*"}` for every origin.

    Raises InvalidConfig, naming `http.cors_origins` and the entry. An empty text has none.
    """
    if not text:
        return frozenset()
    entries = [entry.strip(" ") for entry in text.split(",")]
    for entry in entries:
        if entry == ANY and len(entries) > 1:
            raise InvalidConfig("http.cors_origins: * is every origin, and stands alone")
        if entry != ANY:
            _check(entry)
    return frozenset(entries)


def _check(entry: str) -> None:
    match = _ORIGIN.fullmatch(entry)
    if match is None or not _is_host(match[2]) or int(match[3] or 1) > 65535:
        shown = json.dumps(entry[:_SHOWN_CHARACTERS]) + ("..." if len(entry) > _SHOWN_CHARACTERS else "")
        raise InvalidConfig(
            f"http.cors_origins: {shown} is no origin as browsers send it: http or https, ://, a host in lower case "
            "(other alphabets in Punycode), a port if it is not the scheme's own, and no path, like "
            "https://app.example.com"
        )
    if match[3] == _DEFAULT_PORTS[match[1]]:
        raise InvalidConfig(
            f"http.cors_origins: {json.dumps(entry)} must be without its port: browsers leave out {match[3]} of "
            f"{match[1]}"
        )


def _is_host(host: str) -> bool:
    """Whether a browser would spell it so: names with short labels, addresses in their one shortest form."""
    try:
        if host.startswith("["):
            return host[1:-1] == _shortest(ipaddress.IPv6Address(host[1:-1]))
        if _NUMBER.fullmatch(host):
            return host == str(ipaddress.IPv4Address(host))
    except ValueError:
        return False
    return _NAME.fullmatch(host) is not None


def _shortest(address: ipaddress.IPv6Address) -> str:
    """From Python 3.13 on, str() shows an IPv4 address within in decimal, which browsers do not."""
    inner = address.ipv4_mapped
    return str(address) if inner is None else "::ffff:{:x}:{:x}".format(*divmod(int(inner), 65536))
