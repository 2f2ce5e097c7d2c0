"""The enforcing handler: mitmproxy's connection handler with the guard sealed in.

It calls the guard itself at every hook, after the addon chain (if there is one), outside the code
that swallows addon exceptions. A guard that refuses, raises, hangs or is cancelled, a hook that
is not in our table, and a crash of mitmproxy's own layers all end in the same way: both sides of
the connection are reset. It owns `open_connection`: only what the guard has pinned is dialled.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Literal

from mitmproxy import flow as mitmproxy_flow
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, mode_specs, server_hooks
from mitmproxy.proxy.server import ConnectionIO

from palyra_egress.clock import now_unix_s
from palyra_egress.proxy.bounds.idleness import Idleness
from palyra_egress.proxy.bounds.metering import metered
from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.proxy.doors.redirected import Address
from palyra_egress.proxy.guard.guard import ConnectionGuard
from palyra_egress.proxy.guard.guard_parts import Pinned, Refused
from palyra_egress.proxy.hooks import DECIDED, OURS_ALONE, TOLD
from palyra_egress.proxy.paced import PacedHandler
from palyra_egress.proxy.sockets.last_words import Stream
from palyra_egress.proxy.sockets.pinned_dial import DialRefused, dial_pinned
from palyra_egress.proxy.sockets.resets import reset
from palyra_egress.proxy.sockets.untaken import untaken_bytes
from palyra_egress.proxy.tunnels.relay import Relay
from palyra_egress.proxy.tunnels.relaying import COMPLETE, Side, TunnelCarrier
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester

HOOK_DEADLINE_S: Final = 15.0
LAST_BYTES_S: Final = 30.0
IDENTITY_DEADLINE_S: Final = 20.0

_log = logging.getLogger(__name__)

type AddonChain = Callable[[commands.StartHook], Awaitable[None]]
type GuardFactory = Callable[["EnforcingHandler"], ConnectionGuard]


class EnforcingHandler(PacedHandler):
    """One client connection, enforced. `chain` runs foreign addons first; our Master has none."""

    def __init__(
        self,
        master: Master,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        options: Options,
        mode: mode_specs.ProxyMode,
        *,
        make_guard: GuardFactory,
        channel: Channel | None = None,
        destination: Address | None = None,
        chain: AddonChain | None = None,
        hook_deadline_s: float = HOOK_DEADLINE_S,
        identity_deadline_s: float = IDENTITY_DEADLINE_S,
    ) -> None:
        super().__init__(master, reader, writer, options, mode)
        self.channel = channel
        self.destination = destination
        self._chain = chain
        self._hook_deadline_s = hook_deadline_s
        self._identity_deadline_s = identity_deadline_s
        self._timers: list[asyncio.TimerHandle] = []
        self.guard = make_guard(self)
        self.timeout_watchdog = Idleness(
            self.guard.deadlines.silence_s,
            self.guard.idle_for_s,
            self.guard.bid_farewell,
            self.on_timeout,
        )

    # --- what the core needs --------------------------------------------------------------------

    @property
    def requester(self) -> Requester | None:
        return self.guard.requester

    def open_upstreams(self) -> list[Server]:
        """The upstream connections that a request could reuse."""
        return [
            connection
            for connection in self.transports
            if isinstance(connection, Server) and connection.connected
        ]

    def unsent_bytes(self, connection: Connection) -> int:
        io = self.transports.get(connection)
        if io is None or not isinstance(io.writer, asyncio.StreamWriter):
            return 0
        return io.writer.transport.get_write_buffer_size()

    def untaken_bytes(self, connection: Connection) -> int:
        """What was written to one side and it has not taken."""
        io = self.transports.get(connection)
        if io is None or not isinstance(io.writer, asyncio.StreamWriter):
            return 0
        return untaken_bytes(io.writer)

    def wake_layer(self) -> None:
        self._word.set()

    async def handle_client(self) -> None:
        """Run the connection to its end; however it ends, it is not counted any longer. One that
        has not shown whose it is in time only takes room, and is cut."""
        self.after(self._identity_deadline_s, self.guard.expect_identity)
        try:
            await super().handle_client()
            await self._let_go()
        finally:
            for timer in self._timers:
                timer.cancel()
            self.guard.give_places_back()
            self.guard.core.connections.forget(self)

    async def _let_go(self) -> None:
        """What the worker, and the server of a complete tunnel, do not take of their last bytes in
        time is thrown away; until then the connection counts, and can be cut."""
        sides = [side for side in (self._worker, self._passed_on) if side is not None]
        for side in sides:
            side.close()
        was_taken = False
        try:
            async with asyncio.timeout(LAST_BYTES_S):
                closed = (side.wait_closed() for side in sides)
                await asyncio.gather(*closed, return_exceptions=True)
                was_taken = True
        except TimeoutError:
            _log.debug("the last bytes of a connection were not taken in time")
        finally:
            for side in () if was_taken else sides:
                reset(side)

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, callback))

    def make_room(self) -> None:
        self.guard.make_room()

    def review(self) -> None:
        """Judge again what is open here; a fault on the way cuts it."""
        if self._aborted is not None:
            return
        try:
            self.guard.review()
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            self._refuse_fault()
            _log.error("judging again failed: %s", type(fault).__name__)

    async def server_event(self, event: events.Event) -> None:
        """What was read before the connection was aborted is not looked at any more, and what is
        left to do for it waits for its turn: many that are cut at once must not stop the others."""
        if isinstance(event, events.DataReceived):
            await self._take_data(event)
            return
        if self._aborted is None:
            await super().server_event(event)
            self._progress.set()
            return
        cancelled: asyncio.CancelledError | None = None
        try:
            await self.guard.core.connections.turn_to_unwind()
        except asyncio.CancelledError as error:
            cancelled = error
        await super().server_event(event)
        self._progress.set()
        if cancelled is not None:
            raise cancelled

    # --- hooks ----------------------------------------------------------------------------------

    def hook_task(self, hook: commands.StartHook) -> Coroutine[Any, Any, None]:
        """Counted from the moment a layer asks, and until it has heard the answer: nothing is read
        of the worker in between."""
        self._running_hooks += 1
        self.guard.idle_clock.decision_begins()
        return self._counted(hook)

    async def _counted(self, hook: commands.StartHook) -> None:
        try:
            await metered(super().hook_task(hook), self._charge)
        finally:
            self._running_hooks -= 1
            self.guard.idle_clock.decision_ends()
            self.progressed()

    async def handle_hook(self, hook: commands.StartHook) -> None:
        """Also of hooks that no layer asks at: the watchdog can end nothing before a new connection
        is read from."""
        self.guard.idle_clock.decision_begins()
        try:
            await self._run_hook(hook)
        finally:
            self.guard.idle_clock.decision_ends()

    async def _run_hook(self, hook: commands.StartHook) -> None:
        try:
            async with asyncio.timeout(self._hook_deadline_s):
                if self._chain is not None and hook.name not in OURS_ALONE:
                    await self._chain(hook)
                await self._decide(hook)
        except Refused as refused:
            self._end(hook, refused.reason, audited=refused.audited)
        except asyncio.CancelledError:
            self._end(hook, Reason.INTERNAL)
            raise
        except TimeoutError:
            self._end(hook, Reason.DEADLINE)
            _log.error("hook %s took longer than %s s", hook.name, self._hook_deadline_s)
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            self._end(hook, Reason.INTERNAL)
            _log.error("hook %s failed: %s", hook.name, type(fault).__name__)

    async def _decide(self, hook: commands.StartHook) -> None:
        if self._aborted is not None and hook.name != "client_disconnected":
            raise Refused(self._aborted, audited=True)
        if hook.name in TOLD:
            return
        if hook.name not in DECIDED:
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        (subject,) = hook.args()
        await getattr(self.guard, hook.name)(subject)

    def _end(self, hook: commands.StartHook, reason: Reason, *, audited: bool = False) -> None:
        """A fault at any hook: the connection is reset and the hook's subject is made harmless."""
        self.abort(reason)
        if not audited:
            self.guard.core.refuse_early(reason, self.guard.requester, self.source)
        (subject,) = hook.args()
        if isinstance(hook, server_hooks.ClientConnectedHook):
            self.client.error = reason.value
        if isinstance(subject, mitmproxy_flow.Flow) and subject.killable:
            subject.kill()  # type: ignore[no-untyped-call]
        if hook.name == "tls_clienthello":
            subject.ignore_connection = False
        if hook.name in ("tls_start_client", "tls_start_server"):
            subject.ssl_conn = None

    # --- dialling -------------------------------------------------------------------------------

    async def open_connection(self, command: commands.OpenConnection) -> None:
        try:
            await self._dial_and_carry(command)
        finally:
            self.guard.upstream_over(command.connection)

    async def _dial_and_carry(self, command: commands.OpenConnection) -> None:
        server = command.connection
        try:
            self.guard.pinned_for(server)
            hook_data = server_hooks.ServerConnectionHookData(server=server, client=self.client)
            await self.handle_hook(server_hooks.ServerConnectHook(hook_data))
            if self._aborted is not None:  # at that hook, or while it ran
                raise Refused(self._aborted, audited=True)
            reader, writer = await self._dial(self.guard.pinned_for(server), is_http=True)
        except (Refused, DialRefused) as refused:
            await self._dial_failed(command, refused.reason)
            return
        except asyncio.CancelledError:
            await self._dial_failed(command, Reason.UPSTREAM_UNREACHABLE)
            raise
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            self._refuse_fault()
            await self._dial_failed(command, Reason.INTERNAL)
            _log.error("dialling failed: %s", type(fault).__name__)
            return
        if (aborted := self._aborted) is not None:
            reset(writer)
            await self._dial_failed(command, aborted)
            return
        await self._carry(command, hook_data, reader, writer)

    async def _dial(self, pinned: Pinned, *, is_http: bool) -> Stream:
        own_ports = self.guard.core.service.wildcard_ports
        to, port = pinned.addresses, pinned.port
        return await dial_pinned(to, port, own_ports=own_ports, reads_last_words=is_http)

    async def _dial_failed(self, command: commands.OpenConnection, reason: Reason) -> None:
        self.guard.upstream_failed(command.connection, reason)
        command.connection.error = reason.value
        await self.server_event(events.OpenConnectionCompleted(command, reason.value))

    async def _carry(
        self,
        command: commands.OpenConnection,
        hook_data: server_hooks.ServerConnectionHookData,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Run an established upstream connection until it ends."""
        server = command.connection
        server.state, server.timestamp_tcp_setup = ConnectionState.OPEN, now_unix_s()
        server.peername = writer.get_extra_info("peername")
        server.sockname = writer.get_extra_info("sockname")
        self.transports[server] = ConnectionIO(asyncio.current_task(), reader, writer)
        try:
            await self.handle_hook(server_hooks.ServerConnectedHook(hook_data))
            await self.server_event(events.OpenConnectionCompleted(command, None))
            await self.handle_connection(server)
        finally:
            if writer.transport.get_write_buffer_size():
                reset(writer)  # nothing leaves once nobody watches over it
            await self.handle_hook(server_hooks.ServerDisconnectedHook(hook_data))

    # --- tunnels that are passed on -------------------------------------------------------------

    async def drain_writers(self) -> None:
        """Between two reads of the worker a tunnel may be taken, and is carried in their place."""
        await super().drain_writers()
        if self._reads_worker() and (relay := self.guard.take_relay()) is not None:
            await self._carry_tunnel(relay)

    async def _carry_tunnel(self, relay: Relay) -> None:
        """Carry a tunnel in place of reading the worker; when this returns, the tunnel is over."""
        outcome = Reason.INTERNAL.value
        try:
            outcome = await self._pass_on(relay)
        except (Refused, DialRefused) as refused:
            outcome = refused.reason.value
            self.abort(refused.reason)
        except asyncio.CancelledError:
            outcome = "client_closed"
            raise
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            self._refuse_fault()
            _log.error("carrying a tunnel failed: %s", type(fault).__name__)
        finally:
            if self._passed_on is not None and outcome != COMPLETE:
                reset(self._passed_on)
            self.guard.tunnel_over(self.guard.outcome(outcome))

    async def _pass_on(self, relay: Relay) -> str:
        if self._aborted is not None:
            raise Refused(self._aborted, audited=True)
        server = Side(*await self._dial(self.guard.pinned_for_relay(), is_http=False))
        self._passed_on = server.writer
        if self._aborted is not None:  # while it was dialled
            raise Refused(self._aborted, audited=True)
        io = self.transports[self.client]
        if not (
            isinstance(io.reader, asyncio.StreamReader)
            and isinstance(io.writer, asyncio.StreamWriter)
        ):
            raise Refused(Reason.PROTOCOL_NOT_SUPPORTED)
        worker = Side(io.reader, io.writer)
        carrier = TunnelCarrier(worker, server, relay, self.guard.deadlines, self.guard.stop_tunnel)
        outcome = await carrier.run()
        worker.writer.close()
        return outcome

    # --- logging --------------------------------------------------------------------------------

    def log(
        self,
        message: str,
        level: int = logging.INFO,
        exc_info: Literal[True]
        | tuple[type[BaseException], BaseException, TracebackType | None]
        | None = None,
    ) -> None:
        """mitmproxy's own messages hold raw requests and never reach a log. Where one reports a
        crash of its layers, nothing is known about the connection any more: it is reset."""
        if exc_info is not None:
            kind: Any = exc_info[0].__name__ if isinstance(exc_info, tuple) else "exception"
            self._refuse_fault()
            _log.error("protocol layer failed (%s); the connection is reset", kind)

    def _refuse_fault(self) -> None:
        """A fault outside a hook: audited once, and both sides are reset."""
        if self._aborted is None:
            self.abort(Reason.INTERNAL)
            self.guard.core.refuse_early(Reason.INTERNAL, self.guard.requester, self.source)
