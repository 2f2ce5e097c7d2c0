"""SOCKS5 towards the worker: greeting, credentials, CONNECT, and then a tunnel like any other.

The conversation is the one of RFC 1928 and RFC 1929; what each message may be is decided in
`socks5`, and whether its sender may go there by the guard, at two hooks of our own. A client learns
that it was refused from the reply code, and everybody else from the audit log.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mitmproxy.proxy import commands, layer
from mitmproxy.proxy.context import Context

from palyra_egress.proxy.doors.door_layer import DoorLayer, TunnelAskedHook
from palyra_egress.proxy.doors.socks5 import (
    CREDENTIALS_GOOD,
    CREDENTIALS_REFUSED,
    METHOD_CHOSEN,
    Reply,
    SocksRefused,
    read_credentials,
    read_greeting,
    read_request,
    reply_to,
)
from palyra_egress.proxy.guard.guard_parts import AskedTunnel, DoorKeeper, ShownCredentials

type Commands = layer.CommandGenerator[Any]


@dataclass
class SocksShownHook(commands.StartHook):  # type: ignore[no-untyped-call]
    """A SOCKS client has shown its credentials."""

    shown: ShownCredentials


class SocksLayer(DoorLayer):
    """One SOCKS5 conversation."""

    def __init__(self, context: Context, guard: DoorKeeper) -> None:
        super().__init__(context, guard)
        self._step: Callable[[], Commands] = self._greet

    def _read(self) -> Commands:
        try:
            yield from self._step()
        except SocksRefused as refused:
            self._guard.refuse_at_door(refused.reason)
            yield from self._refuse(refused.answer)

    def _greet(self) -> Commands:
        size = read_greeting(self._data)
        if size is None:
            return
        self._data = self._data[size:]
        self._step = self._authenticate
        yield commands.SendData(self.context.client, METHOD_CHOSEN)
        yield from self._step()

    def _authenticate(self) -> Commands:
        found = read_credentials(self._data)
        if found is None:
            return
        credentials, size = found
        self._data = self._data[size:]
        shown = ShownCredentials(credentials)
        yield SocksShownHook(shown)
        if shown.refusal is not None:
            yield from self._refuse(CREDENTIALS_REFUSED)
            return
        self._step = self._connect
        yield commands.SendData(self.context.client, CREDENTIALS_GOOD)
        yield from self._step()

    def _connect(self) -> Commands:
        found = read_request(self._data)
        if found is None:
            return
        target, size = found
        self._data = self._data[size:]
        asked = AskedTunnel(target.host, target.port)
        yield TunnelAskedHook(asked)
        if asked.judgement is None or not asked.is_open:
            reply = Reply.GENERAL_FAILURE
            if asked.judgement is not None:
                reply = reply_to(asked.judgement.reason)
            yield from self._refuse(reply.message)
            return
        yield commands.SendData(self.context.client, Reply.SUCCEEDED.message)
        yield from self._enter(asked)
