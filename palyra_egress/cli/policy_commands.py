"""The `policy` command and what it offers; each command sets `run` to its handler.

Handlers take the parsed arguments and return an exit code: 0 done, 1 the answer is no, 2 yours to
fix. They live by what they look at: files alone, single requests, recorded traffic, other tools'
files.
"""

import argparse

from palyra_egress.cli import policy_approval_commands as signed
from palyra_egress.cli import policy_audit_commands as audit
from palyra_egress.cli import policy_file_commands as files
from palyra_egress.cli import policy_request_commands as requests
from palyra_egress.cli.policy_answers import FORMS, facts_argument, time_argument
from palyra_egress.cli.policy_import_command import add_import_command
from palyra_egress.facts import UNATTESTED

type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]

_EXITS = "exit codes: 0 done, 1 the answer is no, 2 yours to fix"


def _add(commands: _Commands, name: str, short: str, long: str = "") -> argparse.ArgumentParser:
    sentence = f"{short[0].upper()}{short[1:]}."
    description = f"{sentence} {long}" if long else sentence
    return commands.add_parser(name, help=short, description=description, epilog=_EXITS)


def _add_output(parser: argparse.ArgumentParser, forms: tuple[str, ...] = FORMS) -> None:
    parser.add_argument(
        "-o", "--output", choices=forms, default="text", help="how to answer (default text)"
    )


def _add_time(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--at",
        type=time_argument,
        metavar="TIME",
        help="judge at this time instead of now (RFC 3339)",
    )


def _add_policy(parser: argparse.ArgumentParser, what: str = "the policy file") -> None:
    parser.add_argument("--policy", required=True, metavar="FILE", help=what)


def _add_audit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--audit", required=True, metavar="FILE", help="an audit log; its chain is checked"
    )


def _add_file_commands(commands: _Commands) -> None:
    parser = _add(
        commands,
        "check",
        "say whether a policy file would be put in force",
        "Reads it, runs the tests in it, and shows the linter's warnings; with --approvers also "
        "whether enough people approved it.",
    )
    parser.add_argument("file")
    _add_output(parser)
    _add_time(parser)
    signed.add_approvers(parser, required=False)
    parser.set_defaults(run=files.check)

    parser = _add(commands, "test", "run the tests inside a policy file")
    parser.add_argument("file")
    _add_output(parser)
    _add_time(parser)
    parser.set_defaults(run=files.test)

    parser = _add(
        commands,
        "lint",
        "find what is probably not meant: expired, unused, unowned, too wide",
        "Exits with 1 from a warning upwards. A finding to live with is ignored in the file, with "
        "a reason and a date: `lint: {ignore: [{code, rule, reason, until}]}`.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    _add_output(parser)
    _add_time(parser)
    parser.set_defaults(run=files.lint_files)

    parser = _add(
        commands,
        "fmt",
        "write policy files in the one canonical form",
        "Comments are kept and the meaning never changes; a file with mistakes is refused. "
        "Without an option the text is printed.",
    )
    parser.add_argument("files", nargs="+", metavar="FILE")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="exit with 1 if something would change")
    what.add_argument("--write", action="store_true", help="change the files")
    parser.set_defaults(run=files.fmt)

    parser = _add(
        commands,
        "diff",
        "say what a new policy allows and refuses that the old one did not",
        "Newly allowed comes first. What is compared is the meaning, not the text.",
    )
    parser.add_argument("old", metavar="OLD")
    parser.add_argument("new", metavar="NEW")
    parser.add_argument(
        "--no-widen",
        action="store_true",
        help="exit with 1 if anything is newly allowed, or a limit or a consequence is looser",
    )
    _add_output(parser)
    parser.set_defaults(run=files.diff)

    parser = _add(commands, "schema", "print the JSON Schema of policy files, for editors")
    parser.set_defaults(run=files.schema)


