"""What a layer of ours may wait for, beside mitmproxy's own events."""

from mitmproxy.connection import Connection
from mitmproxy.proxy import commands, layer


class OwnWakeup(commands.RequestWakeup):
    """A wakeup that `owner`, and no layer around it, waits for."""

    def __init__(self, owner: layer.Layer, delay_s: float = 0) -> None:
        super().__init__(delay_s)
        self.owner = owner


class AwaitRoom(OwnWakeup):
    """Wake the layer when what was written to `connection` has gone on."""

    def __init__(self, owner: layer.Layer, connection: Connection) -> None:
        super().__init__(owner)
        self.connection = connection


class AwaitWord(OwnWakeup):
    """Wake the layer when its guard has broken something off."""


class AfterLastByte(commands.RequestWakeup):
    """End our side of `connection` behind what was written to it, which no layer around asks about,
    and wake the layer after a while."""

    def __init__(self, connection: Connection, delay_s: float) -> None:
        super().__init__(delay_s)
        self.connection = connection
