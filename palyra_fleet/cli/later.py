"""Commands that are imported when they are called, so that a parser loads nothing that serves.

A grammar names functions of a module that is loaded only by the one command that was asked for:
`--help` and completion then cost what argparse costs. The type checker sees the module itself.
"""

import importlib
from argparse import Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from palyra_fleet.cli.trouble import ExitCode

if TYPE_CHECKING:
    from palyra_fleet.client import OperatorClient

type Command = Callable[[Namespace, OperatorClient], Awaitable[ExitCode]]
"""What an operator's command does, with a client that is open."""


@dataclass(frozen=True, slots=True)
class Later:
    """A function of a module, looked up when it is called."""

    module: str
    function: str

    def __call__(self, *arguments: Any) -> Any:
        return self.resolve()(*arguments)

    def resolve(self) -> Callable[..., Any]:
        """The function itself. Raises AttributeError where there is none."""
        found: Callable[..., Any] = getattr(importlib.import_module(self.module), self.function)
        return found


class LaterModule:
    """Stands for a module of commands; each attribute is a function of it, for later."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return f"LaterModule({self._name})"

    def __getattr__(self, function: str) -> Later:
        if function.startswith("_"):
            raise AttributeError(function)
        return Later(self._name, function)
