"""Which deadlines can be set, how far, and in what words: for flags and for mitmproxy's options.

Values are whole seconds from 1 to the most of each. Pure.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from palyra_egress.errors import OperatorMustAct
from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines

_MOST_SILENT_S: Final = 43_200
_MOST_EXCHANGE_S: Final = 604_800


class DeadlineRefused(OperatorMustAct):
    """A deadline is set to what is none; the text says which and what was expected."""


@dataclass(frozen=True, slots=True)
class DeadlineOption:
    """`name` as the option is called, in words with underscores; `field` is its deadline."""

    name: str
    field: str
    most_s: int
    text: str

    @property
    def default_s(self) -> float:
        return float(getattr(DEADLINES, self.field))

    @property
    def help(self) -> str:
        """What it says, and what holds where it is not set."""
        return f"{self.text} (default {self.default_s:g})"

    def read(self, text: str) -> float:
        """Seconds. Raises ValueError, whose text says what was expected."""
        is_number = text.isascii() and text.isdecimal()
        if not is_number or not 1 <= int(text) <= self.most_s:
            raise ValueError(f"expected whole seconds from 1 to {self.most_s}")
        return float(text)


DEADLINE_OPTIONS: Final = (
    DeadlineOption(
        "answer_within",
        "answer_s",
        _MOST_SILENT_S,
        "how long a server may take to begin its answer; a long poll that waits longer needs more",
    ),
    DeadlineOption(
        "body_silence",
        "body_s",
        _MOST_SILENT_S,
        "how long a worker may send nothing of a request's body; an upload whose source pauses"
        " longer needs more",
    ),
    DeadlineOption(
        "silence",
        "silence_s",
        _MOST_SILENT_S,
        "how long an answer or a stream both ways may stand still, and a connection carry nothing",
    ),
    DeadlineOption(
        "exchange_within",
        "exchange_s",
        _MOST_EXCHANGE_S,
        "how long a request and its answer may take at all",
    ),
)


def deadlines_with(texts: Mapping[str, str], prefix: str = "") -> Deadlines:
    """The product's deadlines with what was set, by the options' names behind `prefix`; an empty
    text sets nothing. Raises DeadlineRefused."""
    read: dict[str, float] = {}
    for option in DEADLINE_OPTIONS:
        name = f"{prefix}{option.name}"
        if text := texts.get(name, ""):
            try:
                read[option.field] = option.read(text)
            except ValueError as error:
                raise DeadlineRefused(f"{name}: {text!r}; {error}") from None
    return replace(DEADLINES, **read)
