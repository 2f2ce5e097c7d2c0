"""The arguments of `palyra-egress vault`. A secret is never an argument, and what was given as one
is not repeated: other processes see arguments, and terminals keep what is printed.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import cast

from palyra_fleet.cli.command_parser import CommandParser, QuietParser
from palyra_fleet.cli.output import FORMS

type Commands = argparse._SubParsersAction[argparse.ArgumentParser]
type Later = Callable[[str, str], Callable[[argparse.Namespace], int]]

_NAME = "as policies write it after `vault:`, such as global/github_token"


def add_vault(commands: Commands, later: Later) -> None:
    """The noun and its verbs."""
    vault = commands.add_parser(
        "vault", help="secrets that policies bind as vault:NAME, sealed in one file"
    )
    cast(CommandParser, vault).quotes = False  # a verb may be forgotten before the secret
    verbs = vault.add_subparsers(required=True, metavar="VERB", parser_class=QuietParser)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        parser = verbs.add_parser(name, help=text, description=text, allow_abbrev=False)
        parser.set_defaults(run=later("vault_commands", name.replace("-", "_") + "_"))
        return parser

    init = verb("init", "make an empty vault, and a master key if there is none")
    put = verb("set", "set one secret: from standard input, a file, or a prompt without echo")
    put.add_argument("name", metavar="NAME", help=_NAME)
    put.add_argument("--from-file", type=Path, metavar="FILE", help="read the secret from here")
    listed = verb("list", "names, ages and sizes; never a value")
    shown = verb("show-metadata", "what is known about one secret but its value")
    shown.add_argument("name", metavar="NAME", help=_NAME)
    remove = verb("remove", "remove one secret; rules that bind it refuse from then on")
    remove.add_argument("name", metavar="NAME", help=_NAME)
    rotate = verb("rotate-key", "seal everything again under a new master key")
    check = verb("check", "open every record; ends with 1 if one does not open")
    for parser in (init, put, listed, shown, remove, rotate, check):
        _add_place(parser)
    for parser in (listed, shown, check):
        parser.add_argument("-o", "--output", choices=FORMS, default="table")


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--state-dir",
        type=Path,
        metavar="DIR",
        help="the proxy's state directory (default: the one under PALYRA_HOME)",
    )
    parser.add_argument(
        "--master-key-file",
        type=Path,
        metavar="FILE",
        help="the master key (default: master.key in the state directory; "
        "the variable PALYRA_MASTER_KEY goes before)",
    )
