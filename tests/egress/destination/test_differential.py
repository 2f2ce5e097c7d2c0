"""Our canonicaliser against the parsers and resolvers that others would use on the same text.

Whatever another parser takes as host X, we refuse, or canonicalise to that same X. In particular no
text that any of them turns into an IP address is a name to us. Asked: yarl, `urllib.parse`,
`ipaddress`, `inet_aton`, `getaddrinfo` with AI_NUMERICHOST (which asks no DNS) and, where it is
installed, ada-url, the WHATWG URL parser. Every known difference is a row of `DIFFERENCES`.
"""

import importlib
import ipaddress
import socket
from collections.abc import Callable
from contextlib import suppress
from types import ModuleType
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
import yarl
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palyra_egress.destination.address_class import parse_address
from palyra_egress.destination.hostname import (
    HostRefused,
    canonical_host,
    ends_in_number,
    split_host_port,
)
from palyra_egress.policy.request_text import judge_request_from_url
from palyra_egress.request import Requester

type Address = tuple[int, int]
ASKER: Final = Requester("worker", "lease", "p")


def _ada() -> ModuleType | None:
    try:
        return importlib.import_module("ada_url")
    except ModuleNotFoundError:
        return None


ADA: Final = _ada()
needs_ada = pytest.mark.skipif(ADA is None, reason="ada-url is not installed: no WHATWG opinion")

DIFFERENCES: Final = {
    # URL: (who, the host they take, why ours is another)
    "https://a.example%2eevil.test/": ("ada", "a.example.evil.test", "% is refused in hosts"),
    "https://a.example\\@evil.test/": ("ada", "a.example", "a backslash is refused"),
    "https://a.example\\.evil.test/": ("urllib", "a.example\\.evil.test", "a backslash is refused"),
    "https://evil.test@a.example/": ("urllib", "a.example", "user information is refused"),
    "https://a.exam\tple/": ("urllib", "a.example", "a tab is refused, not removed"),
    "https:a.example/": ("ada", "a.example", "without // there is no authority"),
    "https:///a.example/": ("ada", "a.example", "an empty authority is refused"),
    "https://[::1%25eth0]/": ("urllib", "::1%25eth0", "zone ids are refused"),
    "https://0x7f.1/": ("ada", "127.0.0.1", "only the canonical spelling is an address"),
    "https://127.1/": ("ada", "127.0.0.1", "only the canonical spelling is an address"),
    "https://2130706433/": ("ada", "127.0.0.1", "only the canonical spelling is an address"),
    "https://１２７.０.０.１/": ("ada", "127.0.0.1", "an address is written in ASCII"),
    "https://127.0.0.1./": ("ada", "127.0.0.1", None),
    "https://☃.example/": ("ada", "xn--n3h.example", "a symbol is no IDNA 2008 label"),
    "https://a..example/": ("ada", "a..example", "empty labels are refused"),
    "https://-a.example/": ("ada", "-a.example", "a label starts with a letter or digit"),
}
"""Where another parser names a host and we refuse; None where both name the same one."""


def ours(text: str) -> str | None:
    """The canonical host, brackets allowed; None where we refuse."""
    try:
        host, _ = split_host_port(text)
    except HostRefused:
        return None
    return host


def ours_of_url(url: str) -> str | None:
    try:
        return judge_request_from_url("GET", url, ASKER).host
    except HostRefused:
        return None


def _by_ipaddress(text: str) -> Address | None:
    with suppress(ValueError):
        found = ipaddress.ip_address(text)
        return found.version, int(found)
    return None


def _by_inet_aton(text: str) -> Address | None:
    with suppress(OSError, ValueError):
        return 4, int.from_bytes(socket.inet_aton(text))
    return None


def _by_getaddrinfo(text: str) -> Address | None:
    with suppress(OSError, ValueError):
        rows = socket.getaddrinfo(text, None, flags=socket.AI_NUMERICHOST)
        return parse_address(str(rows[0][4][0]).partition("%")[0])
    return None


def _by_ada(text: str) -> Address | None:
    host = ada_host(f"https://{text}/")
    return None if host is None else parse_address(host)


NUMERIC: Final[dict[str, Callable[[str], Address | None]]] = {
    "ipaddress": _by_ipaddress,
    "inet_aton": _by_inet_aton,
    "getaddrinfo": _by_getaddrinfo,
    **({"ada": _by_ada} if ADA is not None else {}),
}


def ada_host(url: str) -> str | None:
    """The WHATWG host without brackets and one trailing dot."""
    ada: Any = ADA
    with suppress(ValueError, UnicodeError):
        host = str(ada.URL(url).hostname)
        return host.removeprefix("[").removesuffix("]").removesuffix(".") or None
    return None


def yarl_host(url: str) -> str | None:
    with suppress(ValueError, UnicodeError):
        host = yarl.URL(url).raw_host
        return None if host is None else host.removesuffix(".") or None
    return None


def urllib_host(url: str) -> str | None:
    with suppress(ValueError, UnicodeError):
        return urlsplit(url).hostname
    return None


WHO: Final[dict[str, Callable[[str], str | None]]] = {
    "ada": ada_host,
    "yarl": yarl_host,
    "urllib": urllib_host,
}

