"""How long a server, a worker and an exchange may take, as arguments; see docs/limits.md."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines

MOST_SILENT_S: Final = 43_200
MOST_EXCHANGE_S: Final = 604_800


def add_deadline_arguments(parser: ArgumentParser) -> None:
    """For every command that serves."""
    group = parser.add_argument_group("deadlines (docs/limits.md)")
    group.add_argument(
        "--answer-within",
        type=_seconds(MOST_SILENT_S),
        default=DEADLINES.answer_s,
        metavar="SECONDS",
        help="how long a server may take to begin its answer; a long poll that waits longer needs"
        f" more (default {DEADLINES.answer_s:g})",
    )
    group.add_argument(
        "--body-silence",
        type=_seconds(MOST_SILENT_S),
        default=DEADLINES.body_s,
        metavar="SECONDS",
        help="how long a worker may send nothing of a request's body; an upload whose source pauses"
        f" longer needs more (default {DEADLINES.body_s:g})",
    )
    group.add_argument(
        "--silence",
        type=_seconds(MOST_SILENT_S),
        default=DEADLINES.silence_s,
        metavar="SECONDS",
        help="how long an answer or a stream both ways may stand still, and a connection carry"
        f" nothing (default {DEADLINES.silence_s:g})",
    )
    group.add_argument(
        "--exchange-within",
        type=_seconds(MOST_EXCHANGE_S),
        default=DEADLINES.exchange_s,
        metavar="SECONDS",
        help="how long a request and its answer may take at all"
        f" (default {DEADLINES.exchange_s:g})",
    )


def deadlines_of(arguments: Namespace) -> Deadlines:
    """The product's deadlines with what was set."""
    return replace(
        DEADLINES,
        answer_s=arguments.answer_within,
        body_s=arguments.body_silence,
        silence_s=arguments.silence,
        exchange_s=arguments.exchange_within,
    )


def _seconds(most: int) -> Callable[[str], float]:
    def read(text: str) -> float:
        if not text.isdecimal() or not 1 <= int(text) <= most:
            raise ArgumentTypeError(f"expected whole seconds from 1 to {most}")
        return float(text)

    return read
