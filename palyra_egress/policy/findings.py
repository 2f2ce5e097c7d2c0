"""One finding about a policy, and the four ways to tell findings: text, JSON rows, GitHub, SARIF.

A finding is anything a command has to say about a place in a file: a problem that refuses it
(ERROR), a warning or note of the linter, a change that `policy diff` found. Lines and columns count
from 1. Findings that the file itself ignores keep `ignored`, the reason given there; text and
GitHub leave them out, JSON and SARIF (as suppressions) keep them.
Sources: SARIF 2.1.0 (OASIS standard, 2020); GitHub's workflow commands for annotations.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from palyra_egress.policy.errors import Problem
from palyra_egress.policy.lint_codes import LINT, Level, LintCode
from palyra_fleet.strict_yaml.document import Position

SARIF_SCHEMA: Final = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_GITHUB_WORD: Final = {Level.ERROR: "error", Level.WARNING: "warning", Level.NOTE: "notice"}

type Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Finding:
    """`subject` is the id of the rule, or the name of the profile, that the finding is about."""

    file: str
    position: Position
    level: Level
    code: str
    message: str
    expected: str | None = None
    suggestion: str | None = None
    subject: str | None = None
    ignored: str | None = None

    @property
    def counts(self) -> bool:
        """True if somebody has to decide something."""
        return self.ignored is None and self.level is not Level.NOTE

    @property
    def sentence(self) -> str:
        """What is wrong, what was expected, what was probably meant."""
        text = self.message
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.suggestion is not None:
            text += f"; did you mean {self.suggestion!r}?"
        return text

    def __str__(self) -> str:
        place = f"{self.file}:{self.position.line}:{self.position.column}"
        level = "" if self.level is Level.ERROR else f"{self.level.value}: "
        return f"{place}: {level}{self.code}: {self.sentence}"


def finding_of(problem: Problem) -> Finding:
    """A problem that refuses its file, as a finding."""
    return Finding(
        problem.file,
        problem.position,
        Level.ERROR,
        problem.code.value,
        problem.message,
        problem.expected,
        problem.suggestion,
    )


def as_text(findings: Iterable[Finding]) -> list[str]:
    return [str(finding) for finding in findings if finding.ignored is None]


def as_rows(findings: Iterable[Finding]) -> list[Row]:
    """Plain objects for JSON, one a finding."""
    return [
        {
            "file": finding.file,
            "line": finding.position.line,
            "column": finding.position.column,
            "level": finding.level.value,
            "code": finding.code,
            "message": finding.message,
            "expected": finding.expected,
            "suggestion": finding.suggestion,
            "subject": finding.subject,
            "ignored": finding.ignored,
        }
        for finding in findings
    ]


def _github_text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _github_property(text: str) -> str:
    return _github_text(text).replace(":", "%3A").replace(",", "%2C")


def as_github(findings: Iterable[Finding]) -> list[str]:
    """Workflow commands that GitHub shows at the line of the file."""
    return [
        f"::{_GITHUB_WORD[finding.level]} file={_github_property(finding.file)},"
        f"line={finding.position.line},col={finding.position.column},"
        f"title={_github_property(finding.code)}::{_github_text(finding.sentence)}"
        for finding in findings
        if finding.ignored is None
    ]


def _uri(file: str) -> str:
    """A relative reference, or a file URI where the path is absolute."""
    path = quote(file.replace("\\", "/"))
    return f"file://{path}" if path.startswith("/") else path


def _sarif_result(finding: Finding, index: int) -> Row:
    suppressions: list[Row] = []
    if finding.ignored is not None:
        suppressions = [{"kind": "inSource", "justification": finding.ignored}]
    return {
        "ruleId": finding.code,
        "ruleIndex": index,
        "level": finding.level.value,
        "message": {"text": finding.sentence},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(finding.file)},
                    "region": {
                        "startLine": finding.position.line,
                        "startColumn": finding.position.column,
                    },
                }
            }
        ],
        "suppressions": suppressions,
    }


def as_sarif(findings: Sequence[Finding], titles: Mapping[str, str]) -> str:
    """One SARIF log with one run; `titles` describes the codes that have a title."""
    codes = sorted({finding.code for finding in findings})
    rules = [
        {"id": code, "shortDescription": {"text": titles.get(code, code.replace("_", " "))}}
        for code in codes
    ]
    log: Row = {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": {"name": "palyra-egress", "rules": rules}},
                "columnKind": "unicodeCodePoints",
                "results": [
                    _sarif_result(finding, codes.index(finding.code)) for finding in findings
                ],
            }
        ],
    }
    return json.dumps(log, indent=2, ensure_ascii=False)


LINT_TITLES: Final = {code.value: LINT[code].title for code in LintCode}
