"""Mirror of policy/live.py: a change is noticed, and a bad one never replaces a good policy."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.live import PassingRefusal, PolicyFile
from palyra_egress.policy.load import PolicyFiles, load_files
from tests.egress.policy.policy_text import HEAD

GOOD = f"{HEAD}profiles: {{p: []}}\n"


def test_the_first_look_gives_the_policy_and_the_second_nothing(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    live = PolicyFile(path)
    assert live.problem is not None
    policy = live.poll()
    assert policy is not None and live.policy is policy and live.problem is None
    assert live.poll() is None and live.problem is None


def test_a_bad_change_keeps_the_last_good_policy_and_says_why(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    live = PolicyFile(path)
    good = live.poll()
    path.write_text(f"{GOOD}mode: enforced\n")
    assert live.poll() is None
    assert live.policy is good
    assert live.problem is not None and "4:7: bad_value" in live.problem
    path.write_text(GOOD)
    assert live.poll() is None and live.problem is None
    path.write_text(f"{GOOD}mode: observe\n")
    changed = live.poll()
    assert changed is not None and changed.observes and live.problem is None


def test_an_empty_file_never_replaces_a_policy(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    live = PolicyFile(path)
    good = live.poll()
    path.write_text("")
    assert live.poll() is None and live.policy is good and live.problem is not None


def test_a_vanished_file_is_a_problem_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    live = PolicyFile(path)
    assert live.poll() is None and live.problem is not None and live.policy is None
    path.write_text(GOOD)
    good = live.poll()
    path.unlink()
    assert live.poll() is None and live.policy is good and live.problem is not None
    path.write_text(GOOD)
    assert live.poll() is None and live.problem is None and live.policy is good


def test_a_swapped_symlink_is_a_change(tmp_path: Path) -> None:
    first, second, link = tmp_path / "1.yaml", tmp_path / "2.yaml", tmp_path / "p.yaml"
    first.write_text(GOOD)
    second.write_text(f"{GOOD}mode: observe\n")
    link.symlink_to(first)
    live = PolicyFile(link)
    policy = live.poll()
    assert policy is not None and not policy.observes
    fresh = tmp_path / "fresh"
    fresh.symlink_to(second)
    fresh.replace(link)
    swapped = live.poll()
    assert swapped is not None and swapped.observes


def test_a_rewrite_of_the_same_size_and_time_is_noticed_by_its_inode(tmp_path: Path) -> None:
    path, other = tmp_path / "p.yaml", tmp_path / "q.yaml"
    path.write_text(f"{GOOD}mode: enforce\n")
    other.write_text(f"{GOOD}mode: observe\n")
    times = (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    live = PolicyFile(path)
    assert live.poll() is not None
    os.utime(other, ns=times)
    other.replace(path)
    policy = live.poll()
    assert policy is not None and policy.observes


def test_a_pipe_in_place_of_the_file_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_text(GOOD)
    live = PolicyFile(path)
    good = live.poll()
    path.unlink()
    os.mkfifo(path)
    assert live.poll() is None and live.policy is good
    assert live.problem is not None and "no regular file" in live.problem
    path.unlink()
    path.write_text(GOOD)
    assert live.poll() is None and live.problem is None


class Refusing:
    """A gate that refuses what it is told to, for a reason that may pass, and looks at nothing."""

    def __init__(self) -> None:
        self.refuses: set[str] = set()
        self.asked = 0

    def look(self, _paths: Iterable[Path]) -> None:
        return None

    def refusal(self, _files: PolicyFiles, policy: CompiledPolicy) -> str | None:
        self.asked += 1
        return PassingRefusal("not now") if policy.name in self.refuses else None


def test_a_text_is_compiled_once_however_often_its_gate_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[str] = []

    def counted(files: PolicyFiles) -> CompiledPolicy:
        policy = load_files(files)
        compiled.append(policy.name)
        return policy

    monkeypatch.setattr("palyra_egress.policy.live.load_files", counted)
    path, gate = tmp_path / "p.yaml", Refusing()
    path.write_text(GOOD.replace("name: test", "name: one"))
    live = PolicyFile(path, gate)
    first = live.poll()
    assert first is not None
    path.write_text(GOOD.replace("name: test", "name: two"))
    gate.refuses.add("two")
    assert [live.poll() for _ in range(4)] == [None] * 4
    assert (live.problem, gate.asked, compiled) == ("not now", 5, ["one", "two"])
    gate.refuses.clear()
    second = live.poll()
    assert second is not None and second.name == "two"
    path.write_text(GOOD.replace("name: test", "name: one"))
    assert live.poll() is not None
    assert compiled == ["one", "two", "one"]
