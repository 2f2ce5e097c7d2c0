"""The grammar of `palyra-fleet policy …`: questions to proxies about what they have in force."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import LaterModule

if TYPE_CHECKING:
    from palyra_fleet.cli import policy_commands
else:
    policy_commands = LaterModule("palyra_fleet.cli.policy_commands")


def add_policies(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    operator_verb: Callable[..., argparse.ArgumentParser],
) -> None:
    operator_verb(
        verbs, "list", "which policy each proxy has in force", policy_commands.list_policies
    )
    show = operator_verb(
        verbs, "show", "the rules of a proxy, and what changed last", policy_commands.show_rules
    )
    show.add_argument("name", type=types.name, metavar="PROXY")
    explain = operator_verb(
        verbs, "explain", "how a proxy would judge a request, and why", policy_commands.explain
    )
    explain.add_argument("request_url", metavar="URL", help="or host:port with --method CONNECT")
    explain.add_argument("--method", default="GET", help="the method (default GET)")
    whose = explain.add_mutually_exclusive_group(required=True)
    whose.add_argument("--profile", help="of a worker that nothing is known about")
    whose.add_argument(
        "--worker", type=types.ulid, metavar="ID", help="of this one, with its lease and its facts"
    )
    explain.add_argument("--resolved", nargs="+", metavar="IP", help="what the name resolves to")
    check = operator_verb(
        verbs, "check", "is this a policy, and what would it change?", policy_commands.check
    )
    check.add_argument(
        "files",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="the outermost first, then what it includes",
    )
    for verb in (explain, check):
        verb.add_argument("--proxy", type=types.name, help="who is asked (default: any)")
