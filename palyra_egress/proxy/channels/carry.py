"""The one way from a listener into the proxy, and streams that have no address."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from palyra_egress.proxy.channels.channel import Channel

type Carry = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, Channel | None], Coroutine[object, object, None]
]

NO_ADDRESS: Final = ("unix", 0)


class UnixWriter(asyncio.StreamWriter):
    """A Unix socket's writer, which names its ends as the protocol layers expect it of TCP."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in ("peername", "sockname"):
            return NO_ADDRESS
        return super().get_extra_info(name, default)
