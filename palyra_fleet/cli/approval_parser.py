"""The grammar of `palyra-fleet approval`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import LaterModule
from palyra_fleet.leases.approval_rules import HERE

if TYPE_CHECKING:
    from palyra_fleet.cli import approval_commands
else:
    approval_commands = LaterModule("palyra_fleet.cli.approval_commands")


def add_approvals(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    operator_verb: Callable[..., argparse.ArgumentParser],
) -> None:
    check = verbs.add_parser("check", help="read files of rules, and run their own cases")
    check.add_argument("files", type=Path, nargs="+", metavar="FILE")
    check.set_defaults(run=approval_commands.check)
    explain = verbs.add_parser("explain", help="which rule would approve a run, and why no other")
    explain.add_argument("file", type=Path, metavar="FILE")
    explain.add_argument("--run-id", type=types.principal, required=True)
    explain.add_argument("--tool", type=types.name, required=True)
    explain.add_argument("--profile", type=types.name, required=True, help="the egress profile")
    explain.add_argument(
        "--identity", type=types.principal, required=True, help="what the attestor calls the worker"
    )
    explain.add_argument("--launcher", type=types.name, help="the enrolled launcher that vouches")
    explain.add_argument(
        "--machine", default=HERE, help="a paired device's id (default: the fleet's own machine)"
    )
    explain.add_argument("--artifact-digest", metavar="SHA256", help="what was measured")
    explain.add_argument("--read-only", action="store_true", help="the run may only read")
    explain.add_argument("--at", metavar="TIME", help="RFC 3339 (default now)")
    explain.set_defaults(run=approval_commands.explain)
    schema = verbs.add_parser("schema", help="the JSON Schema of such files, for editors")
    schema.set_defaults(run=approval_commands.show_schema)
    operator_verb(
        verbs, "list", "the rules in force, and what each has given", approval_commands.list_rules
    )
