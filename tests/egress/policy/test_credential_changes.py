"""Mirror of policy/credential_changes.py: no credential comes, goes or changes unseen."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.policy_diff import Change, ChangeKind, diff_policies
from tests.egress.policy.policy_text import ask, rules

PLAIN = "hosts: [a.example]"
BEARER = "{header: authorization, secret: 'vault:global/a', format: 'Bearer {secret}'}"
OTHERS = {
    "another secret": BEARER.replace("global/a", "global/b"),
    "another source": BEARER.replace("vault:global/a", "file:a"),
    "another form": BEARER.replace("Bearer", "token"),
    "another user": BEARER.replace("}'}", "}', basic_user: me}"),
    "a placeholder": BEARER.replace("}'}", "}', placeholder: goes-here-please}"),
}


def with_credentials(*texts: str) -> CompiledPolicy:
    return rules(f"{PLAIN}, credentials: [{', '.join(texts)}]")


def changes(old: CompiledPolicy, new: CompiledPolicy) -> tuple[Change, ...]:
    return diff_policies(old.spec, new.spec)


def test_a_credential_that_comes_widens_and_names_header_and_secret() -> None:
    found = changes(rules(PLAIN), with_credentials(BEARER))

    assert [change.kind for change in found] == [ChangeKind.CREDENTIALS]
    assert found[0].widens
    assert "r0: now adds authorization from vault:global/a as 'Bearer {secret}'" in found[0].what
    assert found[0].subject == "r0"


def test_a_credential_that_goes_lets_the_workers_own_value_pass_and_is_told() -> None:
    found = changes(with_credentials(BEARER), rules(PLAIN))

    assert [change.kind for change in found] == [ChangeKind.CREDENTIALS]
    assert "no longer adds authorization" in found[0].what
    assert "the worker's own authorization passes" in found[0].what


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_any_change_of_a_credential_is_told_both_ways(other: str) -> None:
    for old, new in ((BEARER, other), (other, BEARER)):
        found = changes(with_credentials(old), with_credentials(new))
        assert [change.kind for change in found] == [ChangeKind.CREDENTIALS]
        assert "→" in found[0].what


def test_the_order_of_credentials_and_the_case_of_a_header_mean_nothing() -> None:
    key = "{header: x-key, secret: 'env:KEY'}"
    old = with_credentials(BEARER, key)
    new = with_credentials(key.replace("x-key", "X-Key"), BEARER)

    assert changes(old, new) == ()


def test_a_new_rule_tells_which_credentials_it_carries() -> None:
    new = rules(PLAIN, f"hosts: [b.example], credentials: [{BEARER}]")

    found = changes(rules(PLAIN), new)

    told = [change.what for change in found if change.kind is ChangeKind.NEWLY_ALLOWED]
    assert told
    assert all("carrying authorization from vault:global/a" in what for what in told)


def test_a_more_specific_rule_that_takes_over_with_a_credential_is_told() -> None:
    old = rules("hosts: [.a.example]")
    new = rules("hosts: [.a.example]", f"hosts: [api.a.example], credentials: [{BEARER}]")

    found = changes(old, new)

    assert [change.kind for change in found] == [ChangeKind.CREDENTIALS]
    assert "r1: now adds" in found[0].what
    assert "(was decided by r0)" in found[0].what


def test_a_rule_that_only_stepped_in_front_is_missed_when_it_goes() -> None:
    old = rules(
        f"hosts: [a.test], paths: ['/*/z'], credentials: [{BEARER}]",
        "hosts: [a.test], paths: ['/y/*']",
    )
    new = rules(f"hosts: [a.test], paths: ['/*/z'], credentials: [{BEARER}]")
    assert not ask(old, "GET https://a.test/y/z").credentials
    assert ask(new, "GET https://a.test/y/z").credentials

    told = [change.what for change in changes(old, new) if change.widens]

    assert told == ["p: which requests carry authorization from vault:global/a may be others now"]


_ITEMS = st.lists(
    st.sampled_from(
        [
            f"hosts: [{host}], paths: [{path}]{credentials}{until}"
            for host in ("a.test", ".a.test", "'*.a.test'")
            for path in ("/x", "/*", "/**", "/*/z", "/y/*")
            for credentials in ("", f", credentials: [{BEARER}]", ", credentials: []")
            for until in ("", ", until: 2000-01-01T00:00:00Z")
        ]
    ),
    max_size=3,
)


@given(_ITEMS, _ITEMS)
def test_where_no_change_is_told_no_request_carries_another_credential(
    before: list[str], after: list[str]
) -> None:
    old, new = rules(*before), rules(*after)
    if any(change.widens for change in changes(old, new)):
        return
    for host in ("a.test", "b.a.test"):
        for path in ("/x", "/y", "/y/z"):
            for now in (0, 1_000_000_000_000):
                was = ask(old, f"GET https://{host}{path}", now=now)
                is_now = ask(new, f"GET https://{host}{path}", now=now)
                if is_now.allowed:
                    assert [one.secret for one in was.credentials] == [
                        one.secret for one in is_now.credentials
                    ]
