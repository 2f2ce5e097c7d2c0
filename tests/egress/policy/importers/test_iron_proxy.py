"""iron-proxy's allowlist becomes rules: never wider, and every difference is said."""

import pytest

from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source
from tests.egress.policy.importers.imported import Imported, imported

ALLOWLIST = """
domains: [packages.example, "*.cdn.example"]
cidrs: [10.1.0.0/16]
rules:
  - {host: api.example, methods: [post], paths: ["/v1/*", /health]}
  - {host: odd.example, methods: [BREW]}
  - {host: odder.example, paths: ["/a*b"]}
  - {host: "h?.example"}
"""


def given(text: str = ALLOWLIST) -> Imported:
    return imported(Source.IRON_PROXY, text)


@pytest.mark.parametrize(
    ("method", "url", "expected"),
    [
        ("GET", "https://packages.example/", "allow"),
        ("DELETE", "http://packages.example/", "allow"),
        ("GET", "https://packages.example:8443/", "deny"),
        ("GET", "https://cdn.example/", "allow"),  # the name itself is in its wildcard
        ("GET", "https://a.b.cdn.example/", "allow"),
        ("GET", "https://10.1.2.3/", "allow"),
        ("GET", "https://10.2.0.1/", "deny"),
        ("POST", "https://api.example/v1", "allow"),
        ("POST", "https://api.example/v1/a/b", "allow"),
        ("POST", "https://api.example/health", "allow"),
        ("POST", "https://api.example/v12", "deny"),
        ("GET", "https://api.example/v1/a", "deny"),
        # a rule that loses all its methods or paths must not become a rule for everything
        ("GET", "https://odd.example/", "deny"),
        ("GET", "https://odder.example/", "deny"),
        ("GET", "https://h1.example/", "deny"),
    ],
)
def test_the_allowlist_is_carried(method: str, url: str, expected: str) -> None:
    assert given().says(method, url) == expected


def test_what_is_lost_is_listed() -> None:
    assert len(given().comments("not imported")) == len(given().dropped) == 5


def test_a_whole_configuration_is_read() -> None:
    found = given(
        """
        dns: {proxy_ip: 10.0.0.1}
        proxy: {upstream_deny_cidrs: [203.0.114.0/24]}
        tls: {mode: sni-only}
        transforms:
          - {name: allowlist, config: {domains: [a.example]}}
          - {name: judge, config: {}}
        """
    )
    assert found.says("GET", "https://a.example/") == "deny"  # it resolves into the denied range
    assert any("judge" in line for line in found.dropped)
    assert any(line.startswith("# left out: dns") for line in found.text.splitlines())


@pytest.mark.parametrize(("deny", "expected"), [("[]", "report"), ("[203.0.115.0/24]", "deny")])
def test_warn_is_observe_mode_unless_a_deny_list_must_hold(deny: str, expected: str) -> None:
    found = given(
        f"proxy: {{upstream_deny_cidrs: {deny}}}\n"
        "transforms: [{name: allowlist, config: {domains: [a.example], warn: true}}]"
    )
    assert found.says("GET", "https://other.example/") == expected
    assert bool(found.dropped) == (expected == "deny")


def test_no_allowlist_allows_nothing() -> None:
    found = given("transforms: []")
    assert found.says("GET", "https://a.example/") == "deny"
    assert found.dropped


@pytest.mark.parametrize(
    "text",
    [
        "transforms: [{name: allowlist, config: {}}, {name: allowlist, config: {}}]",
        "rules: [{methods: [GET]}]",
        "rules: [{host: a.example, cidr: 10.0.0.0/8}]",
        "transforms: [{name: allowlist, config: {}}]\nproxy: {upstream_deny_cidrs: [10.0.0.1/8]}",
        "domains: a.example",
        "domains: [1]",
        "warn: 1",
    ],
)
def test_a_file_that_cannot_be_carried_is_refused_whole(text: str) -> None:
    with pytest.raises(ImportRefused):
        given(text)
