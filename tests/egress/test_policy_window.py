"""What the console is told when it asks whether something that was refused still would be."""

import pytest

from palyra_egress.policy.load import load_policy
from palyra_egress.policy_window import PolicyWindow, replayed
from palyra_egress.proxy.evidence import TARGET_CUT_AT
from palyra_fleet.console.policy_port import Again

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
    answer = replayed(POLICY, profile, reason, target)
    assert (answer.again, answer.rule_id, answer.where) == (Again(again), rule_id, where), answer
    assert finding in answer.finding


def test_before_the_proxy_has_started_there_is_no_answer() -> None:
    window = PolicyWindow()
    assert window.replay("coding", HOST, "GET https://api.example/") is None
