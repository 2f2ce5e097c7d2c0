"""agent-vault's services become rules with their credentials: never wider, all differences said."""

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


def one(auth: str, vault: str = "vault: team\n") -> Imported:
    return given(f"{vault}services: [{{name: a, host: a.example, auth: {auth}}}]")


@pytest.mark.parametrize(
    ("auth", "header", "prefix", "name"),
    [
        ("{type: bearer, token: PAY_KEY}", "authorization", "Bearer ", "team/PAY_KEY"),
        ("{type: api-key, key: PAY_KEY}", "authorization", "", "team/PAY_KEY"),
        ("{type: api-key, key: K, header: X-Api-Key, prefix: v1.}", "x-api-key", "v1.", "team/K"),
        ("{type: custom, headers: {X-A: 'Token {{ K }}'}}", "x-a", "Token ", "team/K"),
    ],
)
def test_a_credential_is_carried_with_its_header_and_form(
    auth: str, header: str, prefix: str, name: str
) -> None:
    found = one(auth)

    (binding,) = found.policy.rules["a"].credentials
    assert (binding.header, binding.prefix, binding.secret.name) == (header, prefix, name)
    assert found.allows("https://a.example/")
    assert not found.allows("http://a.example/")
    assert found.dropped == ()


def test_a_file_without_a_vault_keeps_its_secrets_in_the_global_scope() -> None:
    (binding,) = one("{type: bearer, token: K}", vault="").policy.rules["a"].credentials
    assert str(binding.secret) == "vault:global/K"


@pytest.mark.parametrize(
    "auth",
    [
        "{type: basic, username: USER, password: PASS}",
        "{type: bearer, token: not a key}",
        "{type: api-key, key: K, header: Host}",
        "{type: api-key, key: K, header: 'X-A\\r\\nX-B'}",
        "{type: custom, headers: {X-A: '{{ K }}{{ L }}'}}",
        "{type: custom, headers: {X-A: plain}}",
        "{type: custom, headers: {X-A: '{{ K }}', x-a: '{{ L }}'}}",
        '{type: custom, headers: {X-A: "a\\nb {{ K }}"}}',
        "{type: oauth, token: K}",
    ],
)
def test_a_credential_that_cannot_be_said_is_named_and_the_host_is_allowed(auth: str) -> None:
    found = one(auth)
    assert found.policy.rules["a"].credentials == ()
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
