"""One approval: what a person signs about a policy, and the file in which approvals lie.

A signed statement (DSSE, Ed25519) says: this person approves the policy of this name and this
digest as number `serial`. The digest covers the bytes and names of all files of the policy, so an
edit after the approval is another policy. The serial grows with every change that is put in force
and is never used twice: an old approval cannot bring an old policy back. `approved_at_unix_ms` is
for people.

Approvals lie beside the policy, in `<policy file>.approvals`, one envelope a line (JSON). A line
that is no envelope is kept as it is and counts as nothing.
"""

from base64 import b64decode
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import Field, StringConstraints, ValidationError

from palyra_fleet.wire.dsse import DsseEnvelope, VerifiedPayload, seal
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import DigestSha256, Name, UnixMs, WireModel

APPROVAL_TYPE: Final = "application/vnd.palyra.policy-approval.v1+json"
PURPOSE: Final = "approve-egress-policy"
MAX_APPROVALS_BYTES: Final = 256 * 1024
MAX_APPROVALS: Final = 128
MAX_SERIAL: Final = 10**9
PolicyName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class ApprovalPayload(WireModel):
    """What is signed."""

    purpose: Literal["approve-egress-policy"]
    policy_name: PolicyName
    policy_digest: DigestSha256
    serial: Annotated[int, Field(ge=1, le=MAX_SERIAL)]
    approver: Name
    approved_at_unix_ms: UnixMs


class Line(NamedTuple):
    """One line of an approvals file; `envelope` is None if it is none. Nothing is verified yet."""

    number: int
    text: str
    envelope: DsseEnvelope | None


class TooManyApprovals(ValueError):
    """The approvals file is larger than anybody needs; nothing in it counts."""


def approvals_path(policy_file: Path) -> Path:
    """Where the approvals of a policy lie."""
    return policy_file.with_name(f"{policy_file.name}.approvals")


def sign_approval(key: SigningKey, payload: ApprovalPayload) -> DsseEnvelope:
    """The envelope that one person's key makes."""
    return seal(key, APPROVAL_TYPE, payload.model_dump_json().encode())


def read_payload(payload: VerifiedPayload) -> ApprovalPayload | None:
    """What was signed; None if the signed bytes are no approval."""
    try:
        return ApprovalPayload.model_validate_json(payload)
    except ValidationError:
        return None


def read_lines(source: bytes) -> tuple[Line, ...]:
    """The lines of an approvals file. Raises TooManyApprovals."""
    if len(source) > MAX_APPROVALS_BYTES:
        raise TooManyApprovals(f"more than {MAX_APPROVALS_BYTES} bytes")
    texts = source.decode("utf-8", "replace").split("\n")
    found = [Line(number, text, _envelope(text)) for number, text in enumerate(texts, 1) if text]
    if len(found) > MAX_APPROVALS:
        raise TooManyApprovals(f"more than {MAX_APPROVALS} approvals")
    return tuple(found)


def _envelope(text: str) -> DsseEnvelope | None:
    try:
        return DsseEnvelope.model_validate_json(text)
    except ValidationError:
        return None


def _unverified_payload(line: Line) -> ApprovalPayload | None:
    """What a line claims; good for choosing a serial, for nothing else."""
    try:
        claimed = b64decode(line.envelope.payload if line.envelope else "", validate=True)
    except ValueError:
        return None
    return read_payload(VerifiedPayload(claimed))


def next_serial(lines: Sequence[Line], policy_digest: str) -> int:
    """The serial that others gave this policy already, or the one after all that stand there."""
    claims = [claim for claim in map(_unverified_payload, lines) if claim is not None]
    same = [claim.serial for claim in claims if claim.policy_digest == policy_digest]
    return max(same) if same else 1 + max((claim.serial for claim in claims), default=0)


def with_approval(lines: Sequence[Line], fresh: DsseEnvelope, payload: ApprovalPayload) -> bytes:
    """The approvals file with one more; those of this policy and the newest others stay."""
    claims = [(line, _unverified_payload(line)) for line in lines]
    others = [
        claim.serial
        for _, claim in claims
        if claim is not None and claim.policy_digest != payload.policy_digest
    ]
    kept = [
        line.text
        for line, claim in claims
        if claim is None
        or (claim.policy_digest == payload.policy_digest and claim.approver != payload.approver)
        or (claim.policy_digest != payload.policy_digest and claim.serial == max(others))
    ]
    return "".join(f"{text}\n" for text in (*kept, fresh.model_dump_json())).encode()
