"""Mirror of approvals/gate.py: what comes into force, what does not, and what attackers try.

Each test saves files as people and attackers would, and asks the policy file of a running or
restarted proxy. Policies are called by the numbers of the hosts that they allow.
"""

import json
import os
from pathlib import Path

import pytest

from palyra_egress.approvals.accepted import FILE_NAME, Accepted, remember
from palyra_egress.approvals.envelope import approvals_path
from palyra_egress.approvals.gate import ApprovalGate
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.live import PolicyFile
from palyra_egress.policy.load import PolicyFiles
from palyra_fleet.wire.dsse import seal
from palyra_fleet.wire.keys import SigningKey
from tests.egress.approvals.people import Team
from tests.fakes.process_limits import without_descriptors


@pytest.fixture
def team(tmp_path: Path) -> Team:
    return Team(tmp_path)


def refused(live: PolicyFile, *words: str) -> str:
    """The policy in force stays, and the problem says these words."""
    before = live.policy
    assert live.poll() is None
    assert live.policy is before
    assert live.problem is not None
    for word in words:
        assert word in live.problem, live.problem
    return live.problem


def hosts(live: PolicyFile) -> set[str]:
    assert live.policy is not None
    return {host.text for rule in live.policy.spec.rules for host in rule.hosts}


def test_the_first_policy_needs_two_persons(team: Team) -> None:
    team.save(1)
    live = team.started()
    refused(live, "0 of 2 approvals (nobody)", "no policy was accepted before it", "2 approvals")
    assert live.policy is None
    team.approve(1, "ada")
    refused(live, "1 of 2 approvals (ada)", "1 approval missing")
    team.approve(1, "ben")
    assert live.poll() is not None and live.problem is None


