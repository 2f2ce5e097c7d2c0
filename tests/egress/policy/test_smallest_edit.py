"""The edit that explain tells: written into the file by hand, it allows the request."""

import pytest
from hypothesis import given

from palyra_egress.policy.decide import decide
from palyra_egress.policy.explain import explain
from palyra_egress.policy.smallest_edit import Edit, smallest_edit
from palyra_egress.request import EgressRequest
from tests.egress.policy.policy_text import PUBLIC, ask, policy, request, rules
from tests.egress.policy.test_judge_properties import ANSWERS, MODES, REQUESTS, RULES

RULE = "hosts: [api.example]"
ROW = "  - {id: r0, hosts: [api.example]"
PROFILES = "profiles: {p: [r0]}"


def edit_of(before: str, asked: str, resolved: tuple[str, ...] = PUBLIC) -> Edit | None:
    given_policy = policy(before)
    verdict = ask(given_policy, asked, resolved)
    assert not verdict.allowed
    return smallest_edit(given_policy, request(asked), verdict, resolved, 0)


def text(fields: str = "", profiles: str = PROFILES, more: str = "") -> str:
    return f"rules:\n{ROW}{fields}}}\n{profiles}\n{more}"


@pytest.mark.parametrize(
    ("before", "asked", "told", "after"),
    [
        (
            text(),
            "POST https://api.example/x",
            "in rule r0: write `methods: [GET, HEAD, POST]`",
            text(", methods: [GET, HEAD, POST]"),
        ),
        (
            text(),
            "GET https://api.example:8443/x",
            "in rule r0: write `ports: [443, 8443]`",
            text(", ports: [443, 8443]"),
        ),
        (
            text(),
            "GET http://api.example/x",
            "in rule r0: write `schemes: [https, http]`",
            text(", schemes: [https, http]"),
        ),
        (
            text(", paths: [/open/**]"),
            "GET https://api.example/closed/x",
            "in rule r0: add `/closed/x` to `paths`",
            text(", paths: [/open/**, /closed/x]"),
        ),
        (
            text(),
            "GET https://api.example/a%2Fb",
            "in rule r0: write `encoded_slash: true`",
            text(", encoded_slash: true"),
        ),
        (
            text(", until: 1970-01-01T00:00:00Z"),
            "GET https://api.example/x",
            "in rule r0: give it a later `until`",
            text(", until: 2999-01-01T00:00:00Z"),
        ),
        (
            text(", limits: {max_response_bytes: 0}"),
            "GET https://api.example/x",
            "in rule r0: raise the limit that is 0",
            text(", limits: {max_response_bytes: 1KiB}"),
        ),
        (
            text(),
            "GET https://api.exampel/x",
            "in rule r0: add `api.exampel` to `hosts`",
            "rules:\n  - {id: r0, hosts: [api.example, api.exampel]}\n" + PROFILES,
        ),
        (
            text(profiles="profiles: {p: [], q: [r0]}"),
            "GET https://api.example/x",
            "add `r0` to the rules of profile p",
            text(profiles="profiles: {p: [r0], q: [r0]}"),
        ),
        (
            text(profiles="profiles: {q: [r0]}"),
            "GET https://api.example/x",
            "a new profile `p: [r0]`",
            text(profiles="profiles: {q: [r0], p: [r0]}"),
        ),
        (
            text(more="deny: [{id: d, hosts: [.example]}]"),
            "GET https://api.example/x",
            "take `.example` out of deny rule d",
            text(),
        ),
        (
            text(),
            "GET https://elsewhere.test:6379/a",
            "a new rule `{id: allow-elsewhere-test, hosts: [elsewhere.test], ports: [6379],"
            " methods: [GET], paths: [/a], acknowledge: [service_port]}`, taken into profile p",
            f"rules:\n{ROW}}}\n  - {{id: allow-elsewhere-test, hosts: [elsewhere.test],"
            " ports: [6379], methods: [GET], paths: [/a], acknowledge: [service_port]}\n"
            "profiles: {p: [r0, allow-elsewhere-test]}",
        ),
        (
            text(),
            "GET http://intranet/",
            "a new rule `{id: allow-intranet, hosts: [intranet], schemes: [http],"
            " methods: [GET], paths: [/], acknowledge: [single_label]}`, taken into profile p",
            f"rules:\n{ROW}}}\n  - {{id: allow-intranet, hosts: [intranet], schemes: [http],"
            " methods: [GET], paths: [/], acknowledge: [single_label]}\n"
            "profiles: {p: [r0, allow-intranet]}",
        ),
    ],
)
def test_what_is_told_allows_the_request_once_it_is_written(
    before: str, asked: str, told: str, after: str
) -> None:
    edit = edit_of(before, asked)
    assert edit is not None
    assert edit.text == told
    assert ask(policy(after), asked, now=1).allowed


def test_a_private_answer_asks_for_exactly_its_addresses() -> None:
    edit = edit_of(text(), "GET https://api.example/x", ("10.1.2.3",))
    assert edit is not None
    assert edit.text == "in rule r0: write `private: [10.1.2.3/32]`"
    after = policy(text(", private: [10.1.2.3/32]"))
    assert ask(after, "GET https://api.example/x", ("10.1.2.3",)).allowed
    assert not ask(after, "GET https://api.example/x", ("10.1.2.4",)).allowed


@pytest.mark.parametrize(
    ("asked", "resolved"),
    [
        ("GET https://169.254.169.254/", PUBLIC),
        ("GET https://api.example/", ("169.254.169.254",)),
        ("GET https://api.example/", ()),
    ],
)
def test_where_no_edit_helps_none_is_told(asked: str, resolved: tuple[str, ...]) -> None:
    assert edit_of(text(), asked, resolved) is None


def test_a_typing_error_is_told_as_one_with_the_owner() -> None:
    owned = policy(text(", owner: build-team"))
    found = explain(owned, request("GET https://api.exampel/x"), None, 0)
    lines = "\n".join(found.lines)
    assert "r0 at test.yaml:4 names api.example: did you mean that host?, owner build-team" in lines
    assert found.edit is not None
    assert (found.edit.file, found.edit.line) == ("test.yaml", 4)


def test_what_no_policy_can_allow_is_told_as_that() -> None:
    found = explain(policy(text()), request("GET https://169.254.169.254/"), None, 0)
    assert found.lines[-1].split(maxsplit=1)[1] == "no policy allows this"


def test_an_allowed_request_has_no_edit() -> None:
    found = explain(policy(text()), request("GET https://api.example/"), None, 0)
    assert found.edit is None
    assert not any(line.startswith("edit") for line in found.lines)


@given(RULES, MODES, REQUESTS, ANSWERS)
def test_for_every_policy_and_request_there_is_an_answer_and_the_rest_stays_as_it_was(
    items: list[str], mode: str, asked: EgressRequest, answers: list[str]
) -> None:
    given_policy = rules(*items, more=mode)
    verdict = decide(given_policy, asked, answers, 5000)
    if not verdict.allowed:
        smallest_edit(given_policy, asked, verdict, answers, 5000)
        assert decide(given_policy, asked, answers, 5000) == verdict
