"""The guards are changed in the suite, too: two modules of them; and what is accepted still exists.

All of them are `make mutants`.
"""

import subprocess
import sys
from pathlib import Path

from tests.fleet.mutation.__main__ import accepted_of_no_mutant
from tests.fleet.mutation.accepted import ACCEPTED, ENDLESS
from tests.fleet.mutation.mutants import ROOT, mutants_of

SOURCE = """
def guard(a, b):
    if not a or b <= 1 < a:
        return min(a, b)
    return a if a is None else b

class Ledger:
    @property
    def empty(self):
        return [one for one in self.all if one]
"""
OF_SOURCE = """\
guard: not a or b <= 1 < a -> b <= 1 < a
guard: not a or b <= 1 < a -> not a
guard: not a or b <= 1 < a -> True
guard: not a -> a
guard: b <= 1 < a -> b < 1 < a
guard: b <= 1 < a -> b <= 1 <= a
guard: min(a, b) -> b
guard: min(a, b) -> a
guard: a is None -> True
guard: a is None -> False
Ledger.empty: one -> True
Ledger.empty: one -> False
"""


def test_each_part_of_each_guard_is_changed_by_itself(tmp_path: Path) -> None:
    source = tmp_path / "sample.py"
    source.write_text(SOURCE)
    names = [mutant.key.removeprefix("sample.") for mutant in mutants_of(source, tmp_path)]
    assert sorted(names) == sorted(OF_SOURCE.splitlines())


def test_a_mutant_does_what_its_name_says(tmp_path: Path) -> None:
    source = tmp_path / "sample.py"
    source.write_text("def late(now, end):\n    return now >= end\n")
    (mutant,) = mutants_of(source, tmp_path)
    space: dict[str, object] = {}
    exec(source.read_text(), space)
    late = space["late"]
    assert callable(late) and late(2, 2)
    late.__code__ = mutant.code  # type: ignore[attr-defined]
    assert (late(2, 2), late(3, 2)) == (False, True)


def test_whatever_is_accepted_is_a_mutant_that_exists_and_has_a_reason() -> None:
    assert accepted_of_no_mutant() == []
    assert all(ACCEPTED.values()) and all(ENDLESS.values())
    assert not ACCEPTED.keys() & ENDLESS.keys()


COUNTING = """
def counted(start, step):
    while start > 0:
        start -= step
    return start

def late(now, end):
    return now >= end
"""
TESTS_OF_COUNTING = """
import functools, time
from counting import counted, late

@functools.cache
def slow():
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    return True

def test_what_warms():
    assert slow()

def test_what_is_warm():
    assert slow()

def test_nothing():
    assert counted(0, 0) == 0

def test_steps():
    assert slow() and counted(2, 1) == 0
"""
PLAY = """
import sys
from pathlib import Path
import pytest
import tests.conftest
from tests.fleet.mutation.__main__ import judged_of
from tests.fleet.mutation.mutants import mutants_of
from tests.fleet.mutation.playing import Players

place = Path(sys.argv[1])
sys.path.insert(0, str(place))
def tell(verdict):
    print(judged_of(verdict), verdict.mutant.key, verdict.killer, *verdict.ended, sep="; ")
players = Players([*mutants_of(place / "counting.py", place)], tell, cpu_s=0.1)
options = ["-q", "-s", "-p", "no:randomly", f"--rootdir={place}", f"--basetemp={place}/tests"]
sys.exit(pytest.main([*options, str(place / "test_counting.py")], plugins=[players]))
"""


def test_a_limit_is_no_failure_and_no_test_is_timed_with_what_another_has_warmed(
    tmp_path: Path,
) -> None:
    """Else the two that survive would have been noticed by the test that is warm."""
    (tmp_path / "counting.py").write_text(COUNTING)
    (tmp_path / "test_counting.py").write_text(TESTS_OF_COUNTING)
    command = [sys.executable, "-c", PLAY, str(tmp_path)]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    nothing, steps = "test_counting.py::test_nothing", "test_counting.py::test_steps"
    assert [line for line in told.stdout.splitlines() if "; counting." in line] == [
        f"by the quick tests; counting.counted: start > 0 -> start >= 0; {steps}; {nothing}",
        f"NOTICED BY A LIMIT ONLY; counting.counted: start > 0 -> True; None; {steps}; {nothing}",
        f"by the quick tests; counting.counted: start > 0 -> False; {steps}",
        "SURVIVES; counting.late: now >= end -> now > end; None",
    ]


def test_no_change_of_the_shared_guards_and_of_the_binding_goes_unnoticed() -> None:
    command = [sys.executable, "-m", "tests.fleet.mutation", "--quick", "guards", "binding"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "by the quick tests" in told.stdout
