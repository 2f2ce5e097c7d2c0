"""Mirror of policy/credential_reader.py: what a rule may say about credentials."""

import pytest

from palyra_egress.credentials.binding import CredentialBinding, SecretRef, SecretSource
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.load import load_policy
from palyra_egress.verdict import Effect
from tests.egress.policy.policy_text import HEAD, ask, rules

RULE = "rules:\n  - id: r\n    hosts: [a.example]\n"
GIVEN = "{header: authorization, secret: 'vault:global/token'}"
TOKEN = SecretRef(SecretSource.VAULT, "global/token")


def _problems(text: str) -> list[str]:
    with pytest.raises(PolicyFileError) as refused:
        load_policy(f"{HEAD}{text}".encode(), "f")
    return str(refused.value).splitlines()


REFUSED = [
    ("credentials: authorization", "6:18: wrong_type", "a list of credentials"),
    ("credentials: [authorization]", "6:19: wrong_type", "a mapping with header and secret"),
    ("credentials: [{header: authorization}]", "6:19: missing_key", "has no 'secret'"),
    ("credentials: [{secret: 'env:A'}]", "6:19: missing_key", "has no 'header'"),
    (
        "credentials: [{heder: x-a, secret: 'env:A'}]",
        "6:20: unknown_key",
        "did you mean 'header'?",
    ),
    (
        "credentials: [{header: host, secret: 'env:A'}]",
        "6:28: bad_value",
        "the header 'host' frames or routes a message",
    ),
    (
        "credentials: [{header: Proxy-Authorization, secret: 'env:A'}]",
        "6:28: bad_value",
        "ends at the proxy",
    ),
    (
        "credentials: [{header: autorization, secret: 'env:A'}]",
        "6:28: bad_value",
        "did you mean 'authorization'?",
    ),
    ("credentials: [{header: 7, secret: 'env:A'}]", "6:28: wrong_type", "a text"),
    (
        "credentials: [{header: x-a, secret: 'valt:global/a'}]",
        "6:41: bad_value",
        "did you mean 'vault:global/github_token'?",
    ),
    ("credentials: [{header: x-a, secret: 'vault:../a'}]", "6:41: bad_value", "no name of a"),
    ("credentials: [{header: x-a, secret: 12345678}]", "6:41: wrong_type", "a text"),
    (
        "credentials: [{header: x-a, secret: 'env:A', format: Bearer}]",
        "6:58: bad_value",
        '"Bearer {secret}"',
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', format: '{secret}{secret}'}]",
        "6:58: bad_value",
        "with {secret} in it once",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', format: \"a\\nb {secret}\"}]",
        "6:58: bad_value",
        "printable ASCII",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', format: ' {secret}'}]",
        "6:58: bad_value",
        "printable ASCII",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', format: '{secret} '}]",
        "6:58: bad_value",
        "printable ASCII",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', basic_user: 'a:b'}]",
        "6:62: bad_value",
        "no colon",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', placeholder: short}]",
        "6:63: bad_value",
        "8 to 128",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A', placeholder: with a space}]",
        "6:63: bad_value",
        "8 to 128",
    ),
    (
        "credentials: [{header: x-a, secret: 'env:A'}, {header: X-A, secret: 'env:B'}]",
        "6:51: bad_value",
        "each header once",
    ),
    (
        f"schemes: [http, https]\n    credentials: [{GIVEN}]",
        "7:5: credential_over_http",
        "plain http",
    ),
]


@pytest.mark.parametrize(("text", "place", "words"), REFUSED)
def test_a_mistake_about_a_credential_is_told_with_its_place(
    text: str, place: str, words: str
) -> None:
    problems = _problems(f"{RULE}    {text}\n")

    assert any(line.startswith(f"f:{place}") and words in line for line in problems), problems


def test_a_credential_in_a_tunnel_that_is_not_inspected_is_refused() -> None:
    problems = _problems(f"{RULE}    tls: tunnel\n    credentials: [{GIVEN}]\n")

    assert any(line.startswith("f:7:5: credential_in_tunnel") for line in problems), problems


@pytest.mark.parametrize("before", ["", "vault:", "env:", "vault:a/b/"])
def test_a_secret_pasted_into_a_policy_is_refused_and_not_repeated(before: str) -> None:
    secret = "ghp/x~secret=12345678"
    text = f"{RULE}    credentials: [{{header: x-a, secret: '{before}{secret}'}}]\n"

    problems = _problems(text)

    assert "the secret itself never stands in a policy" in problems[0]
    assert not [line for line in problems if "12345678" in line]


def test_a_binding_is_read_with_its_form() -> None:
    given = rules(
        "hosts: [a.example], credentials: ["
        "{header: X-Key, secret: 'env:KEY', placeholder: key-goes-here},"
        " {header: Authorization, secret: 'vault:global/token', format: 'Bearer {secret}'},"
        " {header: x-basic, secret: 'vault:global/token', format: 'v1.{secret}', basic_user: me}]"
    )

    verdict = ask(given, "GET https://a.example/")

    assert verdict.credentials == (
        CredentialBinding("authorization", TOKEN, prefix="Bearer ", rule_id="r0"),
        CredentialBinding("x-basic", TOKEN, prefix="v1.", basic_user="me", rule_id="r0"),
        CredentialBinding(
            "x-key",
            SecretRef(SecretSource.ENV, "KEY"),
            placeholder="key-goes-here",
            rule_id="r0",
        ),
    )


def test_an_empty_list_of_credentials_adds_none() -> None:
    given = rules("hosts: [a.example], schemes: [http], credentials: []")

    verdict = ask(given, "GET http://a.example/")

    assert (verdict.effect, verdict.credentials) == (Effect.ALLOW, ())
