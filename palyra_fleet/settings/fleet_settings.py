"""FleetSettings: where the fleet keeps its state and which policy it follows.

`state_dir` holds the database, its lock file and the marker that says state once existed here.
`reap_every_ms` is how often deadlines are looked at; a deadline also counts when a command meets
it, so a slow reaper never lengthens anything. `retention` says how long what is finished is kept;
every `prune_every_ms` what is older is forgotten, events into archive files. `file` is what the
settings file says; without one there is no attestor but `launcher`. `approvals` is the file of
approval rules that is followed; without one every run takes an operator's approval.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.settings.approval_watch import ApprovalRuleFile
from palyra_fleet.settings.file import SettingsFile
from palyra_fleet.store.protocol import Retention


@dataclass(frozen=True, slots=True)
class FleetSettings:
    """Settings of one fleet service."""

    state_dir: Path
    policy: WorkerFleetPolicy = field(default_factory=WorkerFleetPolicy)
    reap_every_ms: int = 250
    retention: Retention = field(default_factory=Retention)
    prune_every_ms: int = 3_600_000
    file: SettingsFile = field(default_factory=SettingsFile)
    approvals: ApprovalRuleFile | None = None

    @classmethod
    def trusting(cls, state_dir: Path, capabilities: frozenset[str]) -> Self:
        """The defaults, with these capabilities believed of workers."""
        return cls(state_dir, WorkerFleetPolicy(trusted_capabilities=capabilities))

    def __post_init__(self) -> None:
        if min(self.reap_every_ms, self.prune_every_ms) < 1:
            raise ValueError("reap_every_ms and prune_every_ms must be at least 1")
