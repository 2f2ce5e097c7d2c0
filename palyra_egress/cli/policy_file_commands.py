"""`policy check`, `test`, `lint`, `fmt`, `diff` and `schema`: what can be said of files alone."""

import argparse
from pathlib import Path

from palyra_egress.approvals.envelope import approvals_path
from palyra_egress.approvals.gate import ApprovalsUnreadable
from palyra_egress.approvals.weighing import Weighing
from palyra_egress.cli.policy_answers import (
    ANSWER_IS_NO,
    DONE,
    YOURS_TO_FIX,
    fail,
    moment,
    put,
    put_for_machines,
    put_json,
    put_lines,
    read_named,
    say,
    write_whole,
)
from palyra_egress.cli.policy_approval_commands import approval_row, sentence, weigh_named
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.findings import Finding, as_rows, as_text, finding_of
from palyra_egress.policy.json_schema import schema_text
from palyra_egress.policy.lint_codes import Level
from palyra_egress.policy.load import read_policy_bytes
from palyra_egress.policy.policy_diff import CHANGE_KINDS, Change, diff_policies
from palyra_egress.policy.policy_format import FormatRefused, format_policy
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.policy_tests import run_tests
from palyra_fleet.strict_yaml.document import Position


def check(args: argparse.Namespace) -> int:
    """`policy check FILE`: is this a policy that would be put in force?"""
    try:
        policy = read_named(args.file)
        weighing = None if args.approvers is None else weigh_named(args, policy)
    except PolicyFileError as error:
        return fail(args.output, error)
    except ApprovalsUnreadable as error:
        say(str(error))
        return YOURS_TO_FIX
    is_approved = weighing is None or weighing.is_enough
    findings = [*lint(policy, moment(args))]
    if weighing is not None and not is_approved:
        findings.append(_not_approved(policy, weighing))
    if args.output == "json":
        told = [finding for finding in findings if finding.ignored is None]
        put_json(
            {
                "ok": is_approved,
                "name": policy.name,
                "digest": policy.digest,
                "files": list(policy.spec.files),
                "warnings": as_rows(told),
                "approvals": None if weighing is None else approval_row(weighing),
            }
        )
    elif not put_for_machines(args.output, findings):
        for line in as_text(finding for finding in findings if finding.counts):
            say(line)
        if len(policy.spec.files) > 1:
            put("files, in the order they are read:")
            put_lines(f"  {number}. {file}" for number, file in enumerate(policy.spec.files, 1))
        put(
            f"{args.file}: good: {policy.name}, {len(policy.rules)} rules, "
            f"{len(policy.profiles)} profiles, {len(policy.spec.tests)} tests, {policy.digest}"
        )
        if weighing is not None:
            put_lines(f"  widens: {line}" for line in weighing.widening_lines())
            put(f"{args.file}: {sentence(weighing)}")
        elif approvals_path(Path(args.file)).exists():
            say("its approvals were not looked at; --approvers FILE does it")
    return DONE if is_approved else ANSWER_IS_NO


def _not_approved(policy: CompiledPolicy, weighing: Weighing) -> Finding:
    message = f"not approved: {weighing.sentence}"
    return Finding(policy.file, Position(), Level.ERROR, "not_approved", message)


def test(args: argparse.Namespace) -> int:
    """`policy test FILE`: run the tests inside the file."""
    try:
        policy = read_named(args.file, with_tests=False)
    except PolicyFileError as error:
        return fail(args.output, error)
    failures = [finding_of(problem) for problem in run_tests(policy)]
    total = len(policy.spec.tests)
    if args.output == "json":
        put_json(
            {
                "ok": not failures,
                "passed": total - len(failures),
                "failed": len(failures),
                "problems": as_rows(failures),
            }
        )
    elif not put_for_machines(args.output, failures):
        put_lines(as_text(failures))
        put(f"{args.file}: {total - len(failures)} passed, {len(failures)} failed")
    return ANSWER_IS_NO if failures else DONE


def lint_files(args: argparse.Namespace) -> int:
    """`policy lint FILE…`: everything worth a second look; 1 from a warning upwards."""
    findings: list[Finding] = []
    exit_code = DONE
    for file in args.files:
        try:
            findings += lint(read_named(file), moment(args))
        except PolicyFileError as error:
            findings += [finding_of(problem) for problem in error.problems]
            exit_code = YOURS_TO_FIX
    counted = sum(finding.counts for finding in findings)
    ignored = sum(finding.ignored is not None for finding in findings)
    if args.output == "json":
        put_json({"ok": not counted, "ignored": ignored, "findings": as_rows(findings)})
    elif not put_for_machines(args.output, findings):
        put_lines(as_text(findings))
        notes = len(findings) - counted - ignored
        put(f"{len(args.files)} files: {counted} to decide, {notes} notes, {ignored} ignored")
    return exit_code or (ANSWER_IS_NO if counted else DONE)


def fmt(args: argparse.Namespace) -> int:
    """`policy fmt FILE…`: print the canonical text, or check for it, or write it."""
    exit_code = DONE
    for file in args.files:
        try:
            before = read_policy_bytes(Path(file))
            after = format_policy(before, file)
        except PolicyFileError as error:
            exit_code = max(exit_code, fail("text", error))
            continue
        except FormatRefused as refused:
            say(f"{refused}; move that comment to a line of its own above a key")
            exit_code = YOURS_TO_FIX
            continue
        if args.write and before != after:
            write_whole(Path(file), after)
            say(f"{file}: written")
        elif args.check and before != after:
            say(f"{file}: not formatted; `policy fmt --write` does it")
            exit_code = max(exit_code, ANSWER_IS_NO)
        elif not (args.write or args.check):
            put(after.decode().removesuffix("\n"))
    return exit_code


def _change_lines(changes: tuple[Change, ...]) -> list[str]:
    lines: list[str] = []
    for kind, row in CHANGE_KINDS.items():
        same = [change for change in changes if change.kind is kind]
        if same:
            sign = "+" if row.widens else "-"
            lines.append(f"{row.title} ({len(same)})")
            lines += [
                f"  {sign} {change.what}  [{change.file}:{change.position.line}]" for change in same
            ]
    return lines or ["no change"]


def diff(args: argparse.Namespace) -> int:
    """`policy diff OLD NEW`: what is newly allowed, then newly refused, then the rest."""
    policies: list[CompiledPolicy] = []
    for file in (args.old, args.new):
        try:
            policies.append(read_named(file))
        except PolicyFileError as error:
            return fail(args.output, error) and YOURS_TO_FIX
    changes = diff_policies(policies[0].spec, policies[1].spec)
    widens = any(change.widens for change in changes)
    findings = [change.finding for change in changes]
    if args.output == "json":
        rows = [
            {**row, "widens": change.widens}
            for row, change in zip(as_rows(findings), changes, strict=True)
        ]
        put_json({"same": not changes, "widens": widens, "changes": rows})
    elif not put_for_machines(args.output, findings):
        put_lines(_change_lines(changes))
    return ANSWER_IS_NO if widens and args.no_widen else DONE


def schema(args: argparse.Namespace) -> int:
    """`policy schema`: the JSON Schema of policy files, for editors."""
    del args
    put(schema_text().removesuffix("\n"))
    return DONE
