"""`completion bash|zsh|fish`: what a shell needs to complete a program's commands and flags.

Made by shtab from the program's own parser at the moment it is asked for.
"""

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import Final

import shtab

from palyra_fleet.cli.output import put
from palyra_fleet.cli.trouble import ExitCode

SHELLS: Final = ("bash", "zsh", "fish")

type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]
type _MakeParser = Callable[[], argparse.ArgumentParser]


def add_completion(commands: _Commands, make_parser: _MakeParser) -> None:
    """Add the command; `make_parser` makes the whole parser anew when it is called."""
    completion = commands.add_parser(
        "completion",
        help="print what a shell needs to complete these commands",
        description="Print a script for your shell; docs/reference/cli.md says where it goes.",
    )
    completion.add_argument("shell", choices=SHELLS)

    def run(arguments: Namespace) -> int:
        put(shtab.complete(make_parser(), shell=arguments.shell))
        return ExitCode.DONE

    completion.set_defaults(run=run)
