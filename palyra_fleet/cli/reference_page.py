"""The page of every command: the `--help` of each, in the order of the parsers. Pure.

docs/reference/cli.md holds it, and a test compares: so no flag changes without somebody seeing it.
"""

import argparse
from collections.abc import Iterable, Iterator
from typing import Final

WIDTH: Final = 100

type _Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]


def commands(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """The parser and every one below it, depth first."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for below in dict.fromkeys(action.choices.values()):
                yield from commands(below)


def help_of(parser: argparse.ArgumentParser) -> str:
    """The help, as wide everywhere, whatever the terminal is."""
    parser.formatter_class = _wide
    return parser.format_help().rstrip()


def help_sections(parsers: Iterable[argparse.ArgumentParser]) -> Iterator[str]:
    """A Markdown section for every command."""
    for top in parsers:
        for parser in commands(top):
            depth = min(2 + parser.prog.count(" "), 4)
            yield f"{'#' * depth} `{parser.prog}`\n\n```text\n{help_of(parser)}\n```\n"


def _wide(prog: str) -> argparse.HelpFormatter:
    return argparse.HelpFormatter(prog, width=WIDTH)
