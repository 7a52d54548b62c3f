"""Both lanes give the same: status, headers and body, whatever comes in and however it is cut."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.web.resource import Resource

from kvtwisted.commands.conditions import etag_of

from ..support.properties import repeatable
from .support import Wire, World, request_bytes

#: Says that these tests need not run once for each lane.
COMPARES_LANES = True
BODY = b'{"key":"k","value":"v"}'


def post(body: bytes, route: str = "set", **headers: str) -> bytes:
    """A POST that says how long its body is."""
    return request_bytes("POST", f"/api/v1/{route}", body, **headers)


def get(key: str, method: str = "GET") -> bytes:
    """A GET, or a DELETE."""
    return request_bytes(method, f"/api/v1/{method.lower()}/{key}")


def scan(query: str) -> bytes:
    """A scan with this query."""
    return request_bytes("GET", f"/api/v1/scan?{query}")


def raw(method: str, key: str = "k", value: bytes | None = None, **headers: str) -> bytes:
    """A request for a value as it is."""
    return request_bytes(method, f"/api/v1/raw/{key}", value, **headers)


def head(line: bytes, *fields: bytes) -> bytes:
    """A request without a body."""
    return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def posted(*fields: bytes, body: bytes = BODY) -> bytes:
    """A set with exactly these headers."""
    return head(b"POST /api/v1/set HTTP/1.1", *fields) + body


SET, GET, DELETE = post(BODY), get("k"), get("k", "DELETE")
PLAIN = {
    "set": SET,
    "get": SET + GET,
    "delete": SET + DELETE + GET,
    "mset and mget": post(b'{"key_values":{"a":"1","b":"2"}}', "mset") + post(b'{"keys":["b","x","a"]}', "mget"),
    "scan": SET
    + scan("prefix=")
    + scan("limit=1")
    + scan("prefix=k&keys_only=true&cursor=k")
    + scan("limit=5&prefix=x"),
    "scan in pages": post(b'{"key_values":{"a/1":"1","a/2":"2","b":"3"}}', "mset")
    + scan("prefix=a/&limit=1&cursor=a/1"),
    "scan of text": post('{"key":"ä b","value":"🙂\\n"}'.encode()) + scan("prefix=%C3%A4+b") + scan("prefix=%c3%a4%20"),
    "bad scans": b"".join(
        scan(query)
        for query in (
            "limit=0",
            "limit=10001",
            "limit=01",
            "limit=x",
            "limit",
            "x=1",
            "prefix=a&prefix=a",
            "keys_only=1",
            "&&",
            "prefix=%",
            "prefix=%zz",
            "cursor=%ff",
            "%70refix=a",
            "prefix=a=b",
            "=",
            "prefix=" + "k" * 1025,
        )
    ),
    "ttl": post(b'{"key":"k","value":"v","ttl":100}') + GET,
    "ttl first": post(b'{"ttl":100,"key":"k","value":"v"}') + GET,
    "value first": post(b' {"value" : "v" ,\r\n"key":\t"k" } ') + GET,
    "missing": get("nobody"),
    "text": post('{"key":"ä/€","value":"🙂 \x7f"}'.encode()) + get("%C3%A4/%e2%82%ac"),
    "escapes": post(rb'{"key":"a\nb","value":"\"\\\/\u0001\t\ud83d\ude42"}') + get("a%0Ab"),
    "name in escapes": post(rb'{"\u006bey":"k","value":"v"}') + GET,
    "empty value": post(b'{"key":"k","value":""}') + GET,
    "slashes": post(b'{"key":"/a//b/","value":"v"}') + get("/a//b/") + get("%2Fa%2F/b%2f"),
    "dots": post(b'{"key":"../a","value":"v"}') + get("../a") + get(".") + get("a/../b") + get("%2e%2e/a"),
    "marks": post(b'{"key":"!$&\'()*+,-.:;=@_~%","value":"v"}') + get("!$&'()*+,-.:;=@_~%25"),
    "long key": get("k" * 1024) + get("k" * 1025) + get("%41" * 1025) + get("k" * 1025, "DELETE"),
    "bad percent": get("%") + get("%4") + get("%zz") + get("a%C3") + get("%ff", "DELETE") + get("%ed%a0%80"),
    "large": post(b'{"key":"k","value":"%b"}' % (b"x" * 50_000)) + GET,
    "raw": raw("PUT", "k?ttl=9", b"\xff\0") + raw("GET") + raw("GET", "x") + GET + raw("DELETE") + raw("GET"),
    "raw without a body": head(b"PUT /api/v1/raw/k HTTP/1.1", b"Host: a") + raw("GET"),
    "raw of any type": raw("PUT", "k", b"v", content_type="text/html") + raw("GET"),
    "raw with bad queries": raw("PUT", "k?ttl=" + "9" * 11, b"v") + raw("PUT", "%zz?ttl=1", b"v"),
    "raw keys": raw("PUT", "%zz", b"v") + raw("PUT", "a//%C3%A4", b"v") + raw("GET", "a//%c3%a4"),
    "raw and preconditions": raw("PUT", "k", b"v", if_none_match="*") * 2
    + raw("GET", "k", if_none_match="*")
    + raw("GET", "k", if_match='"x"', if_none_match='"x"')
    + raw("GET", "k", if_match="W/x")
    + raw("DELETE", "k", if_match='"x"')
    + raw("PUT", "k?ttl=9", b"w", If_Match=f'"{etag_of(b"v")}"', authorization="x")
    + request_bytes("DELETE", "/api/v1/delete/k", if_match="*"),
    "bytes as text": raw("PUT", "k", b"\xff") + GET + post(b'{"keys":["k"]}', "mget") + scan("prefix="),
    "numbers": post(b'{"key":"n","delta":5,"ttl":9}', "increment")
    + get("n")
    + post(b'{"key":"n","delta":1.5}', "increment")
    + post(b'{"key":"n","ttl":0}', "touch")
    + get("n"),
    "transactions": post(b'{"mutations":[{"set":{"key":"k","value":"v"}}]}', "transact")
    + post(b'{"checks":[{"key":"k","condition":{"absent":true}}]}', "transact")
    + post(b'{"mutations":[{"increment":{"key":"k","delta":1}}]}', "transact"),
    "conditions": post(b'{"key":"k","value":"v","condition":{"absent":true}}') * 2,
    "charset": post(BODY, content_type='application/json; charset="UTF-8"'),
    "no type": posted(b"Host: a", b"Content-Length: %d" % len(BODY)),
    "other type": post(BODY, content_type="text/plain"),
    "empty type": posted(b"Host: a", b"Content-Type:", b"Content-Length: %d" % len(BODY)),
    "no body": post(b""),
    "length 0": head(b"DELETE /api/v1/delete/k HTTP/1.1", b"host:a", b"content-length:  0 "),
    "keep-alive": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"Connection: Keep-Alive"),
    "many headers": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", *[b"X-%d: y" % n for n in range(50)]),
}
#: Bodies that are refused, or nearly.
BODIES = {
    "not JSON": b"k=v", "an array": b'["key","value"]', "null": b"null", "cut": b'{"key":"k","value":"v"',
    "more": b'{"key":"k","value":"v"}x', "two": BODY + BODY, "comma": b'{"key":"k","value":"v",}',
    "no colon": b'{"key""k","value":"v"}', "no comma": b'{"key":"k" "value":"v"}', "mark": b"\xef\xbb\xbf" + BODY,
    "duplicate": b'{"key":"k","key":"x","value":"v"}', "duplicate key": b'{"key":"k","key":"v"}',
    "duplicate ttl": b'{"key":"k","value":"v","ttl":1,"ttl":2}', "unknown": b'{"key":"k","value":"v","x":"y"}',
    "missing": b'{"key":"k"}', "missing key": b'{"value":"v"}', "wrong name": b'{"Key":"k","value":"v"}',
    "number": b'{"key":"k","value":1}', "nothing": b'{"key":null,"value":"v"}', "deep": b"[" * 40 + b"]" * 40,
    "NaN": b'{"key":"k","value":"v","ttl":NaN}', "float": b'{"key":"k","value":"v","ttl":5.0}',
    "exponent": b'{"key":"k","value":"v","ttl":1e2}', "text": b'{"key":"k","value":"v","ttl":"5"}',
    "negative": b'{"key":"k","value":"v","ttl":-1}', "zero": b'{"key":"k","value":"v","ttl":0}',
    "zeros": b'{"key":"k","value":"v","ttl":01}', "minus zero": b'{"key":"k","value":"v","ttl":-0}',
    "too long a ttl": b'{"key":"k","value":"v","ttl":3155760001}',
    "endless": b'{"key":"k","value":"v","ttl":%b}' % (b"9" * 200),
    "true": b'{"key":"k","value":"v","ttl":true}', "lone": rb'{"key":"k","value":"\ud800"}',
    "lone in UTF-8": b'{"key":"k","value":"\xed\xa0\x80"}', "invalid": b'{"key":"k\xff","value":"v"}',
    "overlong": b'{"key":"k","value":"\xc0\x80"}', "control": b'{"key":"k","value":"a\nb"}',
    "NUL": b'{"key":"\0","value":"v"}',
    "odd space": b'{"key":\x0b"k","value":"v"}', "no-break space": b'\xc2\xa0{"key":"k","value":"v"}',
    "empty key": b'{"key":"","value":"v"}', "long key": b'{"key":"%b","value":"v"}' % (b"k" * 1025),
    "quotes": b'{"key":"k","value":"v""}', "ttl inside": b'{"key":"k","ttl":5,"value":"v"}',
    "ttl text behind": b'{"key":"k","value":"v","ttl":5}"', "ttl twice": b'{"key":"k","value":"v","ttl":5,"ttl":"6"}',
}  # fmt: skip
LENGTH = b"Content-Length: %d" % len(BODY)
TYPE = b"Content-Type: application/json"
CHUNKED = b"17\r\n" + BODY + b"\r\n0\r\n\r\n"
#: Requests that are not plain, or not even requests. A GET hides behind each.
ODD = {
    "CL.TE": posted(b"Host: a", TYPE, b"Content-Length: 6", b"Transfer-Encoding: chunked", body=b"0\r\n\r\nG"),
    "TE.CL": posted(b"Host: a", TYPE, b"Transfer-Encoding: chunked", LENGTH, body=CHUNKED),
    "chunked": posted(b"Host: a", TYPE, b"Transfer-Encoding: chunked", body=CHUNKED),
    "TE identity": posted(b"Host: a", TYPE, LENGTH, b"Transfer-Encoding: identity"),
    "TE odd": posted(b"Host: a", TYPE, LENGTH, b"Transfer-Encoding: xchunked"),
    "TE space": posted(b"Host: a", TYPE, LENGTH, b"Transfer-Encoding : chunked"),
    "TE tab": posted(b"Host: a", TYPE, LENGTH, b"Transfer-Encoding:\tchunked"),
    "TE vertical tab": posted(b"Host: a", TYPE, LENGTH, b"Transfer-Encoding:\x0bchunked"),
    "TE folded": posted(b"Host: a", TYPE, LENGTH, b"X: y", b" Transfer-Encoding: chunked"),
    "TE behind bare LF": posted(b"Host: a", TYPE, LENGTH, b"X: y\nTransfer-Encoding: chunked"),
    "TE behind bare CR": posted(b"Host: a", TYPE, LENGTH, b"X: y\rTransfer-Encoding: chunked"),
    "two lengths": posted(b"Host: a", TYPE, LENGTH, LENGTH),
    "two different lengths": posted(b"Host: a", TYPE, LENGTH, b"Content-Length: 5"),
    "length list": posted(b"Host: a", TYPE, LENGTH + b", 23"),
    "length plus": posted(b"Host: a", TYPE, b"Content-Length: +23"),
    "length zeros": posted(b"Host: a", TYPE, b"Content-Length: 0023"),
    "length hex": posted(b"Host: a", TYPE, b"Content-Length: 0x17"),
    "length space": posted(b"Host: a", TYPE, b"Content-Length : 23"),
    "length folded": posted(b"Host: a", TYPE, b"Content-Length:", b" 23"),
    "length empty": posted(b"Host: a", TYPE, b"Content-Length:"),
    "length underscore": posted(b"Host: a", TYPE, b"Content-Length: 2_3"),
    "no length": posted(b"Host: a", TYPE, body=b""),
    "too large": posted(b"Host: a", TYPE, b"Content-Length: 9999999"),
    "GET with a body": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"Content-Length: 3") + b"abc",
    "bare LF": b"GET /api/v1/get/k HTTP/1.1\nHost: a\n\n",
    "bare LF in headers": b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
    "bare LF at the end": b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR": b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
    "obs-fold": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"X: y", b"\tz"),
    "folded first": head(b"GET /api/v1/get/k HTTP/1.1", b" Host: a"),
    "NUL": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"X: \0"),
    "NUL in the name": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"X\0: y"),
    "over 127": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"X: \xff"),
    "no colon": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"X"),
    "no name": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b": x"),
    "space before the colon": head(b"GET /api/v1/get/k HTTP/1.1", b"Host : a"),
    "two Hosts": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"host: b"),
    "no Host": head(b"GET /api/v1/get/k HTTP/1.1"),
    "empty Host": head(b"GET /api/v1/get/k HTTP/1.1", b"Host:"),
    "odd Host": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a b/c"),
    "absolute-form": head(b"GET http://a/api/v1/get/k HTTP/1.1", b"Host: a"),
    "authority-form": head(b"CONNECT a:80 HTTP/1.1", b"Host: a"),
    "asterisk-form": head(b"OPTIONS * HTTP/1.1", b"Host: a"),
    "HTTP/1.0": head(b"GET /api/v1/get/k HTTP/1.0", b"Host: a"),
    "HTTP/1.2": head(b"GET /api/v1/get/k HTTP/1.2", b"Host: a"),
    "lower case": head(b"get /api/v1/get/k HTTP/1.1", b"Host: a"),
    "two spaces": head(b"GET  /api/v1/get/k HTTP/1.1", b"Host: a"),
    "tab": head(b"GET\t/api/v1/get/k HTTP/1.1", b"Host: a"),
    "space behind": head(b"GET /api/v1/get/k HTTP/1.1 ", b"Host: a"),
    "space in the key": head(b"GET /api/v1/get/a b HTTP/1.1", b"Host: a"),
    "empty line before": b"\r\n" + GET,
    "two empty lines before": b"\r\n\r\n" + GET,
    "empty line behind a set": SET + b"\r\n" + GET,
    "bytes behind a set": SET + b"x" + GET,
    "close": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"Connection: close"),
    "close among others": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"Connection: keep-alive, close"),
    "upgrade": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"Connection: Upgrade", b"Upgrade: h2c"),
    "Expect": posted(b"Host: a", TYPE, LENGTH, b"Expect: 100-continue"),
    "two types": posted(b"Host: a", TYPE, b"Content-Type: text/plain", LENGTH),
    "HEAD": head(b"HEAD /api/v1/get/k HTTP/1.1", b"Host: a"),
    "wrong method": post(BODY, "get/k") + head(b"GET /api/v1/set HTTP/1.1", b"Host: a"),
    "empty key": head(b"GET /api/v1/get/ HTTP/1.1", b"Host: a"),
    "no key": head(b"GET /api/v1/get HTTP/1.1", b"Host: a"),
    "query": head(b"GET /api/v1/get/k?a=b HTTP/1.1", b"Host: a"),
    "empty query": head(b"GET /api/v1/get/k? HTTP/1.1", b"Host: a"),
    "fragment": head(b"GET /api/v1/get/k#x HTTP/1.1", b"Host: a"),
    "brackets": head(b'GET /api/v1/get/[k]{"}\\^`| HTTP/1.1', b"Host: a"),
    "slashes": head(b"GET //api/v1/get/k HTTP/1.1", b"Host: a"),
    "encoded route": head(b"GET /api%2Fv1/get/k HTTP/1.1", b"Host: a"),
    "query of set": head(b"POST /api/v1/set?x HTTP/1.1", b"Host: a", TYPE, LENGTH) + BODY,
    "long head": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", b"X: " + b"y" * 9000),
    "too long a head": head(b"GET /api/v1/get/k HTTP/1.1", b"Host: a", *[b"X: " + b"y" * 9000] * 2),
    "large body": post(b'{"key":"k","value":"%b"}' % (b"x" * 100_000)),
    "scan": head(b"GET /api/v1/scan HTTP/1.1", b"Host: a"),
    "scan, empty query": scan(""),
    "scan, another mark": scan("prefix=a?b"),
    "scan, odd characters": scan('prefix=["a"]'),
    "scan with a body": head(b"GET /api/v1/scan?limit=1 HTTP/1.1", b"Host: a", b"Content-Length: 3") + b"abc",
    "scan below": head(b"GET /api/v1/scan/?limit=1 HTTP/1.1", b"Host: a"),
    "scan by HEAD": head(b"HEAD /api/v1/scan?limit=1 HTTP/1.1", b"Host: a"),
    "scan by POST": post(b"{}", "scan?limit=1"),
    "raw with a query": raw("GET", "k?ttl=5") + raw("PUT", "k?x=1", b"v") + raw("PUT", "k?ttl=-5", b"v"),
    "raw without a key": raw("PUT", "", b"v"),
    "raw with a body": raw("GET", "k", b"body") + raw("DELETE", "k", b"body"),
    "raw part": raw("PUT", "k", b"v", content_range="bytes 0-0/1"),
    "two tags": raw("PUT", "k", b"v", if_match='"x"', If_Match="*") + raw("GET", "k", if_match='"x"', If_Match="*"),
    "preconditions elsewhere": request_bytes("POST", "/api/v1/set", BODY, if_match="*")
    + request_bytes("GET", "/api/v1/get/k", if_match="*")
    + request_bytes("GET", "/api/v1/scan?limit=1", if_none_match="*"),
    "config": post(b'{"eviction":{"enabled":false}}', "config"),
    "nowhere": head(b"GET /nowhere HTTP/1.1", b"Host: a"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}


class Outcome:
    """What came of it: all that was sent (but dates, revisions and incidents), the connection, the data, the counts."""

    def __init__(self, world: World, wire: Wire) -> None:
        sent = re.sub(rb"\r\nDate: [^\r]*GMT\r\n", b"\r\nDate: -\r\n", wire.transport.value())
        sent = re.sub(rb'"revision":[1-9][0-9]{15}', b'"revision":-', sent)
        self.sent = re.sub(rb'"incident":"[0-9a-f]{16}"', b'"incident":"-"', sent)
        self.rest = (
            wire.open, wire.transport.half_closed, wire.transport.aborted, world.stored(),
            tuple(world.recorder.operations), world.admission.in_flight,
        )  # fmt: skip


def send(world: World, pieces: list[bytes]) -> Wire:
    """A new connection on which these bytes come in."""
    wire = world.wire()
    for piece in pieces:
        if wire.open:
            wire.send(piece)
    return wire


def outcome(fast: bool, pieces: list[bytes], slow: bool) -> Outcome:
    """What comes of a connection on which these bytes come in."""
    world = World(fast_lane=fast, max_body_bytes=1_000_000)
    world.engine.slow = slow
    return Outcome(world, send(world, pieces))


def same(pieces: list[bytes], slow: bool = False) -> bytes:
    """What both lanes send, which must be the same, as must be what they do."""
    fast, klein = outcome(True, pieces, slow), outcome(False, pieces, slow)
    assert fast.sent == klein.sent
    assert fast.rest == klein.rest
    return fast.sent


def cases(corpus: dict[str, bytes]) -> pytest.MarkDecorator:
    """A test for each entry."""
    return pytest.mark.parametrize("stream", list(corpus.values()), ids=list(corpus))


@pytest.mark.parametrize("slow", [False, True])
@cases(PLAIN)
def test_plain_requests(stream: bytes, slow: bool) -> None:
    """Answered alike, by memory and by the pool; the fast lane answers them without twisted.web."""
    sent = same([stream + GET], slow=slow)
    world = World(fast_lane=True)
    world.site.resource = Resource()  # whose answer to all is 404 in HTML
    wire = world.wire()
    wire.send(stream + GET)
    assert b"text/html" not in wire.transport.value()
    assert len(wire.replies()) == sent.count(b"HTTP/1.1 ")


@cases(BODIES)
def test_bodies(stream: bytes) -> None:
    """Accepted or refused alike, in the same words."""
    same([SET + post(stream) + get("k")])


@pytest.mark.parametrize("route", ["mset", "mget"])
@cases(BODIES)
def test_bodies_of_batches(stream: bytes, route: str) -> None:
    """The same for those whose handlers are shared."""
    same([post(stream, route)])


@cases(ODD)
def test_odd_requests(stream: bytes) -> None:
    """Answered as twisted.web alone answers them, and so is what follows."""
    same([stream + GET + SET])
    same([SET + GET + stream + GET + SET])
    same([stream, GET, SET])


@pytest.mark.parametrize("places", [20, pytest.param(200, marks=pytest.mark.long)])
@cases({**ODD, **PLAIN})
def test_cut_at_every_byte(stream: bytes, places: int) -> None:
    """However the network cuts it: into single bytes, and in two at many places."""
    whole = GET + stream + GET
    if len(whole) > 1200:
        whole = whole[:600] + whole[-600:]
    same([whole[at : at + 1] for at in range(len(whole))])
    worlds = [World(fast_lane=fast, max_body_bytes=1_000_000) for fast in (True, False)]
    for at in range(1, len(whole), 1 + len(whole) // places):
        fast, klein = (Outcome(world, send(world, [whole[:at], whole[at:]])) for world in worlds)
        assert fast.sent == klein.sent
        assert fast.rest == klein.rest


@repeatable
@given(
    st.lists(st.sampled_from([*PLAIN.values(), *ODD.values()]), min_size=1, max_size=6),
    st.lists(st.integers(0, 100_000)),
    st.booleans(),
)
def test_any_mix(streams: list[bytes], cuts: list[int], slow: bool) -> None:
    """Pipelines in which the lanes alternate are answered in order."""
    whole = b"".join(streams)
    places = sorted({0, len(whole), *(cut % len(whole) for cut in cuts)})
    same([whole[start:end] for start, end in zip(places, places[1:])], slow=slow)
