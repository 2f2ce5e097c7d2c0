"""Refusals as lines of the proxy's log, under the decision id that the worker is told.

A refusal that costs the worker something is a warning, every other one is information: the audit
log has all of them, with the target, which is never written here. Nothing of a request is.
"""

import logging

from palyra_egress.reasons import Reason
from palyra_egress.request import Requester
from palyra_egress.verdict import Consequence, Verdict
from palyra_fleet.logs.fields import Field, Value, told

_log = logging.getLogger(__name__)


def log_refusal(
    verdict: Verdict, who: Requester, decision_id: str, trace_id: str | None = None
) -> None:
    """One line about a refused canonical request."""
    costs = verdict.consequence is not Consequence.NONE
    level = logging.WARNING if costs else logging.INFO
    if not _log.isEnabledFor(level):
        return
    fields: dict[Field, Value | None] = {
        **_of(verdict.reason, who, decision_id),
        Field.CONSEQUENCE: verdict.consequence.value,
        Field.RULE_ID: verdict.rule_id,
        Field.POLICY_FILE: verdict.policy_file,
        Field.POLICY_LINE: verdict.line,
        Field.POLICY_DIGEST: verdict.policy_digest,
        Field.TRACE_ID: trace_id,
    }
    what = "a violation was refused" if costs else "a request was refused"
    _log.log(level, "%s: %s", what, verdict.reason.value, extra=told(fields))


def log_early_refusal(reason: Reason, who: Requester | None, decision_id: str) -> None:
    """One line about what was refused before there was a request."""
    if _log.isEnabledFor(logging.INFO):
        fields = _of(reason, who, decision_id)
        _log.info("refused before a request: %s", reason.value, extra=told(fields))


def _of(reason: Reason, who: Requester | None, decision_id: str) -> dict[Field, Value | None]:
    return {
        Field.ACTION: "request-refused",
        Field.REASON: reason.value,
        Field.DECISION_ID: decision_id,
        Field.WORKER_ID: None if who is None else who.worker_id,
        Field.LEASE_ID: None if who is None else who.lease_id,
        Field.RUN_ID: None if who is None else who.run_id or None,
        Field.PROFILE: None if who is None else who.profile,
    }
