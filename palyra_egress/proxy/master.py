"""Our own mitmproxy Master: options locked, no foreign addon, our own listener.

mitmproxy is used for its protocol layers only. Its command line, configuration file, script loader
and default addons are not loaded; the one addon here defines the options that the layers read. The
listener builds an `EnforcingHandler` for each connection, so there is no moment in which a
connection is handled by anything else.
"""

import asyncio
import logging
import os
import resource
import socket
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, cast

from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import layers, mode_specs
from mitmproxy.proxy.layer import Layer

from palyra_egress.errors import OperatorMustAct
from palyra_egress.proxy.bounds.accepting import ACCEPTED_AT_ONCE, is_gone, with_long_queue
from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.proxy.doors.redirected import original_destination
from palyra_egress.proxy.doors.socks_layer import SocksLayer
from palyra_egress.proxy.doors.transparent_layer import TransparentLayer
from palyra_egress.proxy.handler import EnforcingHandler, GuardFactory

LOCKED_OPTIONS: Final[Mapping[str, object]] = MappingProxyType(
    {
        "connection_strategy": "lazy",  # nothing is dialled before a request was granted
        "http2": True,  # in our own layers, which offer it inside inspected TLS only
        "http2_ping_keepalive": 0,
        "http3": False,
        "websocket": False,
        "rawtcp": False,
        "validate_inbound_headers": True,
        "ssl_insecure": False,
        "ignore_hosts": [],
        "allow_hosts": [],
        "tcp_hosts": [],
        "udp_hosts": [],
        "upstream_cert": False,
        "store_streamed_bodies": False,
        "body_size_limit": None,
        "keep_host_header": False,
    }
)
KEY_LOG_VARIABLES: Final = ("SSLKEYLOGFILE", "MITMPROXY_SSLKEYLOGFILE")
MOST_FILES: Final = 65_536
FILES_OF_OUR_OWN: Final = 128

_log = logging.getLogger(__name__)


class UnsafeEnvironment(OperatorMustAct):
    """The process was started in a way that weakens the proxy; the operator must act."""


def check_environment() -> None:
    """Raises UnsafeEnvironment where mitmproxy would write TLS session keys to a file, or would
    skip the assertions that guard its protocol states."""
    if not __debug__:
        raise UnsafeEnvironment("python -O (PYTHONOPTIMIZE) drops protocol checks; start without")
    for name in KEY_LOG_VARIABLES:
        if os.environ.get(name):
            raise UnsafeEnvironment(
                f"the variable {name} is set, which writes TLS session keys to a file; unset it"
            )


def room_for_connections() -> int:
    """How many workers' connections the file limit has room for, an upstream each, after it was
    raised as far as it goes. Beyond it nothing could be opened: no policy, no evidence."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    if soft not in (resource.RLIM_INFINITY, wanted) and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    files = MOST_FILES if soft == resource.RLIM_INFINITY else soft
    return max(1, (files - FILES_OF_OUR_OWN) // 2)


def make_master() -> Master:
    """A Master with locked options. Needs a running loop."""
    options = Options()
    master = Master(options)
    master.addons.add(Proxyserver())  # type: ignore[no-untyped-call]
    options.update(**LOCKED_OPTIONS)  # type: ignore[no-untyped-call]
    return master


class FrozenOptions:
    """The option values that the layers read, copied once: nothing can change them any more, and
    reading one costs no type check (mitmproxy checks at each read)."""

    def __init__(self, options: Options) -> None:
        names: set[str] = options.keys()  # type: ignore[no-untyped-call]
        self.__dict__.update({name: getattr(options, name) for name in names})

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"the option {name} is locked")


class Door(StrEnum):
    """How workers say at a listener where they want to go."""

    HTTP = "http"
    SOCKS = "socks5"
    TRANSPARENT = "transparent"

    def first_layer(self, handler: EnforcingHandler) -> Layer:
        """The layer that a new connection begins with."""
        context = handler.layer.context
        match self:
            case Door.HTTP:
                return layers.modes.HttpProxy(context)
            case Door.SOCKS:
                return SocksLayer(context, handler.guard)
            case Door.TRANSPARENT:
                return TransparentLayer(context, handler.guard, handler.destination)


class EgressListener:
    """The workers' side: accepts, builds the handler, runs it to its end."""

    def __init__(self, master: Master, make_guard: GuardFactory, door: Door = Door.HTTP) -> None:
        self._master = master
        self._make_guard = make_guard
        self._door = door
        self._options = cast(Options, FrozenOptions(master.options))
        self._mode = mode_specs.ProxyMode.parse("regular")
        self._server: asyncio.Server | None = None

    async def open(self, host: str, port: int) -> tuple[tuple[str, int], ...]:
        """Listen; every bound address (a name may stand for several). Raises OSError."""
        self._server = with_long_queue(
            await asyncio.start_server(self.carry, host, port, backlog=ACCEPTED_AT_ONCE)
        )
        names = [sock.getsockname() for sock in self._server.sockets]
        return tuple((str(name[0]), int(name[1])) for name in names)

    async def close(self) -> None:
        """Take no new connections; running ones go on."""
        if self._server is not None:
            self._server.close()

    async def carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        channel: Channel | None = None,
    ) -> None:
        """Run one connection to its end; of a channel's listener, with what that knows."""
        sock = writer.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            if is_gone(sock):
                writer.transport.abort()
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        is_redirected = self._door is Door.TRANSPARENT and sock is not None
        destination = original_destination(sock) if is_redirected else None
        try:
            handler = EnforcingHandler(
                self._master,
                reader,
                writer,
                self._options,
                self._mode,
                make_guard=self._make_guard,
                channel=channel,
                destination=destination,
            )
            handler.layer = self._door.first_layer(handler)
            await handler.handle_client()
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault closes
            _log.error("a connection failed: %s", type(fault).__name__)
        finally:
            writer.close()
