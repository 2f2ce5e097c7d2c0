"""AttestationResult: what the fleet believes after evidence and receipt were verified.

Only `attestation.verifier` makes one in the service; the ledger takes it as fact.
`binding_proxy_id` names the enrolled proxy that saw the worker's key, at `bound_at_unix_ms`, under
the policy `binding_policy_digest`. `measured`: not the worker alone speaks for its digests.
`known_until_unix_ms`: when the certificate or token ends that it, its machine or its proxy's
machine is known by. `nonce_issued_at_unix_ms`: when the fleet gave out the nonce that it is over
(None: not known). `succeeds_key_sha256`: the key that signed for this one as its next.
`labels` are the operators' (in a join token), never the worker's own.
"""

from dataclasses import dataclass
from enum import IntEnum

from palyra_fleet.wire.labels import Labels


class BindingLevel(IntEnum):
    """How well it is known that a worker's egress goes through a proxy; higher is better."""

    NONE = 0
    CLAIMED = 1
    OBSERVED = 2
    ENFORCED = 3


@dataclass(frozen=True, slots=True)
class AttestationResult:
    """A verified worker: who it is, what it runs, with which key, through which proxy; who vouched,
    and the paired device it came from (None: this machine)."""

    worker_id: str
    evidence_identity: str
    public_key: bytes
    key_sha256: str
    image_digest_sha256: str
    build_digest_sha256: str
    artifact_digest_sha256: str
    supported_capabilities: frozenset[str]
    evidence_until_unix_ms: int
    evidence_sha256: str
    binding_level: BindingLevel
    binding_proxy_id: str
    bound_at_unix_ms: int
    launcher_sha256: str | None = None
    device_id: str | None = None
    binding_policy_digest: str = ""
    evidence_kind: str = "launcher"
    measured: bool = True
    credential_issued_at_unix_ms: int | None = None
    known_until_unix_ms: int | None = None
    labels: Labels = ()
    nonce_issued_at_unix_ms: int | None = None
    succeeds_key_sha256: str | None = None
