"""The `policy` commands: check, test, explain and judge.

Each handler takes the parsed arguments and returns an exit code: 0 done, 1 the answer is no (a
refused request, a failing test), 2 yours to fix (a bad policy file, a bad argument). Results go to
standard output, problems of the caller to standard error; with `-o json` both are JSON.
"""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path

from palyra_egress.cli.policy_import_command import add_import_command
from palyra_egress.clock import now_unix_ms
from palyra_egress.destination.hostname import HostRefused
from palyra_egress.policy.case_lines import judge_line
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError, Problem, ProblemCode
from palyra_egress.policy.explain import Explanation, explain
from palyra_egress.policy.load import load_policy, load_policy_file, read_policy_bytes
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.policy_tests import run_tests
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.policy.values import EXPECTED_TIME, read_time_unix_ms
from palyra_egress.reasons import REASONS
from palyra_egress.request import EgressRequest, Requester

DONE, ANSWER_IS_NO, YOURS_TO_FIX = 0, 1, 2
_EXPLAINER = "policy-explain"


def _print(value: object) -> None:
    sys.stdout.write(f"{value}\n")


def _print_json(value: object) -> None:
    _print(json.dumps(value, ensure_ascii=False))


def _problem_rows(problems: Iterable[Problem]) -> list[dict[str, object]]:
    return [
        {
            "file": problem.file,
            "line": problem.position.line,
            "column": problem.position.column,
            "code": problem.code.value,
            "message": problem.message,
            "expected": problem.expected,
            "suggestion": problem.suggestion,
        }
        for problem in problems
    ]


def _fail(args: argparse.Namespace, error: PolicyFileError) -> int:
    """Tells every problem of a file; only failing tests are an answer, the rest is to be fixed."""
    if args.output == "json":
        _print_json({"ok": False, "problems": _problem_rows(error.problems)})
    else:
        sys.stderr.write(f"{error}\n")
    only_tests = all(problem.code is ProblemCode.TEST_FAILED for problem in error.problems)
    return ANSWER_IS_NO if only_tests else YOURS_TO_FIX


def _now(args: argparse.Namespace) -> int:
    return now_unix_ms() if args.at is None else int(args.at)


def check(args: argparse.Namespace) -> int:
    """`policy check FILE`: is this a policy that would be put in force?"""
    try:
        policy = load_policy_file(args.file)
    except PolicyFileError as error:
        return _fail(args, error)
    warnings = lint(policy, _now(args))
    if args.output == "json":
        _print_json(
            {
                "ok": True,
                "name": policy.name,
                "digest": policy.digest,
                "warnings": _problem_rows(warnings),
            }
        )
        return DONE
    for warning in warnings:
        sys.stderr.write(f"warning: {warning}\n")
    _print(
        f"{args.file}: good: {policy.name}, {len(policy.rules)} rules, "
        f"{len(policy.profiles)} profiles, {len(policy.spec.tests)} tests, {policy.digest}"
    )
    return DONE


def test(args: argparse.Namespace) -> int:
    """`policy test FILE`: run the tests inside the file."""
    try:
        policy = load_policy(read_policy_bytes(Path(args.file)), args.file, with_tests=False)
    except PolicyFileError as error:
        return _fail(args, error)
    failures = run_tests(policy)
    total = len(policy.spec.tests)
    if args.output == "json":
        _print_json(
            {
                "ok": not failures,
                "passed": total - len(failures),
                "failed": len(failures),
                "problems": _problem_rows(failures),
            }
        )
    else:
        for failure in failures:
            _print(failure)
        _print(f"{args.file}: {total - len(failures)} passed, {len(failures)} failed")
    return ANSWER_IS_NO if failures else DONE


def _only_profile(policy: CompiledPolicy) -> str:
    """The profile of a policy that has one; otherwise none, which the judge refuses."""
    names = list(policy.profiles)
    return names[0] if len(names) == 1 else ""


