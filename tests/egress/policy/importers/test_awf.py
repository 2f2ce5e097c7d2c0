"""awf's lists, rulesets and configurations become rules: never wider, every difference said."""

import pytest

from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source
from tests.egress.policy.importers.imported import Imported, imported

LIST = """
# what the agent may reach
code.example
 http://plain.example/ , https://*.safe.example   # two on a line
api-*.glob.example
"""
CONFIG = """
network:
  allowDomains: [code.example, "*.cdn.example", https://strict.example]
  blockDomains: [bad.code.example, "api-*.cdn.example", http://strict.example]
"""


def given(text: str) -> Imported:
    return imported(Source.AWF, text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://code.example/", True),
        ("http://deep.below.code.example/", True),
        ("http://plain.example/", True),
        ("https://plain.example/", False),
        ("https://a.safe.example/", True),
        ("https://safe.example/", False),
        ("http://a.safe.example/", False),
        ("https://api-1.glob.example/", False),
        ("https://code.example:8443/", False),
    ],
)
def test_a_list_of_domains_is_carried(url: str, expected: bool) -> None:
    assert given(LIST).allows(url) is expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://code.example/", True),
        ("https://bad.code.example/", False),
        ("https://x.bad.code.example/", False),
        ("https://api-1.cdn.example/", False),
        ("https://web.cdn.example/", False),  # the wildcard block is widened, and said
        ("https://strict.example/", False),  # so is the block of one scheme
    ],
)
def test_a_configuration_is_carried(url: str, expected: bool) -> None:
    assert given(CONFIG).allows(url) is expected


def test_a_ruleset_says_whether_subdomains_belong_to_it() -> None:
    found = given(
        "version: 1\nrules: [{domain: a.example}, {domain: b.example, subdomains: false}]"
    )
    assert found.allows("https://x.a.example/")
    assert found.allows("https://b.example/")
    assert not found.allows("https://x.b.example/")


def test_json_is_read_too() -> None:
    assert given('{"network": {"allowDomains": ["a.example"]}}').allows("https://a.example/")


@pytest.mark.parametrize(
    "text",
    [
        "network: []",
        "logging: {}",
        "version: 2\nrules: []",
        "version: 1\nrules: [{}]",
        'network: {blockDomains: ["*"]}',
        "network: {blockDomains: [bad host]}",
    ],
)
def test_a_file_that_cannot_be_carried_is_refused_whole(text: str) -> None:
    with pytest.raises(ImportRefused):
        given(text)
