"""What names a secret, what holds one, and what a bound header looks like."""

import copy
import json
import logging
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.binding import (
    SECRET_EXAMPLES,
    SECRET_REF_PATTERN,
    CredentialBinding,
    NoSecrets,
    SecretLookup,
    SecretRef,
    SecretRefRefused,
    SecretSource,
    SecretValue,
    secret_problem,
)

SECRET = "ghp_this-is-the-secret"
REF = SecretRef(SecretSource.VAULT, "global/github_token")


@pytest.mark.parametrize("text", SECRET_EXAMPLES.values())
def test_a_reference_reads_as_it_is_written(text: str) -> None:
    ref = SecretRef.parse(text)

    assert str(ref) == text
    assert SecretRef.parse(str(ref)) == ref


def test_there_is_an_example_for_every_source() -> None:
    assert {SecretRef.parse(text).source for text in SECRET_EXAMPLES.values()} == set(SecretSource)


BAD_REFS = {
    "": "no secret source",
    "github_token": "no secret source",
    "valt:global/github_token": "no such secret source",
    "VAULT:global/github_token": "no such secret source",
    "vault:": "no name",
    "vault:/global": "no name",
    "vault:global//token": "no name",
    "vault:global/": "no name",
    "vault:../../etc/passwd": "no name",
    "vault:global/..": "no name",
    "vault:global/token\n": "no name",
    "vault: global/token": "no name",
    "file:/etc/passwd": "no name",
    "file:.hidden": "no name",
    "file:a/../b": "no name",
    "file:a\\b": "no name",
    "file:caf\u00e9": "no name",
    "env:1ST": "no name",
    "env:A-B": "no name",
    "env:A=B": "no name",
    "kv:secret": "no name",
    "kv:secret/team": "no name",
    "kv:secret#token": "no name",
    "kv:secret/team#": "no name",
    "kv:secret/team#a#b": "no name",
    "kv:secret/../team#a": "no name",
    "kv:secret/%2e%2e/team#a": "no name",
    "vault:" + "a/" * 300 + "a": "long",
}


@pytest.mark.parametrize(("text", "why"), BAD_REFS.items())
def test_what_names_no_secret_is_refused_and_told_what_does(text: str, why: str) -> None:
    with pytest.raises(SecretRefRefused, match=why) as refused:
        SecretRef.parse(text)

    assert refused.value.expected


def test_a_misspelt_source_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(SecretRefRefused) as refused:
        SecretRef.parse("valt:global/github_token")

    assert refused.value.suggestion == SECRET_EXAMPLES[SecretSource.VAULT]


@given(st.text(max_size=40))
def test_the_pattern_for_editors_accepts_what_the_reader_accepts(text: str) -> None:
    pattern = re.compile(SECRET_REF_PATTERN, re.ASCII)
    try:
        SecretRef.parse(text)
    except SecretRefRefused:
        assert pattern.fullmatch(text) is None
    else:
        assert pattern.fullmatch(text) is not None


@pytest.mark.parametrize("before", ["", "vault:", "env:", "kv:", "valt:"])
def test_a_secret_written_where_its_name_belongs_is_not_repeated(before: str) -> None:
    with pytest.raises(SecretRefRefused) as refused:
        SecretRef.parse(f"{before}/{SECRET}")

    assert "ghp" not in f"{refused.value} {refused.value.detail} {refused.value.suggestion}"


def test_a_secret_shows_itself_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    secret = SecretValue(SECRET)
    with caplog.at_level(logging.INFO):
        logging.getLogger("test").info("held %s %r", secret, (secret,))

    shown = [repr(secret), str(secret), f"{secret}", f"{secret:>40}", "%s" % secret, caplog.text]  # noqa: UP031
    assert not [text for text in shown if "ghp" in text]
    assert secret.reveal() == SECRET
    assert not hasattr(secret, "__dict__")


def test_a_secret_is_neither_pickled_copied_nor_written_as_json() -> None:
    secret = SecretValue(SECRET)
    for leave in (pickle.dumps, copy.copy, copy.deepcopy, json.dumps):
        with pytest.raises(TypeError) as refused:
            leave(secret)
        assert SECRET not in str(refused.value)


def test_secrets_compare_by_value_and_have_no_hash() -> None:
    assert SecretValue(SECRET) == SecretValue(SECRET)
    assert SecretValue(SECRET) != SecretValue(SECRET + "x")
    assert SecretValue(SECRET) != SECRET
    with pytest.raises(TypeError):
        hash(SecretValue(SECRET))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "short12",
        "x" * 20_000,
        "with\nline-end",
        "line-end-last\n",
        "with\rreturn",
        "with\0nul--",
        "tab\tinside",
        " space-first",
        "space-last ",
        "delete\x7f-inside",
        "\u00fcber-geheim",
        "lone\ud800surrogate",
    ],
)
def test_what_could_break_a_header_is_no_secret(text: str) -> None:
    problem = secret_problem(text)

    assert problem is not None
    assert not text or text not in problem


def test_printable_ascii_is_a_secret() -> None:
    assert secret_problem(SECRET) is None
    assert secret_problem("session=1; theme=dark") is None


def test_a_bound_header_has_the_form_of_its_binding() -> None:
    bearer = CredentialBinding("authorization", REF, prefix="Bearer ")
    basic = CredentialBinding("authorization", REF, basic_user="x-access-token")
    bare = CredentialBinding("x-api-key", REF)

    assert bearer.value_of("s3cret") == "Bearer s3cret"
    assert basic.value_of("s3cret") == "Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0"
    assert bare.value_of("s3cret") == "s3cret"
    assert [b.has_form for b in (bearer, basic, bare)] == [True, True, False]
    assert str(bearer) == "authorization from vault:global/github_token"


def test_without_secrets_every_binding_is_unavailable() -> None:
    lookup: SecretLookup = NoSecrets()

    assert lookup.get(REF) is None
    assert list(lookup.values()) == []
    assert lookup.allowed == frozenset(SecretSource)
    assert lookup.version == NoSecrets().version
