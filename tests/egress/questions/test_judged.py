"""What the console is told when it asks whether something that was refused still would be."""

from typing import Any

import pytest

from palyra_egress.policy.load import load_policy
from palyra_egress.proxy.evidence import TARGET_CUT_AT
from palyra_egress.questions.judged import explained, replayed
from palyra_fleet.wire.policy_models import AskExplain, Refused, RequestDescribed
from palyra_fleet.wire.view_models import AttestedFacts

POLICY = load_policy(
    b"""version: 1
name: test
rules:
  - {id: api, hosts: [api.example], methods: [GET], owner: o, reason: r}
  - {id: facts, hosts: [api.example], owner: o, reason: r}
deny:
  - {id: never, hosts: [bad.example], reason: r}
profiles:
  coding: [api]
  proven: {rules: [facts], requires: {capabilities: [sandboxed]}}
""",
    "policy.yaml",
)
SANDBOXED = {"facts": AttestedFacts(capabilities=("sandboxed",))}
HOST = "egress.host_not_allowed"


@pytest.mark.parametrize(
    ("profile", "reason", "target", "again", "rule_id", "where", "finding"),
    [
        ("coding", HOST, "GET https://no.example:443/", "refused", None, None, HOST),
        (
            *("coding", HOST, "GET https://bad.example:443/", "refused"),
            *("never", "policy.yaml:7", "egress.host_denied"),
        ),
        (
            *("coding", HOST, "GET https://api.example:443/x", "allowed"),
            *(None, None, "rules: api (policy.yaml:4); what its name resolves to decides"),
        ),
        (
            *("coding", "egress.private_target", "GET https://api.example:443/x", "unknown"),
            *(None, None, "rules: api (policy.yaml:4); what its name resolves to decides"),
        ),
        (
            *("coding", "egress.method_not_allowed", "POST https://api.example:443/x", "refused"),
            *("api", "policy.yaml:4", "egress.method_not_allowed"),
        ),
        (
            *("coding", "egress.metadata_target", "GET http://169.254.169.254:80/", "refused"),
            *(None, None, "egress.metadata_target"),
        ),
        ("coding", HOST, "CONNECT no.example:443", "refused", None, None, HOST),
        ("gone", HOST, "GET https://api.example:443/", "refused", None, None, "profile_unknown"),
        ("proven", HOST, "GET https://api.example:443/", "unknown", None, None, "demands facts"),
        (
            *("coding", "egress.credential_leak", "POST https://api.example:443/", "unknown"),
            *(None, None, "beyond the rules"),
        ),
        ("coding", HOST, "GET", "refused", None, None, "egress.scheme_unsupported"),
        ("coding", HOST, "", "refused", None, None, "egress.scheme_unsupported"),
        ("coding", HOST, "G" * TARGET_CUT_AT, "unknown", None, None, "only the beginning"),
        ("coding", "<script>", "GET https://api.example/", "unknown", None, None, "beyond"),
    ],
)
def test_what_was_refused_is_judged_by_the_policy_in_force(
    profile: str,
    reason: str,
    target: str,
    again: str,
    rule_id: str | None,
    where: str | None,
    finding: str,
) -> None:
    answer = replayed(POLICY, Refused(profile=profile, reason=reason, target=target), 0)
    assert (answer.again, answer.rule_id, answer.where) == (again, rule_id, where), answer
    assert finding in answer.finding


def ask(profile: str, request: RequestDescribed) -> AskExplain:
    return AskExplain(profile=profile, request=request)


@pytest.mark.parametrize(
    ("profile", "request_", "allowed", "reason", "rule_id", "where"),
    [
        ("coding", {"url": "https://api.example/x"}, True, None, None, None),
        (
            *("coding", {"url": "https://api.example/x", "resolved": ("93.184.216.34",)}),
            *(True, "egress.allowed", "api", "policy.yaml:4"),
        ),
        (
            *("coding", {"url": "https://api.example/x", "resolved": ("10.0.0.1",)}),
            *(False, "egress.private_target", "api", "policy.yaml:4"),
        ),
        (
            *("coding", {"url": "https://api.example/x", "method": "POST"}),
            *(False, "egress.method_not_allowed", "api", "policy.yaml:4"),
        ),
        (
            *("coding", {"url": "bad.example:443", "method": "CONNECT"}),
            *(False, "egress.host_denied", "never", "policy.yaml:7"),
        ),
        (
            *("coding", {"url": "gopher://api.example/"}),
            *(False, "egress.scheme_unsupported", None, None),
        ),
        (
            *("proven", {"url": "https://api.example/x"}),
            *(False, "egress.profile_requirements", None, "policy.yaml:10"),
        ),
        (
            *("proven", {"url": "https://api.example/x"} | SANDBOXED),
            *(True, None, None, None),
        ),
    ],
)
def test_a_request_is_explained_as_the_judge_decides_it(
    profile: str,
    request_: dict[str, Any],
    allowed: bool,
    reason: str | None,
    rule_id: str | None,
    where: str | None,
) -> None:
    found = explained(POLICY, ask(profile, RequestDescribed(**request_)), 0)
    said = (found.allowed, found.reason, found.rule_id, found.where)
    assert said == (allowed, reason, rule_id, where), found
    assert found.steps[-1].finding


def test_an_explanation_of_a_hostile_url_fits_one_answer() -> None:
    url = "https://api.example/" + "\U0001f512" * 1_900
    found = explained(POLICY, ask("coding", RequestDescribed(url=url)), 0)
    assert len(found.model_dump_json().encode()) < 64 * 1024
