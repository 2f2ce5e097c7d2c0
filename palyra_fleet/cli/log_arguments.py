"""`--log-format` and `--log-level`, and letting log lines out as they say."""

import argparse
from typing import Final

from palyra_fleet.logs.output import LEVELS, LogFormat, begin

DEFAULT_LEVEL: Final = "warning"


def add_log_arguments(parser: argparse.ArgumentParser, *, serves: bool) -> None:
    """A program that `serves` writes its lines in a thread; see `palyra_fleet.logs.output`."""
    parser.add_argument(
        "--log-format",
        choices=[form.value for form in LogFormat],
        default=LogFormat.TEXT.value,
        help="how lines of the log look: for people, or JSON with ECS names (default text)",
    )
    parser.add_argument(
        "--log-level",
        choices=LEVELS,
        default=DEFAULT_LEVEL,
        help=f"from which level on: info has every refusal and event (default {DEFAULT_LEVEL})",
    )
    parser.set_defaults(log_behind=serves)


def begin_log(service: str, arguments: argparse.Namespace) -> None:
    """Let log lines out, as the command was told; as text where it cannot be told."""
    begin(
        service,
        LogFormat(getattr(arguments, "log_format", LogFormat.TEXT)),
        getattr(arguments, "log_level", DEFAULT_LEVEL),
        behind=getattr(arguments, "log_behind", False),
    )
