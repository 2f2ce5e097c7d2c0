"""The enforcing handler: mitmproxy's connection handler with the guard sealed in.

It calls the guard itself at every hook, after the addon chain (if there is one), outside the code
that swallows addon exceptions. A guard that refuses, raises, hangs or is cancelled, a hook that
is not in our table, and a crash of mitmproxy's own layers all end in the same way: both sides of
the connection are reset. It owns `open_connection`: only what the guard has pinned is dialled.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Final, Literal

from mitmproxy import flow as mitmproxy_flow
from mitmproxy.connection import Connection, ConnectionState, Server
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy import commands, events, mode_specs, server_hooks
from mitmproxy.proxy.server import ConnectionIO

from palyra_egress.proxy.channels.channel import Channel
from palyra_egress.proxy.guard import ConnectionGuard
from palyra_egress.proxy.guard_parts import Pinned, Refused
from palyra_egress.proxy.hooks import DECIDED, OURS_ALONE, TOLD
from palyra_egress.proxy.pieces import in_pieces
from palyra_egress.proxy.pinned_dial import DialRefused, dial_pinned
from palyra_egress.proxy.redirected import Address
from palyra_egress.proxy.relay import Relay
from palyra_egress.proxy.relaying import COMPLETE, Side, TunnelCarrier
from palyra_egress.proxy.resets import reset
from palyra_egress.proxy.severable import SeverableHandler
from palyra_egress.proxy.wakeups import AwaitRoom, AwaitWord
from palyra_egress.reasons import Reason
from palyra_egress.request import Requester

HOOK_DEADLINE_S: Final = 15.0
IDENTITY_DEADLINE_S: Final = 20.0
UPSTREAM_READY_DEADLINE_S: Final = 30.0

_log = logging.getLogger(__name__)

type AddonChain = Callable[[commands.StartHook], Awaitable[None]]
type GuardFactory = Callable[["EnforcingHandler"], ConnectionGuard]


class EnforcingHandler(SeverableHandler):
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
        self._running_hooks = 0
        self._progress = asyncio.Event()
        self._word = asyncio.Event()
        self._timers: list[asyncio.TimerHandle] = []
        self.guard = make_guard(self)

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

    def wake_layer(self) -> None:
        self._word.set()

    async def handle_client(self) -> None:
        """Run the connection to its end; however it ends, it is not counted any longer. One that
        has not shown whose it is in time only takes room, and is cut."""
        self.after(self._identity_deadline_s, self._expect_identity)
        try:
            await super().handle_client()
        finally:
            for timer in self._timers:
                timer.cancel()
            self.guard.give_places_back()
            self.guard.core.connections.forget(self)

    def _expect_identity(self) -> None:
        if self.guard.requester is None:
            self.abort(Reason.NO_IDENTITY)

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._timers.append(asyncio.get_running_loop().call_later(delay_s, callback))

    def review(self) -> None:
        """Judge again what is open here; a fault on the way cuts it."""
        if self._aborted is not None:
            return
        try:
            self.guard.review()
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            _log.error("judging again failed: %s", type(fault).__name__)
            self._refuse_fault()

    # --- back-pressure --------------------------------------------------------------------------

    def progressed(self) -> None:
        """Something that the worker's bytes may have waited for has happened."""
        self._progress.set()

    def _is_pending(self) -> bool:
        """Whether what an HTTP/1 worker sends now would have to wait. In HTTP/2 every stream has a
        window, which is not opened again meanwhile."""
        if self._aborted is not None or self.guard.is_multiplexed:
            return False
        return self._running_hooks > 0 or self.guard.awaits_upstream

    async def drain_writers(self) -> None:
        """Called between two reads of either side, which then waits for the other one to take what
        it was sent: an HTTP/2 worker, whose streams have windows, only for itself to read answers,
        a server never for itself, since it may not read before it was read from. An HTTP/1 worker
        is not read from while a decision is pending or its upstream is not ready either: mitmproxy
        would keep all it sends in memory."""
        client = self.transports.get(self.client)
        if client is None or client.handler is not asyncio.current_task():
            await self._drain([self.client])
            await self._wait_while(self._is_backed_up)
            return
        sides = [self.client] if self.guard.is_multiplexed else list(self.transports)
        await self._drain(sides)
        await self._wait_while(self._is_backed_up)
        try:
            async with asyncio.timeout(UPSTREAM_READY_DEADLINE_S):
                await self._wait_while(self._is_pending)
        except TimeoutError:
            self.guard.upstream_overdue()
        if (relay := self.guard.take_relay()) is not None:
            await self._carry_tunnel(relay)

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

    async def _take_data(self, event: events.DataReceived) -> None:
        """Hand on what was read, as far as the worker's share of this pass of the loop goes."""
        if self.guard.takes_pieces(event.connection):
            await in_pieces(event, self._handle_data, self._has_share)
        elif await self._has_share(len(event.data)):
            await self._handle_data(event)
        self._progress.set()

    async def _handle_data(self, event: events.DataReceived) -> None:
        began_s = time.thread_time()
        await super().server_event(event)
        self.guard.core.shares.charge(self._shares_as, time.thread_time() - began_s)

    @property
    def _shares_as(self) -> str:
        """Who has the share; those that have not shown whose they are share by address."""
        who = self.requester
        return who.worker_id if who is not None else f"{self.client.peername[:1]}"

    async def _has_share(self, cost_bytes: int) -> bool:
        """Wait for the worker's share. False once the connection was aborted, or this task was
        ended meanwhile: it hears of that at its next wait, where it can end in order."""
        if self._aborted is not None:
            return False
        try:
            await self.guard.core.shares.take(self._shares_as, cost_bytes)
        except asyncio.CancelledError:
            if (task := asyncio.current_task()) is not None:
                task.cancel("ended while it waited for its share")
            return False
        return self._aborted is None

    async def _wait_while(self, waits: Callable[[], bool]) -> None:
        while waits():
            self._progress.clear()
            await self._progress.wait()

    def _is_backed_up(self) -> bool:
        """Whether the other side's windows have no room for what the side of this task sends."""
        task = asyncio.current_task()
        return self._aborted is None and any(
            self.guard.is_backed_up(side)
            for side, io in self.transports.items()
            if io.handler is task
        )

    async def _drain(self, sides: Sequence[Connection]) -> None:
        """Wait until these sides have taken what was written to them."""
        for side in sides:
            io = self.transports.get(side)
            if io is None or io.writer is None:
                continue
            try:
                await io.writer.drain()
            except OSError as error:
                if io.handler is not None:
                    io.handler.cancel(f"Error sending data: {error}")

    async def wakeup(self, request: commands.RequestWakeup) -> None:
        """Wake a layer: after a while, when one side has room again, or when its guard has a word
        for it."""
        match request:
            case AwaitRoom():
                await self._drain([request.connection])
            case AwaitWord():
                await self._word.wait()
                self._word.clear()
            case _:
                await super().wakeup(request)
                return
        self.wakeup_timer -= {asyncio.current_task()}
        await self.server_event(events.Wakeup(request))

    # --- hooks ----------------------------------------------------------------------------------

    def hook_task(self, hook: commands.StartHook) -> Coroutine[Any, Any, None]:
        """Counted from the moment a layer asks, and until it has heard the answer: nothing is read
        of the worker in between."""
        self._running_hooks += 1
        return self._counted(hook)

    async def _counted(self, hook: commands.StartHook) -> None:
        try:
            await super().hook_task(hook)
        finally:
            self._running_hooks -= 1
            self.progressed()

    async def handle_hook(self, hook: commands.StartHook) -> None:
        await self._run_hook(hook)

    async def _run_hook(self, hook: commands.StartHook) -> None:
        with self.timeout_watchdog.disarm():
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
                _log.error("hook %s took longer than %s s", hook.name, self._hook_deadline_s)
                self._end(hook, Reason.DEADLINE)
            except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
                _log.error("hook %s failed: %s", hook.name, type(fault).__name__)
                self._end(hook, Reason.INTERNAL)

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
            self.guard.core.refuse_early(reason, self.guard.requester)
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
            reader, writer = await self._dial(self.guard.pinned_for(server))
        except (Refused, DialRefused) as refused:
            await self._dial_failed(command, refused.reason)
            return
        except asyncio.CancelledError:
            await self._dial_failed(command, Reason.UPSTREAM_UNREACHABLE)
            raise
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            _log.error("dialling failed: %s", type(fault).__name__)
            self._refuse_fault()
            await self._dial_failed(command, Reason.INTERNAL)
            return
        if (aborted := self._aborted) is not None:
            reset(writer)
            await self._dial_failed(command, aborted)
            return
        await self._carry(command, hook_data, reader, writer)

    async def _dial(self, pinned: Pinned) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        own_ports = self.guard.core.service.wildcard_ports
        return await dial_pinned(pinned.addresses, pinned.port, own_ports=own_ports)

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
        server.state = ConnectionState.OPEN
        server.peername = writer.get_extra_info("peername")
        server.sockname = writer.get_extra_info("sockname")
        self.transports[server] = ConnectionIO(asyncio.current_task(), reader, writer)
        try:
            await self.handle_hook(server_hooks.ServerConnectedHook(hook_data))
            await self.server_event(events.OpenConnectionCompleted(command, None))
            await self.handle_connection(server)
        finally:
            await self.handle_hook(server_hooks.ServerDisconnectedHook(hook_data))

    # --- tunnels that are passed on -------------------------------------------------------------

    async def _carry_tunnel(self, relay: Relay) -> None:
        """Carry a tunnel in place of reading the worker; when this returns, the tunnel is over."""
        outcome = Reason.INTERNAL.value
        try:
            with self.timeout_watchdog.disarm():
                outcome = await self._pass_on(relay)
        except (Refused, DialRefused) as refused:
            outcome = refused.reason.value
            self.abort(refused.reason)
        except asyncio.CancelledError:
            outcome = "client_closed"
            raise
        except Exception as fault:  # noqa: BLE001 the proxy's outer edge: every fault refuses
            _log.error("carrying a tunnel failed: %s", type(fault).__name__)
            self._refuse_fault()
        finally:
            if self._passed_on is not None:
                if outcome == COMPLETE:
                    self._passed_on.close()
                else:
                    reset(self._passed_on)
            self.guard.tunnel_over(self.guard.outcome(outcome))

    async def _pass_on(self, relay: Relay) -> str:
        if self._aborted is not None:
            raise Refused(self._aborted, audited=True)
        server = Side(*await self._dial(self.guard.pinned_for_relay()))
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
            _log.error("protocol layer failed (%s); the connection is reset", kind)
            self._refuse_fault()

    def _refuse_fault(self) -> None:
        """A fault outside a hook: audited once, and both sides are reset."""
        if self._aborted is None:
            self.abort(Reason.INTERNAL)
            self.guard.core.refuse_early(Reason.INTERNAL, self.guard.requester)
