"""The grammar of `doctor`, of both programs."""

import argparse
from typing import Final

from palyra_fleet.doctor import machine

DESCRIPTION: Final = (
    "Look at an installation, and say per check what is wrong and what to do. Nothing is changed,"
    " and a program that runs is not disturbed. Ends with 0 if no check failed, else with 1."
)


def add_doctor_arguments(verb: argparse.ArgumentParser) -> None:
    """What both doctors take."""
    verb.add_argument("-o", "--output", choices=("table", "json"), default="table")
    verb.add_argument("--offline", action="store_true", help="nothing is expected to run")
    verb.add_argument(
        "--skip",
        action="append",
        default=[],
        metavar="CHECK",
        help="leave this check out, by its name (may be repeated)",
    )
    verb.add_argument("--strict", action="store_true", help="a warning ends with 1 as well")
    verb.add_argument(
        "--least-free-mib",
        type=int,
        default=machine.FULL_BELOW_BYTES // machine.MIB,
        metavar="N",
        help="less room than this for state is a fault (default 64)",
    )
