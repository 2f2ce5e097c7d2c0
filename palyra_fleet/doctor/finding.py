"""A check and what it found: ok, a warning or a fault, each with what to do. Pure.

A check is a function without arguments that answers its findings; it changes nothing, and disturbs
nothing that runs. What it cannot look at is a fault with the reason, never silence: `examine` turns
an OSError or ValueError of a check into one. The names of checks are stable, for programs.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Standing(StrEnum):
    """How it stands, best first."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `remedy` is empty where nothing is to be done."""

    check: str
    standing: Standing
    what: str
    remedy: str = ""

    def row(self) -> dict[str, str]:
        """For JSON."""
        return {
            "check": self.check,
            "standing": self.standing.value,
            "what": self.what,
            "do": self.remedy,
        }


@dataclass(frozen=True, slots=True)
class Check:
    """One check by its name."""

    name: str
    look: Callable[[], Iterable[Finding]]


def ok(check: str, what: str) -> Finding:
    return Finding(check, Standing.OK, what)


def warn(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, Standing.WARN, what, remedy)


def fail(check: str, what: str, remedy: str) -> Finding:
    return Finding(check, Standing.FAIL, what, remedy)


def examine(checks: Sequence[Check]) -> tuple[Finding, ...]:
    """Every check in order. A check that says nothing has not been made, and that is a fault."""
    found: list[Finding] = []
    for check in checks:
        try:
            findings = tuple(check.look())
        except (OSError, ValueError) as error:
            said = f"cannot be looked at: {_told(error)}"
            findings = (fail(check.name, said, "mend what is named, and look again"),)
        found += findings or (fail(check.name, "said nothing", "report it"),)
    return tuple(found)


def why_not(error: Exception) -> str:
    """What the system said, in words: without its number, and never nothing."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error) or "no answer in time"


def _told(error: OSError | ValueError) -> str:
    named = getattr(error, "filename", None)
    return f"{named}: {why_not(error)}" if named else why_not(error)


def is_healthy(findings: Iterable[Finding], *, strict: bool = False) -> bool:
    """No fault; with `strict` no warning either. Nothing looked at is not healthy."""
    standings = {finding.standing for finding in findings}
    return bool(standings) and standings <= (
        {Standing.OK} if strict else {Standing.OK, Standing.WARN}
    )
