"""Lets a policy into force only when enough people signed it, and remembers which one was let in.

`ApprovalGate` is what `PolicyFile` asks. It reads the approvers file and the approvals anew each
time (both are looked at, and who may write to the first), compares the policy with the one last
accepted, and remembers the new one durably before it answers yes. Whatever cannot be read, compared
or remembered is a refusal with its reason.
"""

from collections.abc import Iterable
from pathlib import Path

from palyra_egress.approvals.accepted import Accepted, MemoryUnusable, read_accepted, remember
from palyra_egress.approvals.approvers import ApproversFileRefused, read_approvers_file
from palyra_egress.approvals.envelope import (
    MAX_APPROVALS_BYTES,
    Line,
    TooManyApprovals,
    approvals_path,
    read_lines,
)
from palyra_egress.approvals.weighing import OTHER_FILES, Proposal, Weighing, weigh
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.live import told_of
from palyra_egress.policy.load import PolicyFiles, load_sources, look
from palyra_egress.policy.policy_diff import Change, diff_policies
from palyra_fleet.trusted_files import look_at


class ApprovalsUnreadable(Exception):
    """The approvals file is there and cannot be used; the text says why."""


def read_approvals_of(policy_file: Path) -> tuple[Line, ...]:
    """The lines beside a policy; none where there is no such file. Raises ApprovalsUnreadable."""
    path = approvals_path(policy_file)
    if path.exists() and not path.is_file():
        raise ApprovalsUnreadable(f"{path}: no regular file")
    try:
        with path.open("rb") as file:
            return read_lines(file.read(MAX_APPROVALS_BYTES + 1))
    except FileNotFoundError:
        return ()
    except (OSError, TooManyApprovals) as error:
        what = error.strerror if isinstance(error, OSError) else str(error)
        raise ApprovalsUnreadable(f"{path}: {what}") from error


def widening_since(
    accepted: Accepted | None, policy: CompiledPolicy, file: Path
) -> tuple[Change, ...] | None:
    """What the policy opens that the one last accepted did not; None if they cannot be compared."""
    if accepted is None:
        return None
    if accepted.digest == policy.digest:
        return ()
    try:
        old = load_sources(accepted.sources, str(file), with_tests=False)
    except PolicyFileError:
        return None  # this version reads the language otherwise: then nothing is known of it
    return tuple(change for change in diff_policies(old.spec, policy.spec) if change.widens)


class ApprovalGate:
    """The gate of one proxy: its policy, its approvers file, its state folder."""

    def __init__(self, policy_file: Path, approvers_file: Path, state_dir: Path) -> None:
        self._policy_file = policy_file
        self._approvers_file = approvers_file
        self._state_dir = state_dir
        self.last: Weighing | None = None

    def look(self, _paths: Iterable[Path]) -> object:
        return look(approvals_path(self._policy_file)), look_at(self._approvers_file)

    def weigh(self, policy: CompiledPolicy) -> tuple[Weighing, Accepted | None]:
        """What the approvals on disk are worth for this policy. Raises as its parts do."""
        accepted = read_accepted(self._state_dir)
        weighing = weigh(
            read_approvers_file(self._approvers_file, self._policy_file),
            read_approvals_of(self._policy_file),
            Proposal(policy.name, policy.digest),
            accepted,
            widening_since(accepted, policy, self._policy_file),
        )
        return weighing, accepted

    def refusal(self, files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        """None if the policy may be in force; it is then remembered."""
        try:
            weighing, accepted = self.weigh(policy)
            self.last = weighing
            if not weighing.is_enough:
                return "\n".join([f"{self._policy_file}: {weighing.sentence}", *_details(weighing)])
            fresh = Accepted(weighing.serial, tuple(files.sources), weighing.approved_by)
            if fresh != accepted:
                remember(self._state_dir, fresh)
        except (ApproversFileRefused, ApprovalsUnreadable, MemoryUnusable) as error:
            return told_of(error)
        return None


def _details(weighing: Weighing) -> list[str]:
    """What widens, and which approvals do not count."""
    lines = [f"  widens: {line}" for line in weighing.widening_lines()]
    refused = [fate for fate in weighing.lines if fate.refused and not fate.is_elsewhere]
    lines += [f"  not counted: line {fate.number} {fate.refused}" for fate in refused[-5:]]
    elsewhere = sum(fate.is_elsewhere for fate in weighing.lines)
    if elsewhere:
        lines.append(f"  {elsewhere} of the approvals {OTHER_FILES}")
    return lines
