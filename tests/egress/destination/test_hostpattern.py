"""Mirror of destination/hostpattern.py: one meaning for every pattern, and nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.destination.address_class import parse_address
from palyra_egress.destination.hostpattern import (
    HostIndex,
    PatternKind,
    PatternRefused,
    parse_pattern,
)

MATCHES = [
    ("api.example.com", "api.example.com", True),
    ("API.example.com", "api.example.com", True),
    ("api.example.com", "x.api.example.com", False),
    ("*.example.com", "example.com", False),
    ("*.example.com", "a.example.com", True),
    ("*.example.com", "a.b.example.com", True),
    ("*.example.com", "badexample.com", False),
    ("*.example.com", "example.com.evil.test", False),
    (".example.com", "example.com", True),
    (".example.com", "a.b.example.com", True),
    (".example.com", "badexample.com", False),
]

REFUSED = [
    ("", None),
    ("*", None),
    ("*.", None),
    (".", None),
    (".*", None),
    ("*.*.com", None),
    ("*..com", None),
    ("api.*", None),
    ("api-*.example.com", None),
    ("bob.ex*ample.com", None),
    ("a?c.com", None),
    ("*example.com", "*.example.com"),
    ("example.com.", "example.com"),
    ("a..b", None),
    ("https://api.example.com/x", "api.example.com"),
    ("api.example.com/x", "api.example.com"),
    ("api.example.com:8443", "api.example.com"),
    ("  api.example.com ", "api.example.com"),
    ("bücher.example", "xn--bcher-kva.example"),
    ("*.bücher.example", "*.xn--bcher-kva.example"),
    ("[::1]", "::1"),
    ("10.0.0.5/24", "10.0.0.0/24"),
    ("10.0.0.0/33", None),
    ("127.1", None),
    ("*.127.0.0.1", "127.0.0.1"),
    ("evil.com\nallow all", None),
    ("evil.com#comment", None),
    ("evil.com'", None),
    (".evil.com .attacker.com", None),
]


def _index(*patterns: str) -> HostIndex[list[str]]:
    index: HostIndex[list[str]] = HostIndex()
    for text in patterns:
        index.slot(parse_pattern(text), []).append(text)
    return index


@pytest.mark.parametrize(("pattern", "host", "matches"), MATCHES)
def test_a_pattern_names_these_hosts_and_no_others(pattern: str, host: str, matches: bool) -> None:
    assert bool(_index(pattern).find_name(host)) is matches


@pytest.mark.parametrize(("text", "suggestion"), REFUSED)
def test_anything_else_is_refused_with_what_was_probably_meant(
    text: str, suggestion: str | None
) -> None:
    with pytest.raises(PatternRefused) as refused:
        parse_pattern(text)
    assert refused.value.suggestion == suggestion


def test_the_most_specific_pattern_comes_first() -> None:
    index = _index(".com", ".example.com", "*.example.com", "*.a.example.com", "b.a.example.com")
    found = [texts[0] for texts in index.find_name("b.a.example.com")]
    assert found == [
        "b.a.example.com",
        "*.a.example.com",
        "*.example.com",
        ".example.com",
        ".com",
    ]


def test_the_longest_network_comes_first() -> None:
    index = _index("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "fd00::/8")
    address = parse_address("10.1.2.3")
    assert address is not None
    found = [texts[0] for texts in index.find_address(*address)]
    assert found == ["10.1.2.3", "10.1.0.0/16", "10.0.0.0/8"]
    outside = parse_address("11.0.0.0")
    assert outside is not None
    assert index.find_address(*outside) == []


def test_an_address_pattern_matches_no_name() -> None:
    index = _index("10.0.0.0/8")
    assert index.find_name("10.example.com") == []
    assert parse_pattern("10.0.0.1").kind is PatternKind.ADDRESSES


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("*.com", True),
        (".com", True),
        ("*.co.uk", True),
        ("*.example.com", False),
        ("*.ex.uk", False),
        ("*.gov.br", True),
        ("*.k12.ma.us", True),
        ("*.xn--55qx5d.cn", True),
        ("*.kobe.jp", True),
        ("*.city.kobe.jp", False),
        ("*.corp", True),
        ("*.github.io", False),
        ("co.uk", False),
        ("0.0.0.0/0", True),
        ("10.0.0.0/8", False),
        ("2000::/3", True),
    ],
)
def test_a_wide_pattern_is_known_as_wide(text: str, wide: bool) -> None:
    assert parse_pattern(text).is_wide is wide


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5))
def test_a_suffix_matches_exactly_the_names_below_it(labels: list[str]) -> None:
    host = ".".join([*labels, "example"])
    below = _index("*.b.example").find_name(host)
    assert bool(below) is (host.endswith(".b.example"))
