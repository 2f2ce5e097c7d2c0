"""Change each guard of the ledger in turn, and say which change no test notices.

    python -m tests.fleet.mutation [--quick] [MODULE ...]     (default: every module that decides)

The ledger's own tests come first, the stateful ones, the small scopes and the store's only for what
those let live; with `--quick` they do not come at all. What only a limit has noticed lives too,
unless it is known to be endless. Ends with 1 if a survivor is not accepted, or an accepted one is
no mutant any more. Our own, because existing tools start pytest anew for each
mutant, which here costs a hundred times what the tests do.
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.fleet.mutation.accepted import ACCEPTED, ENDLESS
from tests.fleet.mutation.mutants import ROOT, mutants_of
from tests.fleet.mutation.playing import Players, Verdict

NOT_DECIDING = {"__init__", "auditor", "wire_views"}
OF_LEASES = ("approval_rules", "artifacts", "records", "workspace")
SLOW = (
    "tests/fleet/ledger/test_small_scope.py",
    "tests/fleet/ledger/test_ledger_stateful.py",
    "tests/fleet/violations",
    "tests/fleet/service/test_service_approvals.py",
    "tests/fleet/service/test_service_leases.py",
    "tests/fleet/service/test_service_operators.py",
    "tests/fleet/service/test_service_registration.py",
    "tests/fleet/test_clock_set_back.py",
)
QUICK = ("tests/fleet/ledger", "tests/fleet/leases")
QUICK_OF = {
    "restoring": ("tests/fleet/store/test_snapshots.py",),
    "worker_filter": ("tests/fleet/service/test_worker_lists.py",),
}
"""What a module needs before the slow ones."""


def modules() -> dict[str, Path]:
    """Those whose guards are changed, by name."""
    fleet = ROOT / "palyra_fleet"
    ledger = [one for one in (fleet / "ledger").glob("*.py") if one.stem not in NOT_DECIDING]
    leases = [fleet / "leases" / f"{name}.py" for name in OF_LEASES]
    return {one.stem: one for one in sorted(ledger) + leases}


@dataclass(slots=True)
class Report:
    """Says what became of each mutant that lives, and counts the others."""

    counts: Counter[str] = field(default_factory=Counter)

    def take(self, verdict: Verdict) -> None:
        key, judged = verdict.mutant.key, judged_of(verdict)
        self.counts["mutants"] += 1
        self.counts[judged] += 1
        if verdict.killer is None or key in ACCEPTED | ENDLESS:
            by = "" if verdict.killer is None else f", by {verdict.killer}"
            ended = "".join(f", ended: {test}" for test in verdict.ended)
            print(f"{judged}: {verdict.mutant}{by}{ended} ({verdict.seconds:.1f} s)", flush=True)
        elif verdict.ended:
            self.counts["(of these after a limit had ended a test)"] += 1

    @property
    def bad(self) -> int:
        return sum(self.counts[judged] for judged in BAD)


BAD = (
    "SURVIVES",
    "NOTICED BY A LIMIT ONLY",
    "NOTICED, though accepted",
    "NOTICED, though endless",
)


def judged_of(verdict: Verdict) -> str:
    """In a word. A limit alone has noticed nothing but what is known to be endless."""
    key, killer = verdict.mutant.key, verdict.killer
    if key in ACCEPTED and (killer or verdict.ended):
        return "NOTICED, though accepted"
    if key in ENDLESS and killer:
        return "NOTICED, though endless"
    if killer:
        return "by the slow tests" if killer.startswith(SLOW) else "by the quick tests"
    if verdict.ended:
        return "endless" if key in ENDLESS else "NOTICED BY A LIMIT ONLY"
    return "accepted" if key in ACCEPTED else "SURVIVES"


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fleet.mutation")
    parser.add_argument("--quick", action="store_true", help="play the quick tests only")
    parser.add_argument("modules", nargs="*", metavar="MODULE", help=f"of: {', '.join(modules())}")
    wanted = parser.parse_args(arguments)
    if unknown := set(wanted.modules) - set(modules()):
        parser.error(f"no module that decides: {', '.join(sorted(unknown))}")
    paths = [modules()[name] for name in wanted.modules or modules()]
    mutants = [mutant for path in paths for mutant in mutants_of(path)]
    gone = accepted_of_no_mutant()
    for key in gone:
        print(f"GONE: {key}")
    began, report = time.monotonic(), Report()
    with tempfile.TemporaryDirectory() as place:
        options = ["-q", "-s", "-p", "no:randomly", "--assert=plain", f"--rootdir={ROOT}"]
        more = [f"--ignore={slow}" for slow in SLOW] if wanted.quick else SLOW
        tests = [*QUICK, *(one for path in paths for one in QUICK_OF.get(path.stem, ())), *more]
        players = Players(mutants, report.take)
        code = pytest.main([*options, f"--basetemp={place}/tests", *tests], plugins=[players])
    if code != pytest.ExitCode.OK:
        print("nothing can be said")
        return 2
    for judged, count in report.counts.items():
        print(f"{count:6} {judged}")
    print(f"{time.monotonic() - began:6.0f} s", flush=True)
    return 1 if report.bad or gone else 0


def accepted_of_no_mutant() -> list[str]:
    """What is accepted, and cannot be played: the code has changed."""
    there = {mutant.key for path in modules().values() for mutant in mutants_of(path)}
    return sorted((ACCEPTED | ENDLESS).keys() - there)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