def _request_of(args: argparse.Namespace, policy: CompiledPolicy) -> EgressRequest:
    profile = _only_profile(policy) if args.profile is None else args.profile
    requester = Requester(_EXPLAINER, _EXPLAINER, profile)
    if args.method == "CONNECT":
        return connect_from_authority(args.url, requester)
    return judge_request_from_url(args.method, args.url, requester)


def _explanation_row(found: Explanation) -> dict[str, object]:
    verdict = found.verdict
    return {
        "steps": [{"name": step.name, "finding": step.finding} for step in found.steps],
        "effect": None if verdict is None else verdict.effect.value,
        "reason": None if verdict is None else verdict.reason.value,
        "rule": None if verdict is None else verdict.rule_id,
        "line": None if verdict is None else verdict.line,
        "owner": None if found.rule is None else found.rule.owner,
        "pinned": [] if verdict is None else list(verdict.pinned),
    }


def explain_url(args: argparse.Namespace) -> int:
    """`policy explain URL`: every step of the judgement, and who owns the rule."""
    try:
        policy = load_policy_file(args.policy)
    except PolicyFileError as error:
        return _fail(args, error)
    try:
        request = _request_of(args, policy)
    except HostRefused as error:
        row = REASONS[error.reason]
        if args.output == "json":
            _print_json({"effect": "deny", "reason": error.reason.value, "detail": error.detail})
        else:
            _print(f"verdict    deny: {error.reason.value} ({row.title}): {error.detail}")
        return ANSWER_IS_NO
    found = explain(policy, request, args.resolved, _now(args))
    if args.output == "json":
        _print_json(_explanation_row(found))
    else:
        _print("\n".join(found.lines))
    return DONE if found.allowed else ANSWER_IS_NO


def judge(args: argparse.Namespace) -> int:
    """`policy judge`: JSON lines in and out, one answer for every line that is not blank."""
    try:
        policy = load_policy_file(args.policy)
    except PolicyFileError as error:
        return _fail(args, error)
    profile = _only_profile(policy) if args.profile is None else args.profile
    moment = _now(args)
    for raw in sys.stdin.buffer:
        line = raw.decode("utf-8", "surrogateescape")
        if line.strip():
            answer = json.dumps(judge_line(policy, line, profile, moment))
            sys.stdout.write(f"{answer}\n")
            sys.stdout.flush()
    return DONE


def _time(text: str) -> int:
    moment = read_time_unix_ms(text)
    if moment is None:
        raise argparse.ArgumentTypeError(f"expected {EXPECTED_TIME}")
    return moment


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument("--at", type=_time, help="judge at this time instead of now (RFC 3339)")


def add_policy_commands(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds `policy` and its commands; each sets `run` to a function from args to exit code."""
    policy = subparsers.add_parser(
        "policy", help="check, test, explain and judge with policy files"
    )
    commands = policy.add_subparsers(dest="policy_command", required=True)

    parser = commands.add_parser("check", help="say whether a policy file would be put in force")
    parser.add_argument("file")
    _add_common(parser)
    parser.set_defaults(run=check)

    parser = commands.add_parser("test", help="run the tests inside a policy file")
    parser.add_argument("file")
    _add_common(parser)
    parser.set_defaults(run=test)

    parser = commands.add_parser("explain", help="say how one request is judged, and why")
    parser.add_argument("url", help="the URL, or host:port with --method CONNECT")
    parser.add_argument("--policy", required=True, metavar="FILE")
    parser.add_argument("--profile", help="needed unless the policy has exactly one")
    parser.add_argument("--method", default="GET")
    parser.add_argument("--resolved", nargs="+", metavar="IP", help="what the name resolves to")
    _add_common(parser)
    parser.set_defaults(run=explain_url)

    parser = commands.add_parser("judge", help="judge JSON lines from standard input")
    parser.add_argument("--policy", required=True, metavar="FILE")
    parser.add_argument("--profile", help="for lines that name none")
    _add_common(parser)
    parser.set_defaults(run=judge)
    add_import_command(commands)
