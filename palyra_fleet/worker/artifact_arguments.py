"""The options `--carry-in`, `--carry-out`, `--carry-to`: what of a run is carried in and out.

For the commands that run a program as a worker; both packages have one. A path in the run may be
named before an equals sign, `data/rows.csv=FILE`; without it the file's own name is taken.
"""

import argparse
import re
from pathlib import Path
from typing import Final

from palyra_fleet.wire.artifacts import ARTIFACT_PATH_PATTERN
from palyra_fleet.worker.artifacts import Carriage

_PATH: Final = re.compile(ARTIFACT_PATH_PATTERN)


def add_artifact_arguments(verb: argparse.ArgumentParser) -> None:
    """Add the three options."""
    verb.add_argument(
        "--carry-in",
        type=_input,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help="put this file into $PALYRA_INPUTS; the lease names its digest (may be repeated)",
    )
    verb.add_argument(
        "--carry-out",
        type=_path,
        action="append",
        default=[],
        metavar="NAME",
        help="carry this file out of $PALYRA_OUTPUTS when the program ends (may be repeated)",
    )
    verb.add_argument(
        "--carry-to",
        type=Path,
        default=Path(),
        metavar="DIR",
        help="where outputs are put (default: here)",
    )


def carriage_of(arguments: argparse.Namespace) -> Carriage:
    """What was asked for. `--carry-to` is taken as it is meant now, whoever changes directory."""
    return Carriage(
        tuple(arguments.carry_in), tuple(arguments.carry_out), arguments.carry_to.resolve()
    )


def _input(text: str) -> tuple[str, Path]:
    name, named, file = text.partition("=")
    source = Path(file if named else text)
    return _path(name if named else source.name), source


def _path(text: str) -> str:
    if _PATH.fullmatch(text) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected a relative path of plain names (letters, digits, . _ + -), none "
            "of which begins with a dot"
        )
    return text
