"""The one way from a listener into the proxy, who is turned away, and streams without address."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.reasons import Reason

type Carry = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter, Channel | None], Coroutine[object, object, None]
]
type TurnedAway = Callable[[Reason], object]
"""Told why somebody was not let in; the audit log has it then."""

NO_ADDRESS: Final = ("unix", 0)


class UnixWriter(asyncio.StreamWriter):
    """A Unix socket's writer, which names its ends as the protocol layers expect it of TCP."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name in ("peername", "sockname"):
            return NO_ADDRESS
        return super().get_extra_info(name, default)
