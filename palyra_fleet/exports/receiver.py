"""What an exporter needs of a receiver: take a batch, or say why not."""

from collections.abc import Sequence
from typing import Protocol

from palyra_fleet.signals.export_counts import ExportProblem
from palyra_fleet.wire.models import EventView


class Undelivered(Exception):
    """The batch was not taken, as far as we know; it is to be sent again."""

    def __init__(self, problem: ExportProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


class Receiver(Protocol):
    """One receiver. Both methods are bounded in time and memory, whatever the other side does."""

    async def deliver(self, events: Sequence[EventView]) -> None:
        """All of them, in order. Raises Undelivered."""

    async def close(self) -> None:
        """Let go of connections. Safe to call twice."""
