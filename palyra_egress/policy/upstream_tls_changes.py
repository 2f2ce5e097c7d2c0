"""Which requests meet their server in another way under a new policy than under the old one.

Input: two policies' models. Output: a `Minor` for each pair of rules that decide the same requests
before and after and name other roots or another client certificate, and one where rules that differ
in it meet and it is not certain which decides (`meeting_rules`). Other roots always want a look:
whoever has a CA among them can be the server, so neither the public roots nor an installation's own
are the stricter ones. A certificate that comes, or is another, lets a worker act as somebody; one
that only goes takes that away.
"""

from collections.abc import Iterator

from palyra_egress.policy.grants import Grant
from palyra_egress.policy.meeting_rules import uncertain
from palyra_egress.policy.minor_changes import Minor, decided_before_and_after
from palyra_egress.policy.schema import PolicySpec, RuleSpec


def _between(before: Grant, after: Grant) -> Iterator[Minor]:
    was, now, rule = before.rule.upstream_tls, after.rule.upstream_tls, after.rule
    if was == now:
        return
    only_goes = was.roots == now.roots and now.client_certificate is None
    what = f"{rule.rule_id}: servers are {now}; were {was}"
    if before.rule.rule_id != rule.rule_id:
        what += f" (was decided by {before.rule.rule_id})"
    yield Minor(-1 if only_goes else 1, what, rule.position, rule.rule_id, rule.file)


def _names(rule: RuleSpec) -> dict[str, str]:
    return rule.upstream_tls.named


def upstream_tls_changes(old: PolicySpec, new: PolicySpec) -> Iterator[Minor]:
    """Each change once, in the order of the rules."""
    found = [
        change for was, now in decided_before_and_after(old, new) for change in _between(was, now)
    ]
    told = {change.subject for change in found}
    for profile, rule in uncertain(old, new, _names):
        if rule.rule_id not in told:
            what = f"{profile}: which servers are {rule.upstream_tls} may be others now"
            found.append(Minor(1, what, rule.position, rule.rule_id, rule.file))
    yield from dict.fromkeys(found)
