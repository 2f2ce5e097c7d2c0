"""How long a server, a worker and an exchange may take, as arguments; see docs/limits.md."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace

from palyra_egress.proxy.bounds.deadline_options import DEADLINE_OPTIONS, DeadlineOption
from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines


def add_deadline_arguments(parser: ArgumentParser) -> None:
    """For every command that serves."""
    group = parser.add_argument_group("deadlines (docs/limits.md)")
    for option in DEADLINE_OPTIONS:
        group.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=_seconds(option),
            default=option.default_s,
            metavar="SECONDS",
            help=option.help,
        )


def deadlines_of(arguments: Namespace) -> Deadlines:
    """The product's deadlines with what was set."""
    given = {option.field: getattr(arguments, option.name) for option in DEADLINE_OPTIONS}
    return replace(DEADLINES, **given)


def _seconds(option: DeadlineOption) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            return option.read(text)
        except ValueError as error:
            raise ArgumentTypeError(str(error)) from None

    return read
