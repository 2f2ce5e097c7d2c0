"""A policy whose files everybody on the machine may write is not in force."""

from pathlib import Path

import pytest

from palyra_egress.policy.errors import PolicyFileError, Problem, ProblemCode
from palyra_egress.policy.live import PolicyFile
from palyra_egress.policy.load import PolicyFiles
from palyra_egress.proxy.writers_gate import WritersGate
from palyra_fleet.strict_yaml.document import Position
from tests.egress.policy.policy_text import HEAD

OUTER = f"{HEAD}include: [parts/rules.yaml]\nprofiles: {{p: []}}\n"
PART = "version: 1\nname: part\nrules: []\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    outer, part = tmp_path / "p.yaml", tmp_path / "parts" / "rules.yaml"
    part.parent.mkdir(mode=0o775)
    outer.write_text(OUTER)
    part.write_text(PART)
    return outer, part


@pytest.mark.parametrize("which", ["outer", "part", "folder"])
def test_what_everybody_may_write_is_not_in_force_until_it_is_mended(
    files: tuple[Path, Path], which: str
) -> None:
    outer, part = files
    entry = {"outer": outer, "part": part, "folder": part.parent}[which]
    usual = entry.stat().st_mode & 0o777
    entry.chmod(0o777)
    live = PolicyFile(outer, WritersGate())
    assert live.poll() is None and live.policy is None
    assert live.problem is not None and "mode 777" in live.problem
    assert live.problem.endswith(f"run: chmod o-w {entry}")
    entry.chmod(usual)
    assert live.poll() is not None and live.problem is None


def test_one_that_becomes_writable_is_told_and_the_last_good_policy_stays(
    files: tuple[Path, Path],
) -> None:
    outer, part = files
    live = PolicyFile(outer, WritersGate())
    good = live.poll()
    part.write_text(f"{PART}deny: []\n")
    part.chmod(0o666)
    assert live.poll() is None and live.policy is good
    assert live.problem is not None and "lets everybody write to it" in live.problem
    part.chmod(0o664)
    changed = live.poll()
    assert changed is not None and changed is not good


def test_a_folder_on_the_way_to_what_is_included_is_not_everybodys_either(tmp_path: Path) -> None:
    """Who can write there puts another folder in the place of the one that is included from."""
    outer, part = tmp_path / "p.yaml", tmp_path / "teams" / "a" / "rules.yaml"
    part.parent.mkdir(parents=True)
    part.write_text(PART)
    outer.write_text(OUTER.replace("parts/rules.yaml", "teams/a/rules.yaml"))
    (tmp_path / "teams").chmod(0o777)
    live = PolicyFile(outer, WritersGate())
    assert live.poll() is None
    assert live.problem is not None
    assert live.problem.endswith(f"run: chmod o-w {tmp_path / 'teams'}")
    (tmp_path / "teams").chmod(0o755)
    assert live.poll() is not None


@pytest.mark.parametrize("which", ["outer", "part", "folder"])
def test_what_becomes_writable_to_everybody_is_told_though_no_text_has_changed(
    files: tuple[Path, Path], which: str
) -> None:
    outer, part = files
    entry = {"outer": outer, "part": part, "folder": part.parent}[which]
    usual = entry.stat().st_mode & 0o777
    live = PolicyFile(outer, WritersGate())
    good = live.poll()
    assert good is not None
    entry.chmod(0o777)
    assert live.poll() is None and live.policy is good
    assert live.problem is not None
    assert live.problem.endswith(f"run: chmod o-w {entry}")
    entry.chmod(usual)
    assert live.poll() is None and live.policy is good, "nothing new is put in force"
    assert live.problem is None


def test_a_folder_behind_a_link_on_the_way_is_looked_at_too(tmp_path: Path) -> None:
    outer, real = tmp_path / "p.yaml", tmp_path / "real"
    (real / "a").mkdir(parents=True)
    (tmp_path / "teams").symlink_to("real")
    (real / "a" / "rules.yaml").write_text(PART)
    outer.write_text(OUTER.replace("parts/rules.yaml", "teams/a/rules.yaml"))
    live = PolicyFile(outer, WritersGate())
    good = live.poll()
    assert good is not None
    real.chmod(0o777)
    assert live.poll() is None and live.policy is good
    assert live.problem is not None
    assert live.problem.endswith(f"run: chmod o-w {tmp_path / 'teams'}")
    real.chmod(0o755)
    assert live.poll() is None and live.problem is None


def test_what_could_not_be_read_is_read_again_though_all_is_as_it_was(
    files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    outer, part = files
    usual = part.parent.stat().st_mode & 0o777
    live = PolicyFile(outer, WritersGate())
    good = live.poll()
    part.parent.chmod(0o777)
    with monkeypatch.context() as patched:
        patched.setattr("palyra_egress.policy.live.read_files", no_descriptors_left)
        assert live.poll() is None
    assert live.problem is not None and "Too many open files" in live.problem
    part.parent.chmod(usual)
    assert live.poll() is None and live.policy is good
    assert live.problem is None


def no_descriptors_left(path: Path, file: str) -> PolicyFiles:
    what = "Too many open files"
    raise PolicyFileError([Problem(file, Position(), ProblemCode.UNREADABLE, what, "a file")])
