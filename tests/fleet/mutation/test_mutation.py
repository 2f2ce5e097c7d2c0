"""The guards are changed in the suite, too: two modules of them; and what is accepted still exists.

All of them are `make mutants`.
"""

import subprocess
import sys
from pathlib import Path

from tests.fleet.mutation.__main__ import accepted_of_no_mutant
from tests.fleet.mutation.accepted import ACCEPTED
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
    names = [mutant.key.removeprefix("sample.") for mutant in mutants_of(source)]
    assert sorted(names) == sorted(OF_SOURCE.splitlines())


def test_a_mutant_does_what_its_name_says(tmp_path: Path) -> None:
    source = tmp_path / "sample.py"
    source.write_text("def late(now, end):\n    return now >= end\n")
    (mutant,) = mutants_of(source)
    space: dict[str, object] = {}
    exec(source.read_text(), space)
    late = space["late"]
    assert callable(late) and late(2, 2)
    late.__code__ = mutant.code  # type: ignore[attr-defined]
    assert (late(2, 2), late(3, 2)) == (False, True)


def test_whatever_is_accepted_is_a_mutant_that_exists_and_has_a_reason() -> None:
    assert accepted_of_no_mutant() == []
    assert all(ACCEPTED.values())


def test_no_change_of_the_shared_guards_and_of_the_binding_goes_unnoticed() -> None:
    command = [sys.executable, "-m", "tests.fleet.mutation", "--quick", "guards", "binding"]
    told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stdout + told.stderr
    assert "by the quick tests" in told.stdout
