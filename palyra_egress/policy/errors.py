"""What is wrong with a policy file, told so that its author can mend it at once.

A `Problem` is one line: `file:line:col: code: what is wrong; expected …; did you mean …?`. Lines
and columns count from 1. A reader collects problems and raises all of them together in one
`PolicyFileError`; a file with a single problem is refused as a whole.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NoReturn

from palyra_fleet.strict_yaml.document import Fault, Position


class ProblemCode(StrEnum):
    """Stable codes of policy problems, as editors and pipelines see them. What is wrong with a file
    before it is read as a policy has the code of its `Fault`."""

    UNREADABLE = "unreadable"
    TOO_LARGE = Fault.TOO_LARGE.value
    NOT_UTF8 = Fault.NOT_UTF8.value
    HIDDEN_SIGN = Fault.HIDDEN_SIGN.value
    SYNTAX = Fault.SYNTAX.value
    EMPTY = Fault.EMPTY.value
    DUPLICATE_KEY = Fault.DUPLICATE_KEY.value
    ALIAS = Fault.ALIAS.value
    TAG = Fault.TAG.value
    AMBIGUOUS_VALUE = Fault.AMBIGUOUS_VALUE.value
    UNKNOWN_KEY = "unknown_key"
    MISSING_KEY = "missing_key"
    WRONG_TYPE = Fault.WRONG_TYPE.value
    BAD_VALUE = "bad_value"
    NOT_SUPPORTED_YET = "not_supported_yet"
    BAD_PATTERN = "bad_pattern"
    NEEDS_ACKNOWLEDGEMENT = "needs_acknowledgement"
    NEVER_ALLOWED = "never_allowed"
    DUPLICATE_ID = "duplicate_id"
    SET_TWICE = "set_twice"
    BAD_INCLUDE = "bad_include"
    INCLUDE_CYCLE = "include_cycle"
    UNKNOWN_RULE = "unknown_rule"
    UNKNOWN_PROFILE = "unknown_profile"
    NO_CONSEQUENCE = "no_consequence"
    CREDENTIAL_OVER_HTTP = "credential_over_http"
    CREDENTIAL_IN_TUNNEL = "credential_in_tunnel"
    UNKNOWN_TLS_NAME = "unknown_tls_name"
    TEST_FAILED = "test_failed"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what would be right."""

    file: str
    position: Position
    code: ProblemCode
    message: str
    expected: str | None = None
    suggestion: str | None = None

    def __str__(self) -> str:
        place = f"{self.file}:{self.position.line}:{self.position.column}"
        text = f"{place}: {self.code.value}: {self.message}"
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.suggestion is not None:
            text += f"; did you mean {self.suggestion!r}?"
        return text


MAX_TOLD: Final = 100


class PolicyFileError(ValueError):
    """A policy file that is refused, with every problem found in it; its text, which goes into
    logs, names the first `MAX_TOLD`."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        given = tuple(problems)
        order = {problem.file: number for number, problem in reversed(list(enumerate(given)))}
        self.problems = tuple(
            sorted(given, key=lambda problem: (order[problem.file], problem.position))
        )
        lines = [str(problem) for problem in self.problems[:MAX_TOLD]]
        if len(self.problems) > MAX_TOLD:
            lines.append(f"and {len(self.problems) - MAX_TOLD} more problems")
        super().__init__("\n".join(lines))


class Problems:
    """Collects the problems of one file, or of several that share one list (`of`)."""

    def __init__(self, file: str, found: list[Problem] | None = None) -> None:
        self.file = file
        self.found: list[Problem] = [] if found is None else found

    def of(self, file: str) -> "Problems":
        """The same collection, for problems in another file."""
        return Problems(file, self.found)

    def add(
        self,
        position: Position,
        code: ProblemCode,
        message: str,
        *,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        self.found.append(Problem(self.file, position, code, message, expected, suggestion))

    def raise_all(self) -> NoReturn:
        raise PolicyFileError(self.found)
