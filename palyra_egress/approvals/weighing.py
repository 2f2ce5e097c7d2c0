"""Whether a policy has the approvals that it needs. Pure.

Input: the approvers, the lines of the approvals file, the policy, the policy last accepted, and
what widens relative to it (None: there is nothing to compare with, so all of it widens). Output: a
`Weighing`, which says what counts, what does not and why, and what is missing.

An approval counts if a trusted key signed it, for this digest and name, in that person's name. Only
approvals of one serial count together, each person once. The serial must be higher than that of the
policy last accepted; for the very policy that is in force already it may be the same. A change that
needs no approval takes the next serial all the same, so that approvals given before it are spent.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from palyra_egress.approvals.accepted import Accepted
from palyra_egress.approvals.approvers import Approvers
from palyra_egress.approvals.envelope import (
    APPROVAL_TYPE,
    ApprovalPayload,
    Line,
    read_payload,
)
from palyra_egress.policy.policy_diff import Change
from palyra_fleet.wire.dsse import EnvelopeRefused, open_envelope

_SHOWN_CHANGES = 5
OTHER_FILES: Final = "are for other files; a policy that was edited has to be approved again"


class Proposal(NamedTuple):
    """The policy that wants to be put in force."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True)
class LineFate:
    """What became of one line: `refused` None means that it counts, if its serial is the chosen.

    `is_elsewhere`: it is a good approval, of another policy than this.
    """

    number: int
    approval: ApprovalPayload | None
    refused: str | None
    is_elsewhere: bool = False


@dataclass(frozen=True, slots=True)
class Weighing:
    """`widening` None: nothing to compare with. `serial` is what an acceptance remembers."""

    needed: int
    lowest_serial: int
    serial: int
    approved_by: tuple[str, ...]
    widening: tuple[Change, ...] | None
    lines: tuple[LineFate, ...]

    @property
    def missing(self) -> int:
        return max(0, self.needed - len(self.approved_by))

    @property
    def is_enough(self) -> bool:
        return self.missing == 0

    @property
    def why(self) -> str:
        """Why so many are needed."""
        if self.widening is None:
            return "no policy was accepted before it, so all of it widens"
        if not self.widening:
            return "it widens nothing"
        return f"it widens in {_counted(len(self.widening), 'way')}"

    @property
    def sentence(self) -> str:
        """The whole answer in one line."""
        have = ", ".join(self.approved_by) or "nobody"
        text = (
            f"{len(self.approved_by)} of {_counted(self.needed, 'approval')} ({have}): {self.why}"
        )
        return text if self.is_enough else f"{text}; {_counted(self.missing, 'approval')} missing"

    def widening_lines(self) -> list[str]:
        """The changes that widen, the first few."""
        changes = self.widening or ()
        lines = [
            f"{change.what} [{change.file}:{change.position.line}]"
            for change in changes[:_SHOWN_CHANGES]
        ]
        more = len(changes) - _SHOWN_CHANGES
        return [*lines, f"and {more} more"] if more > 0 else lines


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _verified(line: Line, approvers: Approvers) -> ApprovalPayload | str:
    """What a trusted person signed, or why the line is nothing."""
    envelope = line.envelope
    if envelope is None or len(envelope.signatures) != 1:
        return "is no envelope with one signature"
    person = approvers.of_key(envelope.signatures[0].keyid)
    if person is None:
        return "is signed by a key that is not trusted"
    try:
        payload = read_payload(open_envelope(envelope, APPROVAL_TYPE, person.public_key))
    except EnvelopeRefused as refused:
        return f"is not believed: {refused}"
    if payload is None:
        return "is signed, and says something that is no approval"
    if payload.approver != person.name:
        return f"is signed with the key of {person.name} in the name of {payload.approver}"
    return payload


def _fate(line: Line, approvers: Approvers, proposal: Proposal, lowest_serial: int) -> LineFate:
    payload = _verified(line, approvers)
    if isinstance(payload, str):
        return LineFate(line.number, None, payload)
    if (payload.policy_digest, payload.policy_name) != (proposal.digest, proposal.name):
        return LineFate(line.number, payload, "is for other files than these", True)
    if payload.serial < lowest_serial:
        why = f"has the serial {payload.serial}, and {lowest_serial} is the lowest not used yet"
        return LineFate(line.number, payload, why)
    return LineFate(line.number, payload, None)


def _together(fates: Sequence[LineFate]) -> dict[int, dict[str, None]]:
    """Who approves, by serial: each person once, in the order of the file."""
    groups: dict[int, dict[str, None]] = {}
    for fate in fates:
        if fate.approval is not None and fate.refused is None:
            groups.setdefault(fate.approval.serial, {})[fate.approval.approver] = None
    return groups


def weigh(
    approvers: Approvers,
    lines: Sequence[Line],
    proposal: Proposal,
    accepted: Accepted | None,
    widening: tuple[Change, ...] | None,
) -> Weighing:
    """What the approvals of a policy are worth; see the module."""
    is_same = accepted is not None and accepted.digest == proposal.digest
    lowest = 1 if accepted is None else accepted.serial + (0 if is_same else 1)
    widens = widening is None or bool(widening)
    fates = tuple(_fate(line, approvers, proposal, lowest) for line in lines)
    groups = _together(fates)
    serial = max(groups, key=lambda one: (len(groups[one]), one), default=lowest)
    return Weighing(
        needed=approvers.widening if widens else approvers.narrowing,
        lowest_serial=lowest,
        serial=serial,
        approved_by=tuple(groups.get(serial, ())),
        widening=widening,
        lines=fates,
    )
