"""Words for the fleet, cut to what its models take, and lists cut to what one answer may hold.

One body of the fleet's API has at most 64 KiB; `BUDGET_BYTES` is what the lists of one answer may
take of it, as JSON. What does not fit is counted, never dropped unseen.
"""

from collections.abc import Iterable
from typing import Final

from pydantic import BaseModel

from palyra_egress.policy.errors import Problem
from palyra_egress.policy.findings import Finding, finding_of
from palyra_egress.policy.policy_diff import Change
from palyra_fleet.wire.policy_models import (
    MAX_PATH,
    MAX_SENTENCE,
    PolicyChange,
    PolicyProblem,
)

BUDGET_BYTES: Final = 48 * 1024
_WORD: Final = 64


def sentence(text: str) -> str:
    return _cut(text, MAX_SENTENCE)


def path(text: str) -> str:
    return _cut(text, MAX_PATH)


def word(text: str) -> str:
    return _cut(text, _WORD)


def place(file: str | None, line: int | None) -> str:
    return path(f"{file}:{line}")


def problem_of(found: Finding | Problem) -> PolicyProblem:
    """A finding of the linter, or what refuses a file."""
    finding = finding_of(found) if isinstance(found, Problem) else found
    return PolicyProblem(
        message=sentence(finding.sentence),
        code=word(finding.code),
        file=path(finding.file),
        line=finding.position.line,
        column=finding.position.column,
    )


def change_of(change: Change) -> PolicyChange:
    where = place(change.file, change.position.line)
    return PolicyChange(what=sentence(change.what), where=where, widens=change.widens)


def fitting[Model: BaseModel](
    items: Iterable[Model], most: int, budget_bytes: int = BUDGET_BYTES
) -> tuple[tuple[Model, ...], int]:
    """The first of these, as many as fit, and how many bytes they take."""
    taken: list[Model] = []
    size = 0
    for item in items:
        more = len(item.model_dump_json().encode()) + 1
        if len(taken) == most or size + more > budget_bytes:
            break
        taken.append(item)
        size += more
    return tuple(taken), size


def _cut(text: str, most: int) -> str:
    """Names of files may hold bytes that are no text, which no model takes."""
    plain = text.encode(errors="backslashreplace").decode()
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
