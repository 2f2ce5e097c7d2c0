"""The parser of both programs: a mistake on the command line is told as any other trouble is.

Three lines on stderr (what, why, what to do) and exit code 2. What a command does not know is told
by that command, so that the help which is named is the one that helps. A value that does not suit
is quoted beside what was expected, except by a `QuietParser`.
"""

import argparse
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from palyra_fleet.cli.output import quoted, say
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.nearest_word import did_you_mean

_MISSING: Final = "the following arguments are required: "
_NOT_A_CHOICE: Final = re.compile(r"argument (?P<name>.+?): invalid choice: '(?P<given>.*)' \(")
_NOT_A_NUMBER: Final = re.compile(r"invalid int value: (?P<given>'.*')")
_REPEATS: Final = re.compile(r": (?:invalid|ignored explicit|expected a whole number).*", re.DOTALL)
"""Where the library begins to repeat what was typed."""
_UNQUOTED: Final = "this does not fit (it is not repeated here)"
_TOO_MANY: Final = (
    "an argument is too many or unknown (it is not repeated here); a secret is read"
    " from standard input, from --from-file, or at a prompt"
)


class CommandParser(argparse.ArgumentParser):
    """An argument parser of the standard library with our words for what is wrong."""

    quotes: bool = True
    """Whether what was typed may be repeated."""

    def error(self, message: str) -> NoReturn:
        trouble = Trouble(
            ExitCode.YOURS,
            "this is not how it is called",
            self._told(message),
            f"`{self.prog} --help` says what it takes",
        )
        say(f"{self.prog}: {trouble}")
        self.exit(trouble.exit_code)

    def parse_known_args(  # type: ignore[override]  # one signature for the two of the library
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        parsed, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(self._of_unknown(unknown))
        return parsed, unknown

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            given = quoted(arg_string)
            if self.quotes and given not in error.message:
                error.message += f", not {given}"
            raise

    def _of_unknown(self, words: Sequence[str]) -> str:
        return f"it does not take {', '.join(map(repr, words))}" if self.quotes else _TOO_MANY

    def _told(self, message: str) -> str:
        """Our sentence for the library's."""
        if message.startswith(_MISSING):
            return f"missing: {message.removeprefix(_MISSING)}{self._verbs()}"
        if wrong := _NOT_A_CHOICE.match(message):
            return f"argument {wrong['name']}: {self._choices(wrong['name'], wrong['given'])}"
        message = _NOT_A_NUMBER.sub(r"expected a whole number, not \g<given>", message)
        return message if self.quotes else _REPEATS.sub(f": {_UNQUOTED}", message)

    def _verbs(self) -> str:
        for action in self._actions:
            if isinstance(action, argparse._SubParsersAction):
                return f", one of {', '.join(action.choices)}"
        return ""

    def _choices(self, name: str, given: str) -> str:
        (choices,) = (
            list(map(str, action.choices or ()))
            for action in self._actions
            if argparse.ArgumentError(action, "").argument_name == name
        )
        expected = f"expected one of {', '.join(choices)}"
        return (
            f"{expected}, not {given!r}{did_you_mean(given, choices)}"
            if self.quotes
            else f"{expected}; {_UNQUOTED}"
        )


class QuietParser(CommandParser):
    """Of a command that handles secrets: what was typed by mistake may be one."""

    quotes = False