NUMBERS = st.integers(0, 2**32 + 5).flatmap(
    lambda number: st.sampled_from([f"{number}", f"0x{number:x}", f"0X{number:X}", f"0{number:o}"])
)
DOTS = st.sampled_from([".", "。", "．", "｡", ".."])
WIDE = str.maketrans("0123456789abcdefx", "０１２３４５６７８９ａｂｃｄｅｆｘ")
NUMERIC_HOSTS = (
    st.builds(
        lambda parts, dot, tail, wide: (dot.join(parts) + tail).translate(WIDE if wide else {}),
        st.lists(NUMBERS | st.integers(0, 260).map(str), min_size=1, max_size=5),
        DOTS,
        st.sampled_from(["", ".", "..", " ", "%20", "\n", ".a", ".0x", ".09"]),
        st.booleans(),
    )
    | st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map(lambda address: f"[{address.exploded}]")
)
PIECES = st.sampled_from(
    (
        *("a", "b1", "xn--", "xn--bcher-kva", "0x", "7f", "127", "1", "-", "_", "%41", "%2e"),
        *("ß", "ü", "Ⅷ", "K", "ſ", "٣", "０", "①", "☃", "İ", "ﬀ", "ℂ", "½", "℀", "⑴", "Ω", "𝟏"),
        *("\u00ad", "\u200d", "\u200b", "\u0345", "\ufeff", "。", ".", ".."),
        *("example", "com", "localhost"),
    )
)
NAMES = st.lists(PIECES, min_size=1, max_size=6).map("".join) | st.lists(
    PIECES, min_size=2, max_size=4
).map(".".join)
HOSTS = NUMERIC_HOSTS | NAMES | st.text(max_size=12)
AUTHORITIES = st.builds(
    "".join,
    st.lists(
        HOSTS | st.sampled_from(["@", ":", ":443", "\\", "/", "?", "#", "[", "]", "\t", ";", "%"]),
        max_size=4,
    ),
)
TAILS = st.sampled_from(["", "/", "/a", "?q", "/@b.example", "//b.example", "\\b", ":80/"])


def is_same(named: str | None, host: str) -> bool:
    """No opinion, the same name, or the same address however it is spelt (WHATWG writes mapped
    addresses in hex, RFC 5952 dotted)."""
    if named is None or named == host:
        return True
    address = parse_address(host)
    return address is not None and parse_address(named) == address


def _bare(text: str) -> str:
    return text[1:-1] if text.startswith("[") and text.endswith("]") else text


@settings(max_examples=400)
@given(HOSTS)
@example("0177.0.0.1")
@example("127.000.0.1")
@example("0x7f000001")
@example("1。1。1。1")
@example("𝟏.1.1.1")
@example("1.1.1.1\u00ad")
@example("[::ffff:127.0.0.1]")
@example("[fe80::1%eth0]")
def test_no_text_that_anyone_reads_as_an_address_is_a_name(text: str) -> None:
    host = ours(text)
    if host is None:
        return
    mine = parse_address(host)
    for who, read in NUMERIC.items():
        given_text = text if who == "ada" else _bare(text)
        theirs = read(given_text)
        if theirs is not None:
            assert mine == theirs, f"{who} reads {text!r} as another address than {host!r}"
        again = read(f"[{host}]" if who == "ada" and ":" in host else host)
        assert again in (None, mine), f"{who} reads our own {host!r} as something else"


@settings(max_examples=400)
@given(AUTHORITIES, TAILS)
@example("a.example\\@b.example", "/")
@example("a.example#@b.example", "/")
@example("a.example?@b.example", "/")
@example("a.example", "//b.example")
@example("faß.example", "/")
@example("ΒΌΛΟΣ.example", "/")
def test_a_url_has_the_same_host_for_everyone(authority: str, tail: str) -> None:
    url = f"https://{authority}{tail}"
    host = ours_of_url(url)
    if host is None:
        return
    assert is_same(yarl_host(url), host)
    named = urllib_host(url)  # it maps nothing, so its answer is mapped first
    assert named is None or (ours(f"[{named}]" if ":" in named else named)) == host
    if ADA is not None:
        assert is_same(ada_host(url), host)


@given(HOSTS)
def test_what_we_accept_is_written_in_one_way_for_everyone(text: str) -> None:
    try:
        host = canonical_host(text)
    except HostRefused:
        return
    url = f"https://{host}/"
    assert ours_of_url(url) == host
    assert yarl_host(url) == host
    assert urllib_host(url) == host
    if ADA is not None and "xn--" not in host:
        assert ada_host(url) == host
    assert not ends_in_number(host) or parse_address(host) is not None


@pytest.mark.parametrize(
    ("url", "row"), [pytest.param(url, row, id=ascii(url)) for url, row in DIFFERENCES.items()]
)
def test_the_table_of_differences_holds(url: str, row: tuple[str, str, str | None]) -> None:
    who, named, why = row
    if who == "ada" and ADA is None:
        pytest.skip("ada-url is not installed: no WHATWG opinion")
    assert WHO[who](url) == named
    assert ours_of_url(url) == (named if why is None else None)


@needs_ada
def test_the_whatwg_parser_was_asked() -> None:
    assert ada_host("https://EXAMPLE.com./") == "example.com"
