"""Tokens: `kv1_<id>_<secret>`, how they are made, read and recognised.

The id is public and names the token in lists and logs. The secret has 256 random bits; only its SHA-256 is kept. A slow
hash, as for passwords, would add nothing: nobody guesses 256 bits.

Pure functions; any thread.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from typing import NamedTuple

#: What every token begins with; the number is the form's version.
PREFIX = "kv1"
MAX_ID_LENGTH = 32
#: Digits of a secret: 62 ** 43 is just over 2 ** 256.
SECRET_LENGTH = 43
#: Bytes of an `Authorization` header that may hold a token: scheme, spaces, token, and some room.
MAX_HEADER_BYTES = 128

_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_ID_FORM = "[a-z0-9][a-z0-9-]{0,31}"
_ID = re.compile(_ID_FORM)
# RFC 9110 section 11.1: schemes have no case; section 11.4: one or more spaces.
_HEADER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +kv1_(%b)_([0-9A-Za-z]{43})" % _ID_FORM.encode())


class Token(NamedTuple):
    """What a token says: who it claims to be, and the SHA-256 (32 bytes) of what proves it."""

    id: str
    digest: bytes


def valid_id(text: str) -> bool:
    """Whether this may be a token's id: 1 to MAX_ID_LENGTH of a-z, 0-9 and -, of which - is not the first."""
    return _ID.fullmatch(text) is not None


def make(token_id: str) -> tuple[str, bytes]:
    """A new token for a valid id, and the digest that is to be kept. The token itself cannot be had again."""
    secret = "".join([secrets.choice(_DIGITS) for _ in range(SECRET_LENGTH)])
    return f"{PREFIX}_{token_id}_{secret}", digest_of(secret.encode())


def digest_of(secret: bytes) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret).digest()


def read(authorization: Sequence[bytes]) -> Token | None:
    """The token in the `Authorization` headers of a request (their values); None unless it is one, well formed.

    Two headers are no token, even if they are the same: whoever stands between might have looked at the other one.

    Source: RFC 6750 section 2.1.
    """
    if len(authorization) != 1 or len(authorization[0]) > MAX_HEADER_BYTES:
        return None
    found = _HEADER.fullmatch(authorization[0])
    if found is None:
        return None
    token_id, secret = found.groups()
    return Token(token_id.decode("ascii"), digest_of(secret))
