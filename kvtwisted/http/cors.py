"""CORS, as in the Fetch standard: which origins' pages browsers may let use the server.

Note [What a listed origin may do]: a browser sends a page's request in any case if it is a simple one; CORS decides
whether the page may see the answer, and whether a request is sent that is not simple: any with a body of JSON, PUT,
DELETE, or Authorization. For that the browser asks first, by a preflight. Both are answered for the origins that the
operator has listed, spelled as they are listed, and for none that looks like one of them.
Access-Control-Allow-Credentials is never sent, so that no page can use what a browser would add by itself, a
certificate above all: a page can only use the token that it was given. Without tokens no token is needed, which is why
`*` is refused there.

Every answer says that it varies with Origin, also answers to requests without one: a cache must not give a page an
answer that was made for another (Fetch, "CORS protocol and HTTP caches").

Source: https://fetch.spec.whatwg.org/#http-cors-protocol
"""

from __future__ import annotations

from collections.abc import Iterable

from twisted.web.http_headers import Headers

from .answers import Answer

#: Headers of answers: names and values.
Added = tuple[tuple[str, str], ...]

#: What every answer has as soon as there is any origin.
VARY = ("Vary", "Origin")
#: Seconds that a browser may remember a preflight. A page whose origin was taken off the list may go on for as long.
MAX_AGE = 600

#: What a page may read beside what it always may (the body, Content-Length, Content-Type).
_EXPOSED = ("Access-Control-Expose-Headers", "Allow, ETag, Retry-After, WWW-Authenticate")
_PREFLIGHT = Answer(
    204,
    b"",
    headers=(
        ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, DELETE"),
        ("Access-Control-Allow-Headers", "authorization, content-type, if-match, if-none-match, last-event-id"),
        ("Access-Control-Max-Age", str(MAX_AGE)),
    ),
)


class Cors:
    """The origins whose pages may read answers. Immutable, so for every thread."""

    def __init__(self, origins: Iterable[str] = ()) -> None:
        """Origins as browsers send them; `*` among them is every one. Without any, nothing is added to any answer."""
        self._allowed = {origin.encode("ascii"): (VARY, *_allowing(origin)) for origin in origins}
        self._any = self._allowed.get(b"*")
        #: What the answer to a request without Origin has.
        self.always: Added = (VARY,) if self._allowed else ()

    def __bool__(self) -> bool:
        """Whether there is any origin."""
        return bool(self._allowed)

    def headers(self, request: Headers) -> Added:
        """What the answer has to a request with these headers."""
        return self._granted(request) or self.always

    def preflight(self, method: bytes, request: Headers) -> Answer | None:
        """What to answer to a preflight of a listed origin, besides `headers`; None to any other request.

        It is the same for every path, and whatever method and headers the page means to use; the browser compares.
        """
        if method != b"OPTIONS" or not self._granted(request) or not _only(request, b"access-control-request-method"):
            return None
        return _PREFLIGHT

    def _granted(self, request: Headers) -> Added:
        if not self._allowed:
            return ()
        origin = _only(request, b"origin")
        return () if origin is None else self._any or self._allowed.get(origin, ())


def _only(request: Headers, name: bytes) -> bytes | None:
    """The value of a header that occurs once; if it occurs twice it counts as absent."""
    values = request.getRawHeaders(name, ())
    return values[0] if len(values) == 1 else None


def _allowing(origin: str) -> Added:
    return ("Access-Control-Allow-Origin", origin), _EXPOSED
