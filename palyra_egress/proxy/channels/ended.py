"""Ends what is open behind a channel that does not hold any more.

Every request asks its channel; a tunnel that is passed on, a long body and an open WebSocket ask
nothing, perhaps for hours. So each channel is looked at again while its connection is open. A
certificate's time costs nothing to look at; whether a process is still there costs the kernel a
file, so of those so many have their turn at each look, and all of them one after the other.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import Final

from palyra_egress.proxy.channels.channel import ChannelKind
from palyra_egress.proxy.connections import ConnectionTable, LiveConnection
from palyra_egress.reasons import Reason

PROCESSES_AT_A_LOOK: Final = 64


@dataclass(slots=True)
class ChannelWatch:
    """`cut_ended` is to be called again and again."""

    connections: ConnectionTable
    _waiting: list[LiveConnection] = field(default_factory=list)

    def cut_ended(self, now_unix_ms: int) -> None:
        """Reset the connections whose channel has ended; `now_unix_ms` is Unix milliseconds."""
        ended: dict[Reason, set[LiveConnection]] = defaultdict(set)
        for connection in self._due():
            channel = connection.channel
            if channel is not None and (reason := channel.refusal(now_unix_ms)) is not None:
                ended[reason].add(connection)
        for reason, connections in ended.items():
            self.connections.sever(connections, reason)

    def _due(self) -> list[LiveConnection]:
        """Whose channel is to be looked at now."""
        open_now = self.connections.on_channels()
        processes = {connection for connection in open_now if _is_a_process(connection)}
        if not self._waiting:
            self._waiting = list(processes)
        turn = self._waiting[:PROCESSES_AT_A_LOOK]
        del self._waiting[:PROCESSES_AT_A_LOOK]
        others = [connection for connection in open_now if connection not in processes]
        return others + [connection for connection in turn if connection in processes]


def _is_a_process(connection: LiveConnection) -> bool:
    return connection.channel is not None and connection.channel.kind is ChannelKind.PEER
