"""smokescreen's ACL becomes profiles: never wider, and every difference is said."""

import pytest

from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source
from tests.egress.policy.importers.imported import Imported, imported

ACL = """
version: v1
services:
  - name: shop
    project: shop-team
    action: enforce
    allowed_domains: [pay.example, "*.cdn.example", blocked.example]
  - name: batch job
    action: report
    allowed_domains: [batch.example]
default:
  action: enforce
  allowed_domains: [anyone.example]
global_allow_list: [status.example]
global_deny_list: [blocked.example, "*.bad.example"]
"""


def given(text: str = ACL, profile: str | None = None) -> Imported:
    return imported(Source.SMOKESCREEN, text, profile)


@pytest.mark.parametrize(
    ("profile", "url", "expected"),
    [
        ("shop", "https://pay.example/", True),
        ("shop", "http://pay.example/", True),
        ("shop", "https://a.b.cdn.example/", True),
        ("shop", "https://cdn.example/", False),
        ("shop", "https://status.example/", True),
        ("shop", "https://batch.example/", False),
        ("shop", "https://blocked.example/", False),  # deny wins here
        ("batch-job", "https://batch.example/", True),
        ("batch-job", "https://other.example/", False),  # report is not carried beside others
        ("default", "https://anyone.example/", True),
        ("nobody", "https://anyone.example/", False),
    ],
)
def test_a_service_is_a_profile(profile: str, url: str, expected: bool) -> None:
    assert given().allows(url, profile=profile) is expected


def test_what_differs_is_said() -> None:
    found = given()
    assert any("blocked.example overrides" in line for line in found.comments("changed"))
    assert any("'batch job' becomes" in line for line in found.comments("changed"))
    assert [line for line in found.dropped if "report" in line]


def test_one_service_that_reports_becomes_observe_mode() -> None:
    text = "version: v1\nservices: [{name: a, action: report, allowed_domains: [a.example]}]"
    found = given(text)
    assert found.dropped == ()
    assert found.says("GET", "https://other.example/", "a") == "report"


def test_a_deny_list_keeps_report_from_becoming_observe_mode() -> None:
    text = "version: v1\nservices: [{name: a, action: report}]\nglobal_deny_list: [blocked.example]"
    found = given(text)
    assert found.says("GET", "https://blocked.example/", "a") == "deny"
    assert found.says("GET", "https://other.example/", "a") == "deny"
    assert found.dropped


def test_open_is_not_carried() -> None:
    found = given("version: v1\nservices: [{name: a, action: open, allowed_domains: [a.example]}]")
    assert found.allows("https://a.example/", profile="a")
    assert not found.allows("https://b.example/", profile="a")
    assert found.dropped


def test_only_the_asked_service_is_imported() -> None:
    found = given(profile="shop")
    assert list(found.policy.profiles) == ["shop"]
    assert "batch.example" not in found.text
    with pytest.raises(ImportRefused, match="no service"):
        given(profile="ship")


def test_a_service_with_an_unknown_key_allows_nothing_of_its_own() -> None:
    found = given(
        "version: v1\nservices: [{name: a, action: enforce, allowed_domains: [a.example], only: x}]"
    )
    assert not found.allows("https://a.example/", profile="a")
    assert found.dropped == ("services[0].only: an unknown key",)


@pytest.mark.parametrize(
    "text",
    [
        "services: []",
        "version: v2\nservices: []",
        "version: v1",
        "version: v1\nservices: [{name: a}]",
        "version: v1\nservices: [{name: a, action: shrug}]",
        "version: v1\nservices: [{name: a, action: enforce}, {name: a, action: enforce}]",
        "version: v1\nservices: [{name: a b, action: enforce}, {name: a-b, action: enforce}]",
        "version: v1\nservices: [{name: default, action: open}]\ndefault: {action: enforce}",
        'version: v1\nservices: []\nglobal_deny_list: ["a.*.example"]',
        "version: v1\nservices: []\nglobal_deny_list: blocked.example",
    ],
)
def test_a_file_that_cannot_be_carried_is_refused_whole(text: str) -> None:
    with pytest.raises(ImportRefused):
        given(text)
