"""The name in a client's certificate, which the token file's entries refer to.

The first subjectAltName of type URI or DNS is the name; without one, the subject's common name (CN), if it has just
one. A name is refused, and no other one of the same certificate is taken in its place, when it is empty, has more than
255 characters, begins or ends with a space, or holds anything that cannot be printed: NUL, line ends, and marks that
turn the direction of writing are how names are made to look like others (RFC 6125, section 7; RFC 9525, section 6.3).
Whoever accepts a certificate from an authority accepts every name that the authority writes into it.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

#: Characters of a name at most.
MAX_NAME = 255


class Shown(NamedTuple):
    """What a connection shows of its client."""

    #: The name; None: no certificate, or no name in it that may be used.
    name: str | None = None
    #: When the certificate ends, in seconds since 1970. TLS looks only at the handshake, and connections live long.
    until: float = math.inf


def shown_by(certificate: Certificate) -> Shown:
    """What a verified certificate shows. Never raises. Any thread."""
    try:
        name = _name(certificate)
        until = certificate.not_valid_after_utc.timestamp()
    except Exception:
        # One that cannot be read has no name, and one without an end is not accepted. cryptography has no common class
        # for these errors.
        return Shown()
    return Shown(name if isinstance(name, str) and usable(name) else None, until)


def usable(name: str) -> bool:
    """Whether a client may have this name."""
    return 0 < len(name) <= MAX_NAME and name.isprintable() and name == name.strip()


@lru_cache(maxsize=1024)
def shown_by_pem(pem: bytes) -> Shown:
    """`shown_by` a certificate in PEM, remembered: grpcio gives it with every call."""
    from cryptography.x509 import load_pem_x509_certificate

    try:
        certificate = load_pem_x509_certificate(pem)
    except Exception:  # see shown_by
        return Shown()
    return shown_by(certificate)


def _name(certificate: Certificate) -> object:
    from cryptography import x509

    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        names = None
    for name in names or ():
        if isinstance(name, (x509.UniformResourceIdentifier, x509.DNSName)):
            return name.value
    common_names = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    return common_names[0].value if len(common_names) == 1 else None
