"""sandbox-runtime's settings become rules: never wider, and every difference is said."""

from typing import Any

import pytest

from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source
from tests.egress.policy.importers.imported import Imported, imported_value


def given(allowed: list[str], denied: list[str] | None = None, **network: Any) -> Imported:
    return imported_value(
        Source.SANDBOX_RUNTIME,
        {"network": {"allowedDomains": allowed, "deniedDomains": denied or [], **network}},
    )


@pytest.mark.parametrize(
    ("allowed", "denied", "url", "expected"),
    [
        (["a.example"], [], "https://a.example/", True),
        (["a.example"], [], "http://a.example/", True),
        (["a.example"], [], "https://b.a.example/", False),
        (["*.a.example"], [], "https://c.b.a.example/", True),
        (["*.a.example"], [], "https://a.example/", False),
        (["a.example:8443"], [], "https://a.example:8443/", True),
        (["a.example:8443"], [], "https://a.example/", False),
        (["[2606:4700::1]:8443"], [], "https://[2606:4700::1]:8443/", True),
        (["*.a.example"], ["bad.a.example"], "https://bad.a.example/", False),
        (["a.example"], ["a.example:22"], "https://a.example/", True),
        (["a.example"], ["a.example:443"], "https://a.example/", False),
        (["a.example"], ["a.example:443"], "http://a.example/", False),  # wider, and said
        (["a.example"], ["*"], "https://a.example/", False),
        (["a.example"], ["*:80"], "http://a.example/", False),
        (["a.example"], ["*:80"], "https://a.example/", True),
        (["a.example:8443"], ["*:8443"], "https://a.example:8443/", False),
        (["a.*.example"], [], "https://a.b.example/", False),
        ([], [], "https://a.example/", False),
    ],
)
def test_domains_are_carried(
    allowed: list[str], denied: list[str], url: str, expected: bool
) -> None:
    assert given(allowed, denied).allows(url) is expected


def test_everything_is_not_carried() -> None:
    found = given([], allowAllDomains=True)
    assert not found.allows("https://a.example/")
    assert found.dropped


def test_a_reason_of_a_denial_is_kept() -> None:
    found = given(
        ["*.a.example"], ["b.a.example"], deniedDomainReasons={"b.a.example": "not: ours"}
    )
    assert found.policy.spec.deny[0].reason == "not: ours"


def test_absent_lists_allow_nothing() -> None:
    found = imported_value(Source.SANDBOX_RUNTIME, {"network": {"allowedDomains": None}})
    assert not found.allows("https://a.example/")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        [],
        {"network": []},
        {"network": {"allowedDomains": "a.example"}},
        {"network": {"allowedDomains": [1]}},
        {"network": {"allowedDomains": ["a.example"], "deniedDomains": ["a*.example"]}},
        {"network": {"allowAllDomains": "yes"}},
    ],
)
def test_a_file_that_cannot_be_carried_is_refused_whole(settings: Any) -> None:
    with pytest.raises(ImportRefused):
        imported_value(Source.SANDBOX_RUNTIME, settings)
