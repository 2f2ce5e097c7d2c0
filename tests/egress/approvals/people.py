"""People with keys, the approvers file that names them, and policies for them to approve."""

import base64
from dataclasses import dataclass, field
from pathlib import Path

from palyra_egress.approvals.envelope import (
    PURPOSE,
    ApprovalPayload,
    approvals_path,
    sign_approval,
)
from palyra_egress.approvals.gate import ApprovalGate
from palyra_egress.policy.live import PolicyFile
from palyra_egress.policy.load import load_policy_file
from palyra_fleet.wire.dsse import DsseEnvelope
from palyra_fleet.wire.keys import SigningKey
from tests.egress.policy.policy_text import HEAD

RULE = "  - {{id: r{0}, hosts: [h{0}.example], owner: o, reason: because}}\n"


def text(*hosts: int, more: str = "") -> str:
    """A policy that allows these numbered hosts."""
    rules = "".join(RULE.format(number) for number in hosts)
    ids = ", ".join(f"r{number}" for number in hosts)
    return f"{HEAD}rules:{' []' if not hosts else ''}\n{rules}profiles: {{p: [{ids}]}}\n{more}"


def key_base64(public_key: bytes) -> str:
    return base64.b64encode(public_key).decode()


@dataclass
class Team:
    """Three people; policy, approvers and the proxy's state each in a folder of their own."""

    root: Path
    keys: dict[str, SigningKey] = field(
        default_factory=lambda: {name: SigningKey.generate() for name in ("ada", "ben", "cem")}
    )

    def __post_init__(self) -> None:
        for name in ("policies", "keys", "state"):
            (self.root / name).mkdir(mode=0o700, parents=True)
        self.write_approvers()

    @property
    def policy(self) -> Path:
        return self.root / "policies" / "egress.yaml"

    @property
    def approvals(self) -> Path:
        return approvals_path(self.policy)

    @property
    def approvers(self) -> Path:
        return self.root / "keys" / "approvers.yaml"

    @property
    def state(self) -> Path:
        return self.root / "state"

    def write_approvers(self, *names: str, widening: int = 2, narrowing: int = 1) -> None:
        rows = "".join(
            f'  - {{name: {name}, key: "{key_base64(self.keys[name].public_key)}"}}\n'
            for name in names or self.keys
        )
        head = f"version: 1\nwidening: {widening}\nnarrowing: {narrowing}\napprovers:\n"
        self.approvers.write_text(head + rows)
        self.approvers.chmod(0o600)

    def envelope(
        self, signer: str, serial: int, *, name: str | None = None, digest: str | None = None
    ) -> DsseEnvelope:
        """`signer` approves the policy as it is on disk, in the name of `name`."""
        if digest is None:
            digest = load_policy_file(self.policy, with_tests=False).digest
        payload = ApprovalPayload(
            purpose=PURPOSE,
            policy_name="test",
            policy_digest=digest,
            serial=serial,
            approver=name or signer,
            approved_at_unix_ms=1_000,
        )
        return sign_approval(self.keys[signer], payload)

    def add(self, *envelopes: DsseEnvelope) -> None:
        with self.approvals.open("a") as file:
            file.writelines(f"{envelope.model_dump_json()}\n" for envelope in envelopes)

    def approve(self, serial: int, *names: str) -> None:
        """These people approve the policy on disk."""
        self.add(*(self.envelope(name, serial) for name in names))

    def save(self, *hosts: int, more: str = "") -> None:
        self.policy.write_text(text(*hosts, more=more))

    def started(self) -> PolicyFile:
        """The policy file of a proxy that starts now."""
        return PolicyFile(self.policy, ApprovalGate(self.policy, self.approvers, self.state))

    def accepted(self, serial: int, *hosts: int) -> PolicyFile:
        """A running proxy whose policy of these hosts ada and ben approved."""
        self.save(*hosts)
        self.approve(serial, "ada", "ben")
        live = self.started()
        assert live.poll() is not None, live.problem
        return live
