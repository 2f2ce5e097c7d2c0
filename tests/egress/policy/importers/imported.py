"""Helpers of the importer tests: translate, load with our own loader, and ask the judge."""

import json
from dataclasses import dataclass
from typing import Any

from palyra_egress.destination.hostname import HostRefused
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.importers.translate import Source, import_policy
from palyra_egress.policy.load import load_policy
from tests.conformance.translate import judge, outcome
from tests.egress.policy.importers.asking import asked


@dataclass(frozen=True)
class Imported:
    """An imported policy beside its text and what it lost."""

    text: str
    dropped: tuple[str, ...]
    policy: CompiledPolicy

    def says(self, method: str, target: str, profile: str = "imported") -> str:
        """`allow`, `report` or `deny`; a target that cannot be read is a denial."""
        try:
            return outcome(judge(self.policy, asked(method, target, profile)))
        except HostRefused:
            return "deny"

    def allows(self, url: str, method: str = "GET", profile: str = "imported") -> bool:
        return self.says(method, url, profile) == "allow"

    def comments(self, word: str) -> list[str]:
        return [line for line in self.text.splitlines() if line.startswith(f"# {word}: ")]


def imported(source: Source, text: str, profile: str | None = None) -> Imported:
    found = import_policy(source, text.encode(), "theirs", profile)
    return Imported(found.text, found.dropped, load_policy(found.text.encode(), "ours"))


def imported_value(source: Source, value: Any, profile: str | None = None) -> Imported:
    return imported(source, json.dumps(value), profile)
