"""Requests that two readers of one stream might read in two ways, and requests that are hardly any: a corpus.

Source: RFC 9112, sections 2.2, 3, 5, 6, 7 and 11.2; "HTTP Desync Attacks" and "HTTP/1.1 must die" by James Kettle
(PortSwigger); the cases of https://github.com/narfindustries/http-garden.
"""

from __future__ import annotations

BODY = b'{"key":"k","value":"v"}'
#: Answered by the fast lane.
GET = b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\n\r\n"
_POST = b"POST /api/v1/set HTTP/1.1\r\n"
_TYPE = b"Content-Type: application/json\r\n"
_LENGTH = b"Content-Length: 23\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNKS = b"17\r\n" + BODY + b"\r\n0\r\n\r\n"


def get(*fields: bytes, line: bytes = b"GET /api/v1/get/k HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    """A GET with a Host and these headers, each without its line's end."""
    return bare(b"Host: a", *fields, line=line, end=end)


def bare(*fields: bytes, line: bytes = b"GET /api/v1/get/k HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    """A GET with these headers and no others."""
    return line + end + b"".join(field + end for field in fields) + end


def post(*fields: bytes, body: bytes = BODY) -> bytes:
    """A set with a Host, a Content-Type and these headers, each without its line's end."""
    return _POST + b"Host: a\r\n" + _TYPE + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def chunked(body: bytes, *fields: bytes) -> bytes:
    """A set with a chunked body, which is sent as it is given."""
    return post(b"Transfer-Encoding: chunked", *fields, body=body)


SET = post(b"Content-Length: 23")
#: What twisted.web has to answer between those of the fast lane: by its body, its method, its version, its route.
SLOW = {
    "chunked": chunked(_CHUNKS),
    "HEAD": get(line=b"HEAD /api/v1/get/k HTTP/1.1"),
    "scan": get(line=b"GET /api/v1/scan HTTP/1.1"),
    "query": get(line=b"GET /api/v1/get/k?x HTTP/1.1"),
    "length 1": get(b"Content-Length: 1") + b"x",
}

_HIDDEN = b"DELETE /api/v1/delete/k HTTP/1.1\r\nHost: a\r\n\r\n"

FRAMING = {
    "CL.TE": post(b"Content-Length: 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n" + _HIDDEN),
    "CL.TE, whole": post(b"Content-Length: 33", b"Transfer-Encoding: chunked", body=_CHUNKS),
    "TE.CL": post(b"Transfer-Encoding: chunked", b"Content-Length: 4", body=_CHUNKS),
    "TE.TE": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=_CHUNKS),
    "TE.TE identity": post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=_CHUNKS),
    "TE.TE unknown": post(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked", body=_CHUNKS),
    "TE list": post(b"Transfer-Encoding: gzip, chunked", body=_CHUNKS),
    "TE list with identity": post(b"Transfer-Encoding: identity, chunked", body=_CHUNKS),
    "TE empty": post(b"Transfer-Encoding:", b"Content-Length: 23"),
    "TE comma": post(b"Transfer-Encoding: chunked,", body=_CHUNKS),
    "TE upper case": post(b"TRANSFER-ENCODING: CHUNKED", body=_CHUNKS),
    "TE quoted": post(b'Transfer-Encoding: "chunked"', b"Content-Length: 23"),
    "TE parameter": post(b"Transfer-Encoding: chunked;x=y", b"Content-Length: 23"),
    "TE space before colon": post(b"Transfer-Encoding : chunked", b"Content-Length: 23"),
    "TE tab before colon": post(b"Transfer-Encoding\t: chunked", b"Content-Length: 23"),
    "TE vertical tab": post(b"Transfer-Encoding: \x0bchunked", b"Content-Length: 23"),
    "TE NUL": post(b"Transfer-Encoding: chunked\0", b"Content-Length: 23"),
    "TE over 127": post(b"Transfer-Encoding: chunked\xa0", b"Content-Length: 23"),
    "TE underscore": post(b"Transfer_Encoding: chunked", b"Content-Length: 23"),
    "TE folded": post(b"Transfer-Encoding:", b" chunked", b"Content-Length: 23"),
    "TE behind a fold": post(b"X: y", b"\tTransfer-Encoding: chunked", b"Content-Length: 23"),
    "TE behind bare LF": post(b"X: y\nTransfer-Encoding: chunked", b"Content-Length: 23"),
    "TE behind bare CR": post(b"X: y\rTransfer-Encoding: chunked", b"Content-Length: 23"),
    "TE behind LF CR": post(b"X: y\n\rTransfer-Encoding: chunked", b"Content-Length: 23"),
    "TE with bare LF": post(b"Transfer-Encoding\n: chunked", b"Content-Length: 23"),
    "TE for a GET": get(b"Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "CL.CL": post(b"Content-Length: 23", b"Content-Length: 23"),
    "CL.CL different": post(b"Content-Length: 23", b"Content-Length: 0"),
    "CL.CL different case": post(b"Content-Length: 23", b"content-length: 1"),
    "CL list": post(b"Content-Length: 23, 23"),
    "CL plus": post(b"Content-Length: +23"),
    "CL minus": post(b"Content-Length: -23"),
    "CL minus 0": get(b"Content-Length: -0"),
    "CL zeros": post(b"Content-Length: 00023"),
    "CL hexadecimal": post(b"Content-Length: 0x17"),
    "CL octal": post(b"Content-Length: 0o27"),
    "CL underscore": post(b"Content-Length: 2_3"),
    "CL fraction": post(b"Content-Length: 23.0"),
    "CL exponent": post(b"Content-Length: 2e1"),
    "CL space inside": post(b"Content-Length: 2 3"),
    "CL spaces around": post(b"Content-Length: \t 23 \t "),
    "CL empty": post(b"Content-Length:"),
    "CL other digits": post("Content-Length: ٢٣".encode()),
    "CL superscript in Latin-1": post(b"Content-Length: 2\xb3"),
    "CL vertical tab": post(b"Content-Length: 23\x0b"),
    "CL space before colon": post(b"Content-Length : 23"),
    "CL folded": post(b"Content-Length:", b" 23"),
    "CL folded on": post(b"Content-Length: 2", b" 3"),
    "CL overflow": post(b"Content-Length: 18446744073709551639"),
    "CL of many digits": post(b"Content-Length: " + b"9" * 100),
    "CL too short": post(b"Content-Length: 22"),
    "CL too long": post(b"Content-Length: 24"),
    "CL for a GET": get(b"Content-Length: %d" % len(_HIDDEN)) + _HIDDEN,
    "CL 0 for a GET": get(b"Content-Length: 0"),
    "CL 0 for a set": post(b"Content-Length: 0", body=b""),
    "no CL": post(body=b""),
    "CL underscore in the name": post(b"Content_Length: 1", b"Content-Length: 23"),
}  # fmt: skip

CHUNKS = {
    "good": chunked(_CHUNKS),
    "in pieces": chunked(b"5\r\n" + BODY[:5] + b"\r\n12\r\n" + BODY[5:] + b"\r\n0\r\n\r\n"),
    "extension": chunked(b"17;a=b\r\n" + BODY + b"\r\n0;c\r\n\r\n"),
    "quoted extension": chunked(b'17;a="b;\\"c"\r\n' + BODY + b"\r\n0\r\n\r\n"),
    "extension with bare LF": chunked(b"17;a\nb\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "extension with bare CR": chunked(b"17;a\rb\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "extension over 127": chunked(b"17;\xff\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "space before extension": chunked(b"17 ;a\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "long extension": chunked(b"17;" + b"x" * 2000 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "trailer": chunked(b"17\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n"),
    "trailers": chunked(b"17\r\n" + BODY + b"\r\n0\r\nContent-Length: 5\r\nHost: b\r\n\r\n"),
    "announced trailer": chunked(b"17\r\n" + BODY + b"\r\n0\r\nX: y\r\n\r\n", b"Trailer: X", b"TE: trailers"),
    "trailer without colon": chunked(b"17\r\n" + BODY + b"\r\n0\r\nx\r\n\r\n"),
    "long trailer": chunked(b"17\r\n" + BODY + b"\r\n0\r\nX: " + b"y" * 3000 + b"\r\n\r\n"),
    "upper case": chunked(b"1A\r\n" + BODY + b"   \r\n0\r\n\r\n"),
    "leading zeros": chunked(b"00000017\r\n" + BODY + b"\r\n000\r\n\r\n"),
    "no size": chunked(b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "0x": chunked(b"0x17\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "plus": chunked(b"+17\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "minus": chunked(b"-17\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "underscore": chunked(b"1_7\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "not hexadecimal": chunked(b"1g\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "space before": chunked(b" 17\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "space behind": chunked(b"17 \r\n" + BODY + b"\r\n0\r\n\r\n"),
    "tab behind": chunked(b"17\t\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "too short": chunked(b"16\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "too long": chunked(b"18\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "32 bits": chunked(b"100000017\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "64 bits": chunked(b"10000000000000017\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "sign bit": chunked(b"ffffffffffffffff\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "many digits": chunked(b"f" * 100 + b"\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "bare LF": chunked(b"17\n" + BODY + b"\n0\n\n"),
    "bare LF behind the size": chunked(b"17\n" + BODY + b"\r\n0\r\n\r\n"),
    "bare CR behind the size": chunked(b"17\r" + BODY + b"\r\n0\r\n\r\n"),
    "bare LF behind the chunk": chunked(b"17\r\n" + BODY + b"\n0\r\n\r\n"),
    "two more bytes behind the chunk": chunked(b"17\r\n" + BODY + b"xx0\r\n\r\n"),
    "bare LF at the end": chunked(b"17\r\n" + BODY + b"\r\n0\r\n\n"),
    "NUL in the size": chunked(b"1\0007\r\n" + BODY + b"\r\n0\r\n\r\n"),
    "request in the trailer": chunked(b"17\r\n" + BODY + b"\r\n0\r\n" + _HIDDEN),
    "no last chunk": chunked(b"17\r\n" + BODY + b"\r\n" + _HIDDEN),
    "nothing": chunked(b"0\r\n\r\n"),
}

LINES = {
    "bare LF": get(end=b"\n"),
    "bare CR": get(end=b"\r"),
    "LF CR": get(end=b"\n\r"),
    "CR CR LF": get(end=b"\r\r\n"),
    "bare LF behind the line": b"GET /api/v1/get/k HTTP/1.1\nHost: a\r\n\r\n",
    "bare LF in the headers": get(b"X: y\nZ: z"),
    "bare LF at the end": b"GET /api/v1/get/k HTTP/1.1\r\nHost: a\r\n\n",
    "bare CR in a value": get(b"X: y\rZ: z"),
    "bare CR in the line": b"GET /api/v1/get/k HTTP/1.1\rX\r\nHost: a\r\n\r\n",
    "bare CR in the target": get(line=b"GET /api/v1/get/\rk HTTP/1.1"),
    "request behind bare LFs": get(b"X: y\n\n" + _HIDDEN[:-4]),
    "request behind bare CRs": get(b"X: y\r\r" + _HIDDEN[:-4]),
    "empty line before": b"\r\n" + GET,
    "two empty lines before": b"\r\n\r\n" + GET,
    "three empty lines before": b"\r\n\r\n\r\n" + GET,
    "bare LF before": b"\n" + GET,
    "bare CR before": b"\r" + GET,
    "space before": b" " + GET,
    "line of spaces before": b"  \r\n" + GET,
    "NUL before": b"\0" + GET,
    "mark before": b"\xef\xbb\xbf" + GET,
    "empty line behind a set": SET + b"\r\n" + GET,
    "two empty lines behind a set": SET + b"\r\n\r\n" + GET,
    "bytes behind a set": SET + b"xx" + GET,
    "two spaces": get(line=b"GET  /api/v1/get/k HTTP/1.1"),
    "two spaces behind": get(line=b"GET /api/v1/get/k  HTTP/1.1"),
    "space at the end": get(line=b"GET /api/v1/get/k HTTP/1.1 "),
    "tab": get(line=b"GET\t/api/v1/get/k HTTP/1.1"),
    "tab behind": get(line=b"GET /api/v1/get/k\tHTTP/1.1"),
    "vertical tab": get(line=b"GET\x0b/api/v1/get/k HTTP/1.1"),
    "no version": get(line=b"GET /api/v1/get/k"),
    "HTTP/0.9": b"GET /api/v1/get/k\r\n",
    "HTTP/1.0": get(line=b"GET /api/v1/get/k HTTP/1.0"),
    "HTTP/1.0, kept": get(b"Connection: keep-alive", line=b"GET /api/v1/get/k HTTP/1.0"),
    "HTTP/1.0 without Host": bare(line=b"GET /api/v1/get/k HTTP/1.0"),
    "HTTP/1.2": get(line=b"GET /api/v1/get/k HTTP/1.2"),
    "HTTP/2.0": get(line=b"GET /api/v1/get/k HTTP/2.0"),
    "HTTP/1": get(line=b"GET /api/v1/get/k HTTP/1"),
    "HTTP/1.10": get(line=b"GET /api/v1/get/k HTTP/1.10"),
    "HTTP/01.1": get(line=b"GET /api/v1/get/k HTTP/01.1"),
    "http/1.1": get(line=b"GET /api/v1/get/k http/1.1"),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": b"\x16\x03\x01\x00\xf8\x01\x00\x00\xf4\x03\x03\r\n\r\n",
    "lower case": get(line=b"get /api/v1/get/k HTTP/1.1"),
    "other method": get(line=b"GETS /api/v1/get/k HTTP/1.1"),
    "method of odd characters": get(line=b"G=T /api/v1/get/k HTTP/1.1"),
    "no method": get(line=b" /api/v1/get/k HTTP/1.1"),
    "HEAD": get(line=b"HEAD /api/v1/get/k HTTP/1.1"),
    "OPTIONS": get(line=b"OPTIONS /api/v1/get/k HTTP/1.1"),
    "TRACE": get(line=b"TRACE /api/v1/get/k HTTP/1.1"),
    "wrong method": get(line=b"POST /api/v1/get/k HTTP/1.1") + get(line=b"GET /api/v1/delete/k HTTP/1.1"),
    "GET of set": get(b"Content-Length: 23", line=b"GET /api/v1/set HTTP/1.1") + BODY,
    "absolute-form": get(line=b"GET http://a/api/v1/get/k HTTP/1.1"),
    "absolute-form of another host": get(line=b"GET http://b/api/v1/get/k HTTP/1.1"),
    "absolute-form without a path": get(line=b"GET http://a HTTP/1.1"),
    "absolute-form in upper case": get(line=b"GET HTTP://a/api/v1/get/k HTTP/1.1"),
    "authority-form": get(line=b"CONNECT a:80 HTTP/1.1"),
    "authority-form of GET": get(line=b"GET a:80 HTTP/1.1"),
    "asterisk-form": get(line=b"OPTIONS * HTTP/1.1"),
    "asterisk-form of GET": get(line=b"GET * HTTP/1.1"),
    "no slash": get(line=b"GET api/v1/get/k HTTP/1.1"),
    "two slashes": get(line=b"GET //api/v1/get/k HTTP/1.1"),
    "slashes within": get(line=b"GET /api//v1/get/k HTTP/1.1"),
    "backslash": get(line=b"GET \\api\\v1\\get\\k HTTP/1.1"),
    "dots": get(line=b"GET /api/v1/x/../get/k HTTP/1.1") + get(line=b"GET /api/v1/get/../delete/k HTTP/1.1"),
    "encoded dots": get(line=b"GET /api/v1/get/%2e%2e/k HTTP/1.1"),
    "encoded route": get(line=b"GET /api/v1/%67et/k HTTP/1.1"),
    "matrix": get(line=b"GET /api/v1/get;x/k HTTP/1.1"),
    "query": get(line=b"GET /api/v1/get/k?a HTTP/1.1"),
    "empty query": get(line=b"GET /api/v1/get/k? HTTP/1.1"),
    "fragment": get(line=b"GET /api/v1/get/k#a HTTP/1.1"),
    "no key": get(line=b"GET /api/v1/get/ HTTP/1.1"),
    "NUL in the key": get(line=b"GET /api/v1/get/k\0 HTTP/1.1"),
    "encoded NUL": get(line=b"GET /api/v1/get/k%00 HTTP/1.1"),
    "encoded CR LF": get(line=b"GET /api/v1/get/k%0d%0aX:%20y HTTP/1.1"),
    "plus": get(line=b"GET /api/v1/get/a+b HTTP/1.1"),
    "bad percent": get(line=b"GET /api/v1/get/k% HTTP/1.1") + get(line=b"DELETE /api/v1/delete/%g0 HTTP/1.1"),
    "encoded lone surrogate": get(line=b"GET /api/v1/get/%ed%a0%80 HTTP/1.1"),
    "overlong": get(line=b"GET /api/v1/get/%c0%80 HTTP/1.1"),
    "over 127": get(line=b"GET /api/v1/get/\xc3\xa4 HTTP/1.1"),
    "128": get(line=b"GET /api/v1/get/\x80 HTTP/1.1"),
    "DEL": get(line=b"GET /api/v1/get/\x7f HTTP/1.1"),
    "quote": get(line=b'GET /api/v1/get/" HTTP/1.1'),
    "long line": get(line=b"GET /api/v1/get/" + b"k" * 9000 + b" HTTP/1.1"),
    "too long a line": get(line=b"GET /api/v1/get/" + b"k" * 17000 + b" HTTP/1.1"),
}  # fmt: skip

FIELDS = {
    "no Host": bare(),
    "no Host, but others": bare(b"X: y"),
    "two Hosts": bare(b"Host: a", b"Host: b"),
    "the same Host twice": bare(b"Host: a", b"host: a"),
    "empty Host": bare(b"Host:"),
    "Host of spaces": bare(b"Host: \t "),
    "Host with a space": bare(b"Host: a b"),
    "Host list": bare(b"Host: a, b"),
    "Host with a path": bare(b"Host: a/b"),
    "Host with a user": bare(b"Host: a@b"),
    "Host with a port": bare(b"Host: a:80"),
    "Host with no port": bare(b"Host: a:"),
    "Host with a bad port": bare(b"Host: a:b"),
    "Host with two ports": bare(b"Host: a:1:2"),
    "Host in brackets": bare(b"Host: [::1]:80"),
    "Host in half a bracket": bare(b"Host: [::1"),
    "Host over 127": bare(b"Host: \xe4"),
    "Host folded": bare(b"Host: a", b" b"),
    "Host with space before colon": bare(b"Host : a"),
    "Host behind a space": bare(b" Host: a"),
    "Host later": bare(b"X: y", b"Y: z", b"Host: a"),
    "obs-fold": get(b"X: y", b" z"),
    "obs-fold by tab": get(b"X: y", b"\tz"),
    "obs-fold of nothing": get(b"X: y", b" "),
    "obs-fold first": bare(b" X: y", b"Host: a"),
    "space before colon": get(b"X : y"),
    "tab before colon": get(b"X\t: y"),
    "space in the name": get(b"X Y: z"),
    "no name": get(b": y"),
    "no colon": get(b"X"),
    "only colons": get(b":::"),
    "NUL in the name": get(b"X\0: y"),
    "NUL in the value": get(b"X: y\0z"),
    "NUL at the end": get(b"X: y\0"),
    "control characters": get(b"X: \x01\x02\x1b\x7f"),
    "backspace": get(b"X: y\x08"),
    "form feed": get(b"X: y\x0c"),
    "over 127 in the value": get(b"X: \xe4\xff"),
    "over 127 in the name": get(b"\xe4: x"),
    "brackets in the name": get(b"X[]: y"),
    "odd but allowed name": get(b"!#$%&'*+-.^_`|~: y"),
    "empty value": get(b"X:"),
    "tab in the value": get(b"X: a\tb"),
    "spaces around the value": get(b"X: \t a  b \t "),
    "only spaces": get(b"X:" + b" " * 200),
    "spaces, then NUL": get(b"X:" + b" " * 200 + b"\0"),
    "100 headers": get(*[b"a:b"] * 99),
    "101 headers": get(*[b"a:b"] * 100),
    "500 headers": get(*[b"a:b"] * 499),
    "501 headers": get(*[b"a:b"] * 500),
    "1500 headers": get(*[b"a:"] * 1499),
    "head of 8191 bytes": get(b"X: " + b"y" * (8191 - len(get(b"X: ")))),
    "head of 8192 bytes": get(b"X: " + b"y" * (8192 - len(get(b"X: ")))),
    "head of 8193 bytes": get(b"X: " + b"y" * (8193 - len(get(b"X: ")))),
    "head of 16384 bytes": get(b"X: " + b"y" * 8000, b"Y: " + b"y" * (8381 - len(get()))),
    "head of 17000 bytes": get(b"X: " + b"y" * 8500, b"Y: " + b"y" * 8500),
    "line of 17000 bytes": get(b"X: " + b"y" * 17000),
    "Expect": post(b"Content-Length: 23", b"Expect: 100-continue"),
    "Expect in upper case": post(b"Content-Length: 23", b"EXPECT: 100-CONTINUE"),
    "Expect of something else": post(b"Content-Length: 23", b"Expect: x"),
    "Expect twice": post(b"Content-Length: 23", b"Expect: 100-continue", b"Expect: 100-continue"),
    "Expect of HTTP/1.0": _POST.replace(b"1.1", b"1.0") + _TYPE + _LENGTH + b"Expect: 100-continue\r\n\r\n" + BODY,
    "Expect of a GET": get(b"Expect: 100-continue"),
    "Expect with chunks": chunked(_CHUNKS, b"Expect: 100-continue"),
    "Expect of too much": post(b"Content-Length: 99999999", b"Expect: 100-continue"),
    "upgrade to h2c": get(b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "upgrade to WebSocket": get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13"),
    "upgrade without Connection": get(b"Upgrade: h2c"),
    "close": get(b"Connection: close"),
    "close in upper case": get(b"CONNECTION: CLOSE"),
    "close in a list": get(b"Connection: keep-alive, close"),
    "close in a list without space": get(b"Connection: x,close"),
    "close twice": get(b"Connection: keep-alive", b"Connection: close"),
    "keep-alive": get(b"Connection: Keep-Alive", b"Keep-Alive: timeout=5"),
    "Connection names Host": get(b"Connection: Host"),
    "Connection names Content-Length": post(b"Content-Length: 23", b"Connection: Content-Length"),
    "empty Connection": get(b"Connection:"),
    "two Content-Types": post(b"Content-Length: 23", b"Content-Type: text/plain"),
    "cookie": get(b"Cookie: a=b; c", b"Cookie: ;;=;"),
    "override": get(b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /api/v1/delete/k"),
    "range": get(b"Range: bytes=0-1", b"If-None-Match: *", b"If-Modified-Since: Thu, 01 Jan 2037 00:00:00 GMT"),
}  # fmt: skip


def sized(size: int) -> bytes:
    """A set whose body has exactly `size` bytes."""
    body = b'{"key":"k","value":"%b"}' % (b"x" * (size - 22))
    return post(b"Content-Length: %d" % size, body=body)


#: Around the largest body that the fast lane waits for, 65,536 bytes.
SIZES = {f"{size} bytes": sized(size) for size in (65_535, 65_536, 65_537)}

CORPUS = {
    f"{kind}: {name}": stream
    for kind, streams in (("framing", FRAMING), ("chunks", CHUNKS), ("lines", LINES), ("fields", FIELDS))
    for name, stream in streams.items()
}
