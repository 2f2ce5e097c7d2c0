"""What operators see of the approval rules in force. Times: Unix ms."""

from palyra_fleet.wire.models import UnixMs, WireModel


class ApprovalRuleView(WireModel):
    """A rule in force: who answers for it, until when, and what it has given."""

    rule_id: str
    owner: str
    until_unix_ms: UnixMs
    at_once: int
    most_at_once: int
    in_the_last_hour: int
    most_in_an_hour: int
    rules_sha256: str
