"""For commands that go on while the fleet is away: what passes, and where the fleet is by then."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from palyra_fleet.cli.output import say
from palyra_fleet.cli.place import find_fleet
from palyra_fleet.cli.trouble import Trouble
from palyra_fleet.client import FleetProblem, OperatorClient

_BUSY: Final = frozenset({429, 503})
"""Statuses after which the same may be asked again: all places taken, or the fleet stops."""


@asynccontextmanager
async def fresh_client(arguments: Namespace) -> AsyncIterator[OperatorClient]:
    """A client of the fleet where it is now. Raises Trouble where nothing says so."""
    where, token = find_fleet(arguments.url, arguments.token_file)
    async with OperatorClient(where, token) as client:
        yield client


@dataclass(slots=True)
class Told:
    """What keeps a command from asking again, in words: said once, and again when it is another."""

    last: str = ""

    def tell(self, trouble: Trouble) -> None:
        if str(trouble) != self.last:
            self.last = str(trouble)
            say(self.last)


def passes(error: Exception) -> bool:
    """Whether it is worth asking again. A fleet that is away may not have said yet where it is."""
    return not isinstance(error, FleetProblem) or error.status in _BUSY