def test_a_widening_needs_two_persons_and_the_refusal_says_what_widens(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada")
    refused(live, "1 of 2 approvals (ada): it widens in 1 way", "https://h2.example:443/**")
    assert hosts(live) == {"h1.example"}
    team.approve(2, "cem")
    assert live.poll() is not None and hosts(live) == {"h1.example", "h2.example"}


def test_a_narrowing_needs_one_person(team: Team) -> None:
    live = team.accepted(1, 1, 2)
    team.save(1)
    refused(live, "0 of 1 approval (nobody): it widens nothing")
    team.approve(2, "ben")
    assert live.poll() is not None, live.problem
    assert hosts(live) == {"h1.example"}


def test_where_it_is_so_configured_a_narrowing_needs_nobody_and_is_never_undone_by_one(
    team: Team,
) -> None:
    team.write_approvers(narrowing=0)
    live = team.accepted(1, 1, 2)
    team.save(1)
    assert live.poll() is not None, live.problem
    assert hosts(live) == {"h1.example"}
    team.save(1, 2)
    refused(live, "0 of 2 approvals", "has the serial 1, and 3 is the lowest not used yet")
    assert hosts(live) == {"h1.example"}


def test_approvals_given_before_an_unsigned_narrowing_are_spent_by_it(team: Team) -> None:
    team.write_approvers(narrowing=0)
    live = team.accepted(1, 1, 2)
    team.save(1, 2, 3)
    waiting = [team.envelope(name, 2) for name in ("ada", "ben")]
    team.save(1)
    assert live.poll() is not None
    team.save(1, 2, 3)
    team.add(*waiting)
    refused(live, "0 of 2 approvals")


def test_the_same_person_twice_is_one_person(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada", "ada", "ada")
    refused(live, "1 of 2 approvals (ada)")


def test_one_person_cannot_sign_in_the_name_of_another(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.add(team.envelope("ada", 2), team.envelope("ada", 2, name="ben"))
    refused(live, "1 of 2 approvals (ada)", "is signed with the key of ada in the name of ben")


def test_a_key_that_is_not_trusted_counts_for_nothing(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.keys["mal"] = SigningKey.generate()
    team.add(team.envelope("ada", 2), team.envelope("mal", 2), team.envelope("mal", 2, name="ben"))
    refused(live, "1 of 2 approvals (ada)", "is signed by a key that is not trusted")


def test_an_envelope_that_names_another_key_than_it_was_signed_with_is_not_believed(
    team: Team,
) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.keys["mal"] = SigningKey.generate()
    forged = json.loads(team.envelope("mal", 2, name="ben").model_dump_json())
    forged["signatures"][0]["keyid"] = team.keys["ben"].thumbprint
    team.approve(2, "ada")
    with team.approvals.open("a") as file:
        file.write(f"{json.dumps(forged)}\n")
    refused(live, "1 of 2 approvals (ada)", "the signature is not this key's")


def test_what_was_signed_for_another_purpose_is_no_approval(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    good = team.envelope("ben", 2)
    team.approve(2, "ada")
    kept = team.approvals.read_text()
    for kind, payload in (
        ("application/vnd.palyra.worker-attestation.v1+json", good.model_dump_json().encode()),
        ("application/vnd.palyra.policy-approval.v1+json", b'{"purpose": "something-else"}'),
    ):
        team.approvals.write_text(kept)
        team.add(seal(team.keys["ben"], kind, payload))
        refused(live, "1 of 2 approvals (ada)")


def test_an_approval_of_other_files_does_not_count(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada")
    team.add(team.envelope("ben", 2, digest="0" * 64))
    refused(live, "1 of 2 approvals (ada)", "are for other files; a policy that was edited")


def test_an_edit_after_the_approval_takes_the_approval_away(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada", "ben")
    team.policy.write_text(f"{team.policy.read_text()}# one more comment\n")
    refused(live, "0 of 2 approvals")
    assert hosts(live) == {"h1.example"}


def test_an_edit_of_an_included_file_takes_the_approval_away(team: Team) -> None:
    base = team.policy.with_name("base.yaml")
    base.write_text("version: 1\nname: base\nrules:\n  - {id: b, hosts: [b.example]}\n")
    more = "include: [base.yaml]\n"
    live = team.accepted(1, 1)
    team.save(1, more=more)
    team.approve(2, "ada", "ben")
    assert live.poll() is not None
    base.write_text(base.read_text().replace("b.example", "evil.example"))
    refused(live, "0 of 1 approval", "it widens nothing")
    team.approve(3, "ada")
    assert live.poll() is not None


def test_without_its_approvals_file_the_policy_in_force_stays_and_a_restart_refuses(
    team: Team,
) -> None:
    live = team.accepted(1, 1)
    kept = team.approvals.read_bytes()
    team.approvals.unlink()
    refused(live, "0 of 1 approval")
    assert hosts(live) == {"h1.example"}
    restarted = team.started()
    refused(restarted, "0 of 1 approval")
    assert restarted.policy is None
    team.approvals.write_bytes(kept)
    assert restarted.poll() is not None and live.poll() is None and live.problem is None


def test_an_old_approval_does_not_bring_an_old_policy_back(team: Team) -> None:
    """Wide, then narrow, then the wide file with its own approvals again, over a restart too."""
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada", "ben")
    assert live.poll() is not None
    wide, signed = team.policy.read_bytes(), team.approvals.read_bytes()
    team.save(1)
    team.approve(3, "cem")
    assert live.poll() is not None, live.problem
    assert hosts(live) == {"h1.example"}
    team.policy.write_bytes(wide)
    team.approvals.write_bytes(signed)
    refused(live, "0 of 2 approvals", "has the serial 2, and 4 is the lowest not used yet")
    restarted = team.started()
    refused(restarted, "0 of 2 approvals")
    assert restarted.policy is None


def test_going_back_to_the_policy_before_a_widening_revives_no_approval_of_the_widening(
    team: Team,
) -> None:
    """1, 12, 1 again: the approvals of 12 replaced 1 once, and never do again."""
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada", "ben")
    assert live.poll() is not None
    team.save(1)
    team.approve(3, "ada")
    assert live.poll() is not None
    team.save(1, 2)
    refused(live, "0 of 2 approvals")


def test_approvals_of_different_numbers_do_not_add_up(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada")
    team.approve(3, "ben")
    refused(live, "1 of 2 approvals (ben)")


def test_a_restart_compares_with_what_was_accepted_before_it(team: Team) -> None:
    team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada")
    restarted = team.started()
    refused(restarted, "it widens in 1 way", "h2.example")
    assert restarted.policy is None
    team.save(1)
    assert restarted.poll() is not None


def test_a_lost_memory_makes_everything_a_widening(team: Team) -> None:
    team.accepted(1, 1, 2)
    (team.state / FILE_NAME).unlink()
    team.save(1)
    team.approve(2, "ada")
    restarted = team.started()
    refused(restarted, "no policy was accepted before it, so all of it widens")
    team.approve(2, "ben")
    assert restarted.poll() is not None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{}"),
        lambda path: path.write_text(path.read_text()[:-20]),
        lambda path: path.write_text(path.read_text().replace('"serial":1', '"serial":-1')),
        lambda path: path.write_text(path.read_text().replace('"content_base64":"', "&A")),
        lambda path: path.chmod(0o644),
    ],
)
def test_a_memory_that_cannot_be_trusted_lets_nothing_new_in(team: Team, damage) -> None:
    live = team.accepted(1, 1, 2)
    damage(team.state / FILE_NAME)
    team.save(1)
    team.approve(2, "ada", "ben", "cem")
    refused(live, FILE_NAME)
    assert hosts(live) == {"h1.example", "h2.example"}


def test_a_memory_whose_files_were_exchanged_is_not_believed(team: Team) -> None:
    live = team.accepted(1, 1)
    other = Team(team.root / "other", team.keys)
    other.accepted(1, 1, 2)
    memory = json.loads((team.state / FILE_NAME).read_text())
    memory["files"] = json.loads((other.state / FILE_NAME).read_text())["files"]
    (team.state / FILE_NAME).write_text(json.dumps(memory))
    team.save(1, 2)
    team.approve(2, "ada")
    refused(live, "the digest is not that of the files in it")


def test_what_cannot_be_remembered_does_not_come_into_force(team: Team) -> None:
    live = team.accepted(1, 1)
    (team.state / f"{FILE_NAME}.new").mkdir()
    team.save(1, 2)
    team.approve(2, "ada", "ben")
    refused(live, "cannot be written")
    assert hosts(live) == {"h1.example"}


def test_the_policy_may_be_saved_before_its_approvals_or_after_them(team: Team) -> None:
    live = team.accepted(1, 1)
    new = Team(team.root / "draft", team.keys)
    new.save(1, 2)
    new.approve(2, "ada", "ben")
    team.policy.write_bytes(new.policy.read_bytes())
    refused(live, "0 of 2 approvals")
    team.add(*(new.envelope(name, 2) for name in ("ada", "ben")))
    assert live.poll() is not None and live.problem is None
    new.save(1, 2, 3)
    team.add(*(new.envelope(name, 3) for name in ("ada", "cem")))
    assert live.poll() is None and live.problem is None
    team.policy.write_bytes(new.policy.read_bytes())
    assert live.poll() is not None and live.problem is None


def test_a_person_who_left_is_not_counted_any_more(team: Team) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approve(2, "ada", "cem")
    team.write_approvers("ben", "cem")
    refused(live, "1 of 2 approvals (cem)", "is signed by a key that is not trusted")
    team.approve(2, "ben")
    assert live.poll() is not None
    team.write_approvers("ada", "ben")
    assert live.poll() is None and live.problem is None, "one who signed it is still there"


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o606])
def test_an_approvers_file_that_others_may_touch_lets_nothing_new_in(team: Team, mode: int) -> None:
    live = team.accepted(1, 1)
    team.approvers.chmod(mode)
    team.save(1, 2)
    team.approve(2, "ada", "ben")
    refused(live, "approvers.yaml", "too open")
    team.approvers.chmod(0o600)
    assert live.poll() is not None


def test_an_approvers_file_among_the_policies_is_refused(team: Team) -> None:
    team.policy.parent.joinpath("approvers.yaml").write_bytes(team.approvers.read_bytes())
    team.approvers.unlink()
    team.approvers.symlink_to(team.policy.parent / "approvers.yaml")
    team.save(1)
    team.approve(1, "ada", "ben")
    refused(team.started(), "whoever may write policies must not say who approves them")


def test_an_approvals_file_of_nonsense_counts_for_nothing_and_a_huge_one_is_refused(
    team: Team,
) -> None:
    live = team.accepted(1, 1)
    team.save(1, 2)
    team.approvals.write_bytes(b"\xff\xfe{}\n[]\nnull\n" + b"{" * 5000 + b"\n")
    refused(live, "0 of 2 approvals", "is no envelope with one signature")
    team.approvals.write_bytes(b"x" * 300_000)
    refused(live, "egress.yaml.approvals: more than")
    team.approvals.unlink()
    team.approvals.mkdir()
    refused(live, "egress.yaml.approvals: ")


def test_a_memory_that_this_version_cannot_read_as_a_policy_makes_everything_a_widening(
    team: Team,
) -> None:
    team.accepted(1, 1, 2)
    path = team.state / FILE_NAME
    remember(team.state, Accepted(1, (("", b"version: 0\nname: from-another-age\n"),), ()))
    assert path.stat().st_mode & 0o777 == 0o600
    team.save(1)
    team.approve(2, "ada")
    refused(team.started(), "so all of it widens", "1 of 2 approvals")


def test_a_pipe_in_place_of_the_approvals_holds_nobody_up(team: Team) -> None:
    team.save(1)
    os.mkfifo(approvals_path(team.policy))
    refused(team.started(), "no regular file")


class _Exhausted(ApprovalGate):
    """The gate of a proxy that has no descriptors left while it is asked."""

    is_exhausted = True

    def refusal(self, files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        if not self.is_exhausted:
            return super().refusal(files, policy)
        with without_descriptors():
            return super().refusal(files, policy)


def test_a_gate_that_had_no_descriptors_is_asked_again_though_no_file_changes(team: Team) -> None:
    team.save(1)
    team.approve(1, "ada", "ben")
    gate = _Exhausted(team.policy, team.approvers, team.state)
    live = PolicyFile(team.policy, gate)
    refused(live, "Too many open files")
    refused(live, "Too many open files")
    gate.is_exhausted = False
    assert live.poll() is not None and live.problem is None
