"""How the `policy` commands answer: exit codes, and findings in the form that was asked for.

0 done; 1 the answer is no (findings, a refused request, a failing test, a widening); 2 yours to fix
(a file that does not load, a bad argument). Results go to standard output, problems of the caller
to standard error; with `-o json`, `github` or `sarif` everything goes to standard output.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from palyra_egress.clock import now_unix_ms
from palyra_egress.facts import FACT_NAMES, AttestedFacts, FactsRefused, read_facts
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError, ProblemCode
from palyra_egress.policy.findings import (
    LINT_TITLES,
    Finding,
    as_github,
    as_rows,
    as_sarif,
    as_text,
    finding_of,
)
from palyra_egress.policy.load import load_policy_file
from palyra_egress.policy.policy_diff import CHANGE_TITLES
from palyra_egress.policy.values import EXPECTED_TIME, read_time_unix_ms
from palyra_fleet.nearest_word import nearest

DONE, ANSWER_IS_NO, YOURS_TO_FIX = 0, 1, 2
FORMS = ("text", "json", "github", "sarif")
_TITLES = {**LINT_TITLES, **CHANGE_TITLES}


def put(value: object) -> None:
    """A result, on standard output."""
    sys.stdout.write(f"{value}\n")


def put_lines(lines: Iterable[str]) -> None:
    """Lines for people. What a worker put into a target cannot move the cursor of a terminal."""
    for line in lines:
        put("".join(sign if sign.isprintable() else "?" for sign in line))


def put_json(value: object) -> None:
    put(json.dumps(value, indent=2))


def say(sentence: str) -> None:
    """Something for the caller, on standard error."""
    sys.stderr.write(f"{sentence}\n")


def put_for_machines(form: str, findings: Sequence[Finding]) -> bool:
    """Tells findings to GitHub or as SARIF; False if another form was asked for."""
    if form == "github":
        put_lines(as_github(findings))
    elif form == "sarif":
        put(as_sarif(findings, _TITLES))
    else:
        return False
    return True


def fail(form: str, error: PolicyFileError) -> int:
    """Tells every problem of a file; only failing tests are an answer, the rest is to be fixed."""
    findings = [finding_of(problem) for problem in error.problems]
    if form == "json":
        put_json({"ok": False, "problems": as_rows(findings)})
    elif not put_for_machines(form, findings):
        for line in as_text(findings):
            say(line)
    only_tests = all(problem.code is ProblemCode.TEST_FAILED for problem in error.problems)
    return ANSWER_IS_NO if only_tests else YOURS_TO_FIX


def moment(args: argparse.Namespace) -> int:
    """The time to judge at, in Unix milliseconds."""
    return now_unix_ms() if args.at is None else int(args.at)


def read_named(file: str, *, with_tests: bool = True) -> CompiledPolicy:
    return load_policy_file(file, with_tests=with_tests)


def write_whole(path: Path, text: bytes) -> None:
    """Replaces a file in one step, so that a proxy that watches it never reads a half."""
    real = path.resolve()
    draft = real.with_name(f".{real.name}.new")
    draft.write_bytes(text)
    draft.chmod(real.stat().st_mode & 0o777 if real.exists() else 0o644)
    draft.replace(real)


def time_argument(text: str) -> int:
    unix_ms = read_time_unix_ms(text)
    if unix_ms is None:
        raise argparse.ArgumentTypeError(f"expected {EXPECTED_TIME}")
    return unix_ms


def facts_argument(text: str) -> AttestedFacts:
    """Facts as one JSON object; here a name that is no fact of ours is a mistake."""
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise argparse.ArgumentTypeError("expected a JSON object")
    for name in given:
        if name not in FACT_NAMES:
            near = nearest(name, FACT_NAMES)
            also = "" if near is None else f"; did you mean {near!r}?"
            raise argparse.ArgumentTypeError(
                f"no fact is called {name!r}; expected one of {', '.join(FACT_NAMES)}{also}"
            )
    try:
        return read_facts(given)
    except FactsRefused as error:
        raise argparse.ArgumentTypeError(str(error)) from error
