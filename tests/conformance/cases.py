"""The cases of the shared corpora, which of them are ours, and the register of their runners.

The corpora lie beside the checkout (`../shared/corpora`, or the folder named by PALYRA_CORPORA).
"""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from palyra_egress.destination.hostname import HostRefused
from palyra_egress.destination.hostpattern import PatternRefused
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.verdict import Verdict
from tests.conformance.not_ours import CASES, KINDS
from tests.conformance.translate import outcome

type Case = dict[str, Any]
ROOT = Path(__file__).resolve().parents[2]
CORPORA = Path(os.environ.get("PALYRA_CORPORA", ROOT.parent / "shared" / "corpora"))
RUNNERS: dict[str, Callable[[Case], None]] = {}


def runs(*kinds: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Registers the function that runs these kinds."""

    def register(function: Callable[[Case], None]) -> Callable[[Case], None]:
        RUNNERS.update(dict.fromkeys(kinds, function))
        return function

    return register


def _read_cases() -> list[Case]:
    if not CORPORA.is_dir():
        return []
    files = sorted(CORPORA.glob("*.jsonl"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


ALL = _read_cases()
OURS = [c for c in ALL if c["kind"] not in KINDS and c["id"] not in CASES]


def wanted(case: Case) -> list[Any]:
    """Every right answer: the strict one where the peer is laxer, and what else is acceptable."""
    first = case.get("strict_expected", case["expected"])
    return [first, case["acceptable"]] if "acceptable" in case else [first]


def is_refused(action: Callable[[], object]) -> bool:
    try:
        action()
    except (HostRefused, PatternRefused, PolicyFileError):
        return True
    return False


def allows(action: Callable[[], Verdict]) -> str:
    """The outcome; a target that cannot even be read is a denial."""
    try:
        return outcome(action())
    except HostRefused:
        return "deny"
