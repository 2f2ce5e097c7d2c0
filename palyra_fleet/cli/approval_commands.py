"""`palyra-fleet approval`: rules that approve runs by themselves, checked and explained here.

`check`, `explain` and `schema` need no fleet; `list` asks one what is in force.
"""

import json
from argparse import Namespace
from pathlib import Path
from typing import Final

from palyra_fleet.cli.output import put, show_many
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import OperatorClient
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.leases.approval_file import (
    ApprovalFileError,
    ReadApprovals,
    read_approvals,
    schema,
    unix_ms_of,
)
from palyra_fleet.leases.approval_rules import Asker, RunAsked

RULE_COLUMNS: Final = (
    "rule_id",
    "owner",
    "at_once",
    "most_at_once",
    "in_the_last_hour",
    "most_in_an_hour",
    "until_unix_ms",
)


def check(arguments: Namespace) -> int:
    """Every mistake of every file, one a line; 1 if there is any."""
    wrong = False
    for path in arguments.files:
        try:
            read = _read(path)
        except ApprovalFileError as error:
            put(str(error))
            wrong = True
        else:
            put(f"{path}: good: {len(read.rules.rules)} rules, {read.cases} cases")
    return ExitCode.NO if wrong else ExitCode.DONE


def explain(arguments: Namespace) -> int:
    """Which rule would approve, and what about each other one does not fit; 1 if none does."""
    rules = _read(arguments.file).rules
    at = now_unix_ms() if arguments.at is None else unix_ms_of(arguments.at)
    if at is None:
        raise Trouble(
            ExitCode.YOURS, "--at is no time", arguments.at, "write it as 2027-03-31T18:00:00Z"
        )
    asker = Asker(
        arguments.identity, arguments.machine, arguments.launcher, arguments.artifact_digest
    )
    asked = RunAsked(arguments.run_id, arguments.tool, arguments.profile, arguments.read_only)
    approved = False
    for rule in rules.rules:
        misfit = rule.misfit(asker, asked, at)
        if misfit is not None:
            put(f"{rule.rule_id}: no: {misfit} does not fit")
        elif approved:
            put(f"{rule.rule_id}: fits as well; the first one approves while it has room")
        else:
            approved = True
            seconds = rule.lease_ms // 1000
            put(f"{rule.rule_id}: approves, for {seconds} s ({rule.owner}: {rule.reason})")
    if not approved:
        put("no rule approves: an operator has to (`palyra-fleet grant create`)")
    return ExitCode.DONE if approved else ExitCode.NO


def show_schema(arguments: Namespace) -> int:
    """The JSON Schema of the file."""
    del arguments
    put(json.dumps(schema(), indent=2))
    return ExitCode.DONE


async def list_rules(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.approval_rules(), arguments.output, RULE_COLUMNS)
    return ExitCode.DONE


def _read(path: Path) -> ReadApprovals:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ApprovalFileError(f"{path}: cannot be read: {error.strerror}") from error
    return read_approvals(source, str(path))
