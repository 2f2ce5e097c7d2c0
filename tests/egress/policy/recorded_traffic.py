"""Audit entries as the proxy writes them, for the tests that hold policies against traffic."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from palyra_egress.audit.chain import AuditFields, ChainHead, link
from palyra_egress.audit.entries import verdict_entry
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.request import Requester
from palyra_egress.verdict import NeedsResolution
from tests.egress.policy.policy_text import PUBLIC, request


def entry(
    policy: CompiledPolicy,
    text: str,
    *,
    profile: str = "p",
    resolved: Sequence[str] = PUBLIC,
    at: int = 1000,
) -> AuditFields:
    """What the proxy records of one request under a policy, made by the proxy's own function."""
    asked = request(text, Requester("worker-1", "lease-1", profile, "run-1"))
    answer = precheck(policy, asked, at)
    addresses: tuple[str, ...] = ()
    if isinstance(answer, NeedsResolution):
        addresses = tuple(resolved)
        answer = decide(policy, asked, addresses, at)
    return verdict_entry(answer, asked, addresses, "decision-1", at, 0)


def early(reason: str = "egress.no_identity") -> AuditFields:
    """A refusal before there was a request."""
    return {"kind": "verdict", "at_unix_ms": 1, "effect": "deny", "reason": reason, "early": True}


def write_log(path: Path, entries: Iterable[AuditFields]) -> Path:
    """A chained log, as the audit log writes it."""
    head = ChainHead()
    with path.open("wb") as file:
        for fields in entries:
            line, head = link(head, fields)
            file.write(line)
    return path