def _add_request_commands(commands: _Commands) -> None:
    parser = _add(commands, "explain", "say how one request is judged, and why")
    parser.add_argument("url", help="the URL, or host:port with --method CONNECT")
    _add_policy(parser)
    parser.add_argument("--profile", help="needed unless the policy has exactly one")
    parser.add_argument("--method", default="GET", help="the method (default GET)")
    parser.add_argument("--resolved", nargs="+", metavar="IP", help="what the name resolves to")
    parser.add_argument(
        "--facts",
        type=facts_argument,
        default=UNATTESTED,
        metavar="JSON",
        help='what is known about the worker, such as \'{"binding_level": "observed"}\'',
    )
    _add_output(parser, ("text", "json"))
    _add_time(parser)
    parser.set_defaults(run=requests.explain_url)

    parser = _add(commands, "judge", "judge JSON lines from standard input")
    _add_policy(parser)
    parser.add_argument("--profile", help="for lines that name none")
    _add_output(parser, ("text", "json"))
    _add_time(parser)
    parser.set_defaults(run=requests.judge)


def _add_audit_commands(commands: _Commands) -> None:
    parser = _add(
        commands,
        "replay",
        "say what of the recorded traffic a policy would change",
        "Each recorded verdict is judged again at its own time with its own addresses. What cannot "
        "be judged again is counted, with the reason.",
    )
    _add_audit(parser)
    _add_policy(parser, "the policy to judge by")
    parser.add_argument("--profile", help="judge everything by this profile, not the recorded one")
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="groups to show (50)")
    parser.add_argument(
        "--fail-on-change", action="store_true", help="exit with 1 if what passed would be refused"
    )
    _add_output(parser, ("text", "json"))
    parser.set_defaults(run=audit.replay)

    parser = _add(
        commands,
        "suggest",
        "print the least rules for what was refused",
        "For a person to judge: nothing is written, and owner and reason are left open. IP "
        "addresses, private targets and denied hosts are never suggested.",
    )
    _add_audit(parser)
    _add_policy(parser, "the policy in force")
    parser.add_argument("--profile", help="only what this profile was refused")
    parser.set_defaults(run=audit.suggest)

    parser = _add(
        commands,
        "promote",
        "go from observing to enforcing, on evidence",
        "Refused while a recorded request passed only because it was observed and nothing in the "
        "file explains it: a rule that allows it, a deny rule, or a test about such a request.",
    )
    parser.add_argument("file", metavar="FILE")
    _add_audit(parser)
    parser.add_argument("--rule", metavar="ID", help="promote this rule only")
    parser.add_argument("--write", action="store_true", help="change the file")
    parser.set_defaults(run=audit.promote_file)


def _add_approval_commands(commands: _Commands) -> None:
    parser = _add(commands, "key", "make a key with which a person approves policies")
    signed.add_key_command(parser)
    signed.add_approve_arguments(
        _add(
            commands,
            "approve",
            "sign a policy as it is now",
            "The signature covers the bytes of all its files; an edit needs another. It is added "
            "to FILE.approvals.",
        )
    )
    parser = _add(
        commands,
        "approvals",
        "say who approved a policy, whether that is enough, and what is missing",
        "A change that widens needs more approvals than one that does not; without something to "
        "compare with, all of a policy widens.",
    )
    parser.add_argument("file", metavar="FILE")
    signed.add_approvers(parser, required=True)
    _add_output(parser, ("text", "json"))
    parser.set_defaults(run=signed.approvals)


def add_policy_commands(subparsers: _Commands) -> None:
    """Adds `policy` and its commands."""
    policy = subparsers.add_parser(
        "policy", help="check, test, lint, format, compare and explain policy files"
    )
    commands = policy.add_subparsers(dest="policy_command", required=True, metavar="COMMAND")
    _add_file_commands(commands)
    _add_request_commands(commands)
    _add_audit_commands(commands)
    _add_approval_commands(commands)
    add_import_command(commands)
