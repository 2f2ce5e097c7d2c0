"""agent-vault's services become rules without credentials: never wider, every difference said."""

import pytest

from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source
from tests.egress.policy.importers.imported import Imported, imported

SERVICES = """
vault: team
services:
  - {name: pay, host: pay.example, auth: {type: bearer, token: PAY_KEY}}
  - {name: chat, host: "chat.example/api/*", auth: {type: passthrough}}
  - {name: split, host: split.example, path: /v1/*/items, port: 8443, auth: {type: passthrough}}
  - {name: glob, host: "*.one.example", auth: {type: passthrough}}
  - {name: asleep, host: pay.example, path: /admin/*, enabled: false, auth: {type: passthrough}}
  - {name: later, host: later.example, auth: {type: passthrough}, only_on: mondays}
  - {name: odd, host: odd.example, path: /v1*, auth: {type: passthrough}}
"""


def given(text: str = SERVICES) -> Imported:
    return imported(Source.AGENT_VAULT, text)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://pay.example/", False),  # a disabled service of that host denies it whole
        ("https://chat.example/api/", True),
        ("https://chat.example/api/a/b", True),
        ("https://chat.example/api", False),
        ("https://chat.example/", False),
        ("https://split.example:8443/v1/x/items", True),
        ("https://split.example:8443/v1/x/y/items", False),
        ("https://split.example/v1/x/items", False),
        ("https://a.one.example/", False),  # one label deep cannot be said
        ("https://later.example/", False),
        ("https://odd.example/v1", False),
        ("https://other.example/", False),
    ],
)
def test_services_are_carried(url: str, expected: bool) -> None:
    assert given().allows(url) is expected


def test_credentials_are_named_as_missing_and_the_host_is_allowed() -> None:
    found = given("services: [{name: a, host: a.example, auth: {type: bearer, token: K}}]")
    assert found.allows("https://a.example/")
    assert any("credential" in line for line in found.dropped)


@pytest.mark.parametrize(
    "text",
    [
        "vault: x",
        "services: {}",
        "services: [{name: a}]",
        "services: [{name: a, host: a.example, port: 70000}]",
        'services: [{name: a, host: a.example, enabled: "no"}]',
        'services: [{name: a, host: "a*.example", enabled: false}]',
    ],
)
def test_a_file_that_cannot_be_carried_is_refused_whole(text: str) -> None:
    with pytest.raises(ImportRefused):
        given(text)
