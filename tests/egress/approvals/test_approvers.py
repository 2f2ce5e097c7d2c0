"""Mirror of approvals/approvers.py: every mistake in an approvers file is told at its place."""

from pathlib import Path

import pytest

from palyra_egress.approvals.approvers import (
    ApproversFileRefused,
    read_approvers,
    read_approvers_file,
)
from palyra_egress.policy.errors import PolicyFileError
from palyra_fleet.wire.keys import SigningKey
from tests.egress.approvals.people import Team, key_base64

ONE, TWO = (key_base64(SigningKey.generate().public_key) for _ in range(2))
HEAD = "version: 1\n"
GOOD = f'approvers:\n  - {{name: ada, key: "{ONE}"}}\n  - {{name: ben, key: "{TWO}"}}\n'


def test_without_numbers_two_persons_widen_and_one_narrows() -> None:
    approvers = read_approvers(f"{HEAD}{GOOD}".encode(), "a.yaml")
    assert (approvers.widening, approvers.narrowing) == (2, 1)
    assert [person.name for person in approvers.people] == ["ada", "ben"]


SMALL_ORDER = key_base64(b"\x01" + bytes(31))
MISTAKES = [
    ("", "a.yaml:1:1: empty"),
    ("[]", "a.yaml:1:1: wrong_type"),
    (GOOD, "an approvers file has no 'version'; expected version: 1"),
    (f"{HEAD}widenning: 2\n{GOOD}", "a.yaml:2:1: unknown_key"),
    (f"{HEAD}widenning: 2\n{GOOD}", "did you mean 'widening'?"),
    (f"{HEAD}widening: 1\n{GOOD}", "a.yaml:2:11: bad_value: 'widening' is the number 1"),
    (f"{HEAD}widening: 3\n{GOOD}", "2 approvers stand here and a change that widens needs 3"),
    (f"{HEAD}narrowing: 3\n{GOOD}", "expected a whole number from 0 to 2"),
    (f"{HEAD}narrowing: -1\n{GOOD}", "expected a whole number from 0 to 2"),
    (f"{HEAD}approvers: []\n", "0 approvers stand here"),
    (f"{HEAD}approvers: [ada, ben]\n", "a.yaml:2:13: wrong_type"),
    (f"version: 2\n{GOOD}", "a.yaml:1:10: bad_value"),
    (f"{HEAD}{GOOD.replace('ben', 'ADA')}", "a.yaml:4:5: duplicate_id: the name 'ada' stands on"),
    (f"{HEAD}{GOOD.replace(TWO, ONE)}", "a.yaml:4:5: duplicate_id: the key of 'ben' stands on"),
    (f"{HEAD}{GOOD.replace(TWO, SMALL_ORDER)}", "anybody can sign with this key"),
    (f"{HEAD}{GOOD.replace(TWO, 'AAAA')}", "a.yaml:4:22: bad_value: 'key' is no public key"),
    (f"{HEAD}{GOOD.replace(TWO, '…')}", "expected base64 of the 32 bytes"),
    (f"{HEAD}{GOOD.replace('name: ben, ', '')}", "an approver has no 'name'"),
    (f"{HEAD}{GOOD.replace('key: ', 'keys: ')}", "did you mean 'key'?"),
]


@pytest.mark.parametrize(("source", "told"), MISTAKES)
def test_a_mistake_is_told_with_its_place(source: str, told: str) -> None:
    with pytest.raises(PolicyFileError) as refused:
        read_approvers(source.encode(), "a.yaml")
    assert told in str(refused.value)


def test_who_may_write_policies_says_by_no_path_who_approves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team = Team(tmp_path)
    team.policy.touch()
    policies, keys = team.policy.parent, team.approvers.parent
    (policies / "link.yaml").symlink_to(team.approvers)
    (policies / "folder").symlink_to(keys)
    (keys / "back.yaml").symlink_to(policies / "own.yaml")
    (policies / "own.yaml").write_bytes(team.approvers.read_bytes())
    (policies / "own.yaml").chmod(0o600)
    monkeypatch.chdir(policies)
    beside = Path("egress.yaml")
    for good in (team.approvers, Path("../keys/approvers.yaml"), keys / "../keys/approvers.yaml"):
        for policy in (team.policy, beside):
            assert len(read_approvers_file(good, policy).people) == 3
    for bad in (
        Path("own.yaml"),
        Path("link.yaml"),
        Path("folder/approvers.yaml"),
        Path("folder/../keys/approvers.yaml"),
        keys / "back.yaml",
        keys / "../policies/own.yaml",
    ):
        for policy in (team.policy, beside):
            with pytest.raises(ApproversFileRefused, match="with the policies"):
                read_approvers_file(bad, policy)
