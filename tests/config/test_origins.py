"""Origins: what browsers send is taken, and nothing that only looks like it."""

from __future__ import annotations

import pytest

from kvtwisted.config.origins import cors_origins
from kvtwisted.config.schema import build
from kvtwisted.core.errors import InvalidConfig

GOOD = [
    "https://app.example.com",
    "http://app.example.com",
    "http://localhost",
    "http://localhost:3000",
    "https://app.example.com:8443",
    "https://app.example.com:80",
    "http://app.example.com:443",
    "http://a:1",
    "http://a:65535",
    "http://127.0.0.1:8080",
    "http://[::1]",
    "http://[::1]:3000",
    "http://[2001:db8::1]",
    "http://[::ffff:c000:201]",
    "https://xn--bcher-kva.example",
    "https://under_score.a-b.example",
    "https://1.example",
    "https://a.1b",
    f"https://{'a' * 63}.example",
]

BAD = [
    "null",
    "app.example.com",
    "//app.example.com",
    "https:app.example.com",
    "https:/app.example.com",
    "https://",
    "https://:8443",
    "HTTPS://app.example.com",
    "https://App.example.com",
    "https://app.example.com/",
    "https://app.example.com/x",
    "https://app.example.com?x",
    "https://app.example.com#x",
    "https://user@app.example.com",
    "https://*.example.com",
    "https://app.example.com:*",
    "https://app.example.com:",
    "https://app.example.com:0",
    "https://app.example.com:08443",
    "https://app.example.com:65536",
    "https://app.example.com:99999",
    "https://app.example.com:+1",
    "https://app.example.com.",
    "https://.example.com",
    "https://app..example.com",
    "https://app example.com",
    "https://app.example.com\n",
    "https://app.example.com\r\nX: y",
    "https://app.example.com\t",
    "https://app.example.com\u00a0",
    "https://bücher.example",
    "https://app.example.com:٣",
    "https://app%2eexample.com",
    "https://app.example.com\\x",
    f"https://{'a' * 64}.example",
    f"https://{'a.' * 200}example",
    "file://app",
    "ftp://app.example.com",
    "ws://app.example.com",
    "chrome-extension://abcdefgh",
    "data:text/html,x",
    "http://127.1",
    "http://127.0.0.01",
    "http://256.0.0.1",
    "http://2130706433",
    "http://0x7f000001",
    "http://a.0x7f",
    "http://1.2.3.4.5",
    "http://::1",
    "http://[::1",
    "http://[0:0:0:0:0:0:0:1]",
    "http://[::0001]",
    "http://[::A]",
    "http://[::ffff:192.0.2.1]",
    "http://[fe80::1%25eth0]",
    "http://[]",
    "http://[:::]",
    "http://[127.0.0.1]",
    "**",
    "*.example.com",
    "https://a.example https://b.example",
    "https://a.example;https://b.example",
]


@pytest.mark.parametrize("origin", GOOD)
def test_origins_as_browsers_send_them(origin: str) -> None:
    """Alone and among others, kept as they are."""
    assert cors_origins(origin) == {origin}
    assert cors_origins(f"https://other.example,  {origin} ") == {"https://other.example", origin}


@pytest.mark.parametrize("entry", BAD)
def test_entries_that_would_never_match(entry: str) -> None:
    """Refused with the key and the entry, also among good ones; nothing in the sentence could end a line of a log."""
    for text in (entry, f"https://other.example,{entry}"):
        with pytest.raises(InvalidConfig) as refused:
            build({"http.cors_origins": text})
        sentence = str(refused.value)
        assert sentence.startswith('http.cors_origins: "')
        assert sentence.isprintable()
        assert "like https://app.example.com" in sentence


@pytest.mark.parametrize("text", [" ", ",", "https://a.example,", ",https://a.example", "https://a.example, ,http://b"])
def test_empty_entries(text: str) -> None:
    """A comma too many is a slip that is said, not passed over."""
    with pytest.raises(InvalidConfig, match=r'^http\.cors_origins: "" is no origin'):
        cors_origins(text)


@pytest.mark.parametrize("origin", ["https://a.example:443", "http://a.example:80", "http://[::1]:80"])
def test_the_port_of_the_scheme(origin: str) -> None:
    """Browsers leave it out, and so must an entry."""
    with pytest.raises(InvalidConfig, match=r"^http\.cors_origins: .* must be without its port"):
        cors_origins(origin)


def test_every_origin_stands_alone() -> None:
    """Beside `*` a list means nothing, or something else than it seems."""
    assert cors_origins("*") == {"*"}
    assert cors_origins(" * ") == {"*"}
    for text in ("*,https://a.example", "https://a.example,*", "*,*"):
        with pytest.raises(InvalidConfig, match=r"^http\.cors_origins: \* is every origin, and stands alone"):
            cors_origins(text)


def test_none_and_many() -> None:
    """An empty text has none; an origin that is given twice is one."""
    assert cors_origins("") == frozenset()
    assert cors_origins("http://a,http://a,http://b") == {"http://a", "http://b"}
