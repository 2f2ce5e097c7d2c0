"""What an audit entry holds, kind by kind. Pure.

`verdict`: one per decision, written before it is released. `transfer`: the end of an allowed
exchange or tunnel. `revoked`: one that is open was judged again and cut. `receipt`: the proxy
vouched for a worker's key. `policy`: another policy came into force while the proxy ran, and what
it opens. `unanswered`: strangers that were cut off without a verdict, counted. `recovered` is the
log's own. No entry holds a secret, and a query string only where the deciding rule wants it. Times
are Unix milliseconds (`_unix_ms`), lengths of time milliseconds (`_ms`), sizes bytes.
"""

from typing import Final

from palyra_egress.audit.chain import AuditFields
from palyra_egress.credentials.binding import CredentialBinding
from palyra_egress.credentials.request_scan import Leak
from palyra_egress.facts import DIGEST_NAMES, AttestedFacts, write_digest
from palyra_egress.policy.policy_diff import PolicyChange
from palyra_egress.reasons import Reason, row
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import Verdict

MAX_TARGET: Final = 2048
MAX_WIDENING: Final = 20


def who_fields(requester: Requester | None) -> AuditFields:
    """The identity an entry stands under, or none."""
    if requester is None:
        return {"worker_id": None, "lease_id": None, "run_id": None, "profile": None}
    return {
        "worker_id": requester.worker_id,
        "lease_id": requester.lease_id,
        "run_id": requester.run_id,
        "profile": requester.profile,
    }


def fact_fields(facts: AttestedFacts) -> AuditFields:
    """What was known about the worker when it was judged: digests where they were known."""
    digests = {name: getattr(facts, name) for name in DIGEST_NAMES}
    return {
        "binding_level": facts.binding_level.word,
        "capabilities": sorted(facts.capabilities),
        **{name: write_digest(digest) for name, digest in digests.items() if digest is not None},
    }


def verdict_entry(
    verdict: Verdict,
    request: EgressRequest,
    addresses: tuple[str, ...],
    decision_id: str,
    at_unix_ms: int,
    judged_in_ms: int,
    credentials: tuple[CredentialBinding, ...] = (),
    leak: Leak | None = None,
    headed_for: str | None = None,
) -> AuditFields:
    """A decision about a canonical request; `addresses` is the whole answer that was judged,
    `credentials` what the request leaves with, or what could not be added, `leak` what was found
    leaving, `headed_for` the destination that a redirected connection had. The request is redacted
    already."""
    named: AuditFields = {"credentials": [str(one) for one in credentials]} if credentials else {}
    if verdict.log_query and verdict.allowed and request.query:
        named["query"] = request.query[:MAX_TARGET]
    tls = verdict.upstream_tls
    met = {"upstream_roots": tls.roots, "client_certificate": tls.client_certificate}
    named |= {key: name for key, name in met.items() if name is not None}
    if headed_for is not None:
        named["headed_for"] = headed_for
    if leak is not None:
        named["found_in"] = leak.place
        named["found"] = None if leak.finding is None else leak.finding.name
        named["found_as"] = None if leak.finding is None else leak.finding.form
    return {
        "kind": "verdict",
        "at_unix_ms": at_unix_ms,
        "decision_id": decision_id,
        "effect": verdict.effect.value,
        "reason": verdict.reason.value,
        "class": verdict.reason_class.value,
        "would_deny": verdict.would_deny.value if verdict.would_deny is not None else None,
        "method": request.method,
        "target": request.url[:MAX_TARGET],
        "host": request.host,
        "port": request.port,
        "rule_id": verdict.rule_id,
        "policy_file": verdict.policy_file,
        "policy_line": verdict.line,
        "policy_digest": verdict.policy_digest,
        "fingerprint": verdict.fingerprint,
        "addresses": list(addresses),
        "consequence": verdict.consequence.value,
        "judged_in_ms": judged_in_ms,
        **named,
        **who_fields(request.requester),
        **fact_fields(request.requester.facts),
    }


def early_entry(
    reason: Reason,
    requester: Requester | None,
    decision_id: str,
    policy_digest: str,
    at_unix_ms: int,
) -> AuditFields:
    """A refusal before there was a canonical request."""
    return {
        "kind": "verdict",
        "at_unix_ms": at_unix_ms,
        "decision_id": decision_id,
        "effect": "deny",
        "reason": reason.value,
        "class": row(reason).reason_class.value,
        "early": True,
        "policy_digest": policy_digest,
        **who_fields(requester),
    }


def revoked_entry(
    decision_id: str, reason: Reason, verdict: Verdict, request: EgressRequest, at_unix_ms: int
) -> AuditFields:
    """What was allowed and is open is cut, because the policy in force does not give it any more.
    `decision_id` is the decision that no longer holds."""
    return {
        "kind": "revoked",
        "at_unix_ms": at_unix_ms,
        "decision_id": decision_id,
        "reason": reason.value,
        "class": row(reason).reason_class.value,
        "method": request.method,
        "target": request.url[:MAX_TARGET],
        "rule_id": verdict.rule_id,
        "policy_file": verdict.policy_file,
        "policy_line": verdict.line,
        "policy_digest": verdict.policy_digest,
        **who_fields(request.requester),
    }


def transfer_entry(
    decision_id: str,
    outcome: str,
    request_bytes: int,
    response_bytes: int,
    duration_ms: int,
    at_unix_ms: int,
    frames: tuple[int, int] | None = None,
) -> AuditFields:
    """The end of an allowed exchange: bytes each way, duration, how it ended; `frames` each way
    where a WebSocket was asked for."""
    counted = {} if frames is None else {"request_frames": frames[0], "response_frames": frames[1]}
    return {
        "kind": "transfer",
        "at_unix_ms": at_unix_ms,
        "decision_id": decision_id,
        "outcome": outcome,
        "request_bytes": request_bytes,
        "response_bytes": response_bytes,
        "duration_ms": duration_ms,
        **counted,
    }


def receipt_entry(worker_key_sha256: str, policy_digest: str, at_unix_ms: int) -> AuditFields:
    """The proxy vouched that it saw this key."""
    return {
        "kind": "receipt",
        "at_unix_ms": at_unix_ms,
        "worker_key_sha256": worker_key_sha256,
        "policy_digest": policy_digest,
    }


def policy_entry(change: PolicyChange, at_unix_ms: int) -> AuditFields:
    """Another policy comes into force; the first few of what it opens are told, all are counted."""
    return {
        "kind": "policy",
        "at_unix_ms": at_unix_ms,
        "policy_digest": change.digest,
        "replaces_digest": change.replaces_digest,
        "widens": len(change.widening),
        "widening": [text[:MAX_TARGET] for text in change.widening[:MAX_WIDENING]],
    }


def unanswered_entry(connections: int, at_unix_ms: int) -> AuditFields:
    """How many strangers were cut off without an answer since the last such entry."""
    return {"kind": "unanswered", "at_unix_ms": at_unix_ms, "connections": connections}
