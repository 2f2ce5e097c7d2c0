"""What is put into a bound header, and what refuses the request instead."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.binding import (
    CredentialBinding,
    NoSecrets,
    SecretRef,
    SecretSource,
    SecretValue,
)
from palyra_egress.credentials.injection import BindingRefused, Injected, inject, nothing_offered
from palyra_egress.reasons import Reason
from tests.fakes.secrets import SecretsInMemory

SECRET = "ghp_this-is-the-secret"
HOLDER = "token-goes-here"
REF = SecretRef(SecretSource.VAULT, "global/token")
LOOKUP = SecretsInMemory({str(REF): SECRET})
BEARER = CredentialBinding("authorization", REF, prefix="Bearer ")
BARE = CredentialBinding("x-api-key", REF)
SWAPPED = CredentialBinding("authorization", REF, placeholder=HOLDER)


def basic(text: str) -> str:
    return f"Basic {base64.b64encode(text.encode()).decode()}"


def value(binding: CredentialBinding, *offered: str) -> str | Reason | None:
    """What leaves in the header, why it is refused, or None if the header is not set."""
    found = inject([binding], LOOKUP, lambda name: offered if name == binding.header else ())
    if isinstance(found, BindingRefused):
        assert found.binding == binding
        return found.reason
    return found[0].value.reveal() if found else None


@pytest.mark.parametrize("offered", [(), ("own",), ("own", "another"), (f"Bearer {HOLDER}",)])
def test_a_binding_without_a_placeholder_is_set_whatever_the_worker_sent(
    offered: tuple[str, ...],
) -> None:
    assert value(BEARER, *offered) == f"Bearer {SECRET}"
    assert value(BARE, *offered) == SECRET
    assert value(BARE._replace(basic_user="me"), *offered) == basic(f"me:{SECRET}")


@pytest.mark.parametrize(
    ("offered", "leaves"),
    [
        (HOLDER, SECRET),
        (f"Bearer {HOLDER}", f"Bearer {SECRET}"),
        (f"token={HOLDER}; theme=dark", f"token={SECRET}; theme=dark"),
        (f'Digest response="{HOLDER}"', f'Digest response="{SECRET}"'),
        (basic(f"me:{HOLDER}"), basic(f"me:{SECRET}")),
        (basic(f"{HOLDER}:"), basic(f"{SECRET}:")),
        (basic(f"me:{HOLDER}").replace("Basic", "bAsIc  "), basic(f"me:{SECRET}")),
    ],
)
def test_a_placeholder_is_swapped_where_the_worker_put_it(offered: str, leaves: str) -> None:
    assert value(SWAPPED, offered) == leaves


NOT_ALLOWED = [
    "",
    "Bearer my-own-token",
    HOLDER.upper(),
    f"x{HOLDER}",
    f"{HOLDER}x",
    f"{HOLDER} {HOLDER}",
    f"{HOLDER}{HOLDER}",
    basic("me:my-own-password"),
    basic(f"me:x{HOLDER}"),
    basic(f"me:{HOLDER}") + "=",
    "Basic !!!!",
    "Basic /////w==",
    f"{HOLDER} \udce9",
    f"{HOLDER}; n\u00e4me=x",
]


@pytest.mark.parametrize("offered", NOT_ALLOWED)
def test_a_value_of_the_workers_own_is_refused_where_a_placeholder_belongs(offered: str) -> None:
    assert value(SWAPPED, offered) is Reason.CREDENTIAL_HEADER_NOT_ALLOWED


def test_a_header_that_is_sent_twice_is_refused() -> None:
    assert value(SWAPPED, HOLDER, HOLDER) is Reason.CREDENTIAL_HEADER_NOT_ALLOWED


def test_with_a_form_the_header_must_be_exactly_that_form() -> None:
    bearer = BEARER._replace(placeholder=HOLDER)
    of_user = SWAPPED._replace(basic_user="me")

    assert value(bearer, f"Bearer {HOLDER}") == f"Bearer {SECRET}"
    assert value(of_user, basic(f"me:{HOLDER}")) == basic(f"me:{SECRET}")
    for offered in (HOLDER, f"bearer {HOLDER}", f"Bearer  {HOLDER}", f"Bearer {HOLDER}, x=y"):
        assert value(bearer, offered) is Reason.CREDENTIAL_HEADER_NOT_ALLOWED
    for offered in (HOLDER, basic(f"you:{HOLDER}"), f"Bearer {HOLDER}"):
        assert value(of_user, offered) is Reason.CREDENTIAL_HEADER_NOT_ALLOWED


def test_whoever_sends_no_placeholder_and_no_header_asks_for_nothing() -> None:
    assert value(SWAPPED) is None


def test_a_missing_secret_refuses_whether_or_not_the_header_was_sent() -> None:
    for binding in (BEARER, SWAPPED):
        for offered in ((), (HOLDER,)):
            found = inject([binding], NoSecrets(), lambda _, given=offered: given)
            assert found == BindingRefused(Reason.CREDENTIAL_UNAVAILABLE, binding)


@pytest.mark.parametrize("text", ["", "short", "two\r\nlines-of-it", "nul\0nul\0nul", " padded-x "])
def test_what_could_break_a_header_is_never_injected(text: str) -> None:
    class Careless(SecretsInMemory):
        def get(self, _ref: SecretRef) -> SecretValue | None:
            return SecretValue(text)

    found = inject([BEARER], Careless(), nothing_offered)

    assert found == BindingRefused(Reason.CREDENTIAL_UNAVAILABLE, BEARER)


def test_a_source_that_the_operator_does_not_allow_is_refused_with_its_own_reason() -> None:
    only_files = SecretsInMemory({str(REF): SECRET}, frozenset({SecretSource.FILE}))

    found = inject([BEARER], only_files, nothing_offered)

    assert found == BindingRefused(Reason.CREDENTIAL_SOURCE_NOT_ALLOWED, BEARER)


def test_all_headers_are_set_or_none() -> None:
    missing = CredentialBinding("x-other", SecretRef(SecretSource.ENV, "MISSING"))

    both = inject([BEARER, BARE], LOOKUP, nothing_offered)

    assert isinstance(both, tuple) and not isinstance(both, BindingRefused)
    assert [one.binding for one in both] == [BEARER, BARE]
    refused = inject([BEARER, missing, BARE], LOOKUP, nothing_offered)
    assert refused == BindingRefused(Reason.CREDENTIAL_UNAVAILABLE, missing)


def test_what_is_injected_shows_no_secret() -> None:
    found = inject([BEARER], LOOKUP, nothing_offered)

    assert isinstance(found[0], Injected)
    assert SECRET not in repr(found)
    assert "vault" in repr(found)


@given(st.text(max_size=60))
def test_nothing_that_a_worker_sends_breaks_a_header_or_brings_its_own_credential(
    offered: str,
) -> None:
    found = value(SWAPPED, offered)

    assert found is Reason.CREDENTIAL_HEADER_NOT_ALLOWED or HOLDER in offered
