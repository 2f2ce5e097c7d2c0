"""`config validate` and `config show --origin`: settings as a command would see them."""

import argparse
import json
import os
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from palyra_fleet.cli.configuration import (
    Program,
    Setting,
    Verb,
    actions,
    check_variables,
    default_of,
    parser_of,
    settings,
)
from palyra_fleet.cli.later import LaterModule
from palyra_fleet.cli.output import printable, put, say
from palyra_fleet.cli.trouble import ExitCode

if TYPE_CHECKING:
    from palyra_fleet.cli import config_checks
else:
    config_checks = LaterModule("palyra_fleet.cli.config_checks")

type _Commands = argparse._SubParsersAction[argparse.ArgumentParser]
type _MakeParser = Callable[[], argparse.ArgumentParser]


def add_config(commands: _Commands, program: Program, make_parser: _MakeParser) -> None:
    """Add the noun; `make_parser` makes the whole parser anew when it is called."""
    text = "settings by file, environment and flags"
    verbs = commands.add_parser("config", help=text, description=text).add_subparsers(
        required=True, metavar="VERB"
    )
    validate = verbs.add_parser("validate", help="check what file and environment set")
    show = verbs.add_parser("show", help="what holds, flags aside")
    show.add_argument("--origin", action="store_true", help="say where each value comes from")
    show.add_argument("-o", "--output", choices=("table", "json"), default="table")
    for verb in (validate, show):
        verb.add_argument(
            "--file",
            type=Path,
            metavar="FILE",
            help=f"the settings (default: {program.file_variable})",
        )
    validate.set_defaults(run=lambda arguments: _validate(arguments, program, make_parser()))
    show.set_defaults(run=lambda arguments: _show(arguments, program, make_parser()))


def _found(
    arguments: Namespace, program: Program, top: argparse.ArgumentParser
) -> dict[Verb, dict[str, Setting]]:
    return found_settings(program, top, arguments.file)


def found_settings(
    program: Program, top: argparse.ArgumentParser, given: Path | None = None
) -> dict[Verb, dict[str, Setting]]:
    """What the file that is given (else the environment's) and the environment set, by command and
    key. Raises Trouble."""
    named = os.environ.get(program.file_variable)
    file = given or (Path(named) if named else None)
    check_variables(program, top, os.environ)
    return {
        verb: {
            one.key: one for one in settings(program, verb, parser_of(top, verb), file, os.environ)
        }
        for verb in program.verbs
    }


def _validate(arguments: Namespace, program: Program, top: argparse.ArgumentParser) -> int:
    found = _found(arguments, program, top)
    for by_key in found.values():
        config_checks.check_files(by_key)
    say(f"{sum(map(len, found.values()))} settings, each good")
    return ExitCode.DONE


def _show(arguments: Namespace, program: Program, top: argparse.ArgumentParser) -> int:
    rows: list[dict[str, object]] = []
    for verb, by_key in _found(arguments, program, top).items():
        for key, action in actions(parser_of(top, verb)).items():
            one = by_key.get(key)
            value = default_of(action) if one is None else one.value
            row: dict[str, object] = {"key": ".".join((*verb, key)), "value": value}
            if arguments.origin:
                row["origin"] = "default" if one is None else one.origin
            rows.append(row)
    if arguments.output == "json":
        put(json.dumps(rows, indent=2))
        return ExitCode.DONE
    for row in rows:
        origin = f"  # {row['origin']}" if arguments.origin else ""
        put(printable(f"{row['key']} = {json.dumps(row['value'])}{origin}"))
    return ExitCode.DONE
