"""Listeners that say whose connections they take: Unix sockets, and one listener for each lease.

`PeerSocket` takes everybody the file system lets in and asks the kernel who it is: configured
accounts stand for workers, anybody else is cut off. `LeaseListeners` follows the fleet's view:
while a lease lives there is a socket in a directory for it, or an address for its worker; both go
with the lease. Whoever is given that listener alone (a mount, a network namespace) is that worker.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from palyra_egress.errors import OperatorMustAct
from palyra_egress.proxy.bounds.accepting import ACCEPTED_AT_ONCE, with_long_queue
from palyra_egress.proxy.channels.carry import Carry, TurnedAway, UnixWriter
from palyra_egress.proxy.channels.channel import Channel, ChannelKind
from palyra_egress.proxy.channels.peer_process import peer_process
from palyra_egress.reasons import Reason

_MOST_PATH_BYTES: Final = 107  # sun_path of unix(7), with its final zero

type Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_log = logging.getLogger(__name__)


class SocketPathError(OperatorMustAct):
    """Where a Unix socket should be there is something else, or its path does not fit."""


@dataclass(frozen=True, slots=True)
class PeerSocketSettings:
    """A socket for several accounts. `workers` is worker id by uid. Its mode lets everybody
    connect: the kernel's word decides, not the file's mode."""

    path: Path
    workers: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class LeaseListenerSettings:
    """`directory` for a socket `LEASE.sock` per lease, made with `mode`; `addresses` by worker
    id, and by worker id too what netfilter leads a worker's connections to (`redirected`)."""

    directory: Path | None = None
    mode: int = 0o600
    addresses: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    redirected: Mapping[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def listening(self) -> frozenset[tuple[str, int]]:
        return frozenset((*self.addresses.values(), *self.redirected.values()))


class PeerSocket:
    """The socket where the account behind a connection names its worker."""

    def __init__(self, settings: PeerSocketSettings, carry: Carry, turned_away: TurnedAway) -> None:
        self._settings = settings
        self._carry = carry
        self._turned_away = turned_away
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Raises OSError or SocketPathError."""
        self._server = await _listen_at(self._settings.path, 0o666, self._accept)

    async def close(self) -> None:
        """Take no new connections; running ones go on."""
        if self._server is not None:
            self._server.close()
            _remove_socket(self._settings.path)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        channel = self._channel(writer)
        if channel is None:
            self._turned_away(Reason.NO_IDENTITY)
            writer.transport.abort()
            return
        await self._carry(reader, _unix(reader, writer), channel)

    def _channel(self, writer: asyncio.StreamWriter) -> Channel | None:
        sock = writer.get_extra_info("socket")
        peer = peer_process(sock) if sock is not None else None
        worker = self._settings.workers.get(peer.uid) if peer is not None else None
        if peer is None or worker is None:
            _log.warning("an account that stands for no worker connected (%s)", peer)
            return None
        return Channel(ChannelKind.PEER, worker_id=worker, is_unchanged=peer.is_there)


class LeaseListeners:
    """The listeners of all live leases. `follow` is told which those are."""

    def __init__(
        self, settings: LeaseListenerSettings, carry: Carry, carry_redirected: Carry
    ) -> None:
        self._settings = settings
        self._carry = carry
        self._carry_redirected = carry_redirected
        self._open: dict[str, list[asyncio.Server]] = {}
        self._following = asyncio.Lock()
        self.problem: str | None = None

    def check(self) -> None:
        """Make the directory, and clear it of sockets that an earlier proxy left. Raises OSError or
        SocketPathError."""
        directory = self._settings.directory
        if directory is None:
            return
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in directory.glob("*.sock"):
            _clear(path)

    @property
    def open_leases(self) -> frozenset[str]:
        return frozenset(self._open)

    async def follow(self, leases: Mapping[str, str]) -> None:
        """Open what is missing and close what is over; `leases` is worker id by lease id."""
        async with self._following:
            for lease_id in self._open.keys() - leases.keys():
                self._close(lease_id)
            problem = None
            for lease_id in leases.keys() - self._open.keys():
                try:
                    self._open[lease_id] = await self._listen(lease_id, leases[lease_id])
                except (OSError, SocketPathError) as error:
                    problem = f"no listener for lease {lease_id}: {error}"
            if problem not in (None, self.problem):
                _log.error("%s", problem)
            self.problem = problem

    async def close(self) -> None:
        for lease_id in list(self._open):
            self._close(lease_id)

    async def _listen(self, lease_id: str, worker_id: str) -> list[asyncio.Server]:
        channel = Channel(ChannelKind.LISTENER, worker_id=worker_id, lease_id=lease_id)
        accept = partial(self._accept, channel)
        servers: list[asyncio.Server] = []
        try:
            if (address := self._settings.addresses.get(worker_id)) is not None:
                servers.append(await _listen_on(accept, address))
            if (address := self._settings.redirected.get(worker_id)) is not None:
                redirected = partial(self._accept_redirected, channel)
                servers.append(await _listen_on(redirected, address))
            if self._settings.directory is not None:
                path = _path_of(self._settings.directory, lease_id)
                servers.append(await _listen_at(path, self._settings.mode, accept))
        except BaseException:
            for server in servers:
                server.close()
            raise
        return servers

    def _close(self, lease_id: str) -> None:
        for server in self._open.pop(lease_id):
            server.close()
        if self._settings.directory is not None:
            _remove_socket(_path_of(self._settings.directory, lease_id))

    async def _accept(
        self, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        is_unix = writer.get_extra_info("socket").family == socket.AF_UNIX
        await self._carry(reader, _unix(reader, writer) if is_unix else writer, channel)

    async def _accept_redirected(
        self, channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await self._carry_redirected(reader, writer, channel)


def _path_of(directory: Path, lease_id: str) -> Path:
    return directory / f"{lease_id}.sock"


def _unix(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> UnixWriter:
    protocol = writer.transport.get_protocol()
    return UnixWriter(writer.transport, protocol, reader, asyncio.get_running_loop())


async def _listen_on(accept: Accept, address: tuple[str, int]) -> asyncio.Server:
    started = await asyncio.start_server(accept, *address, backlog=ACCEPTED_AT_ONCE)
    return with_long_queue(started)


async def _listen_at(path: Path, mode: int, accept: Accept) -> asyncio.Server:
    """A listening Unix socket that nobody reaches before it has its mode, in a directory where
    nobody else can put another in its place."""
    if len(str(path).encode()) > _MOST_PATH_BYTES:
        raise SocketPathError(
            f"{path}: longer than the {_MOST_PATH_BYTES} bytes of a socket's path"
        )
    _check_directory(path.parent)
    _clear(path)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(fresh))
        fresh.chmod(mode)
        fresh.rename(path)
        return with_long_queue(
            await asyncio.start_unix_server(
                accept, sock=sock, backlog=ACCEPTED_AT_ONCE, cleanup_socket=False
            )
        )
    except BaseException:
        sock.close()
        fresh.unlink(missing_ok=True)
        raise


def _check_directory(directory: Path) -> None:
    """Raises SocketPathError where somebody else may change what is in it: whoever puts his own
    socket there is the proxy for those workers."""
    found = directory.stat()
    is_shared = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
    if is_shared or found.st_uid not in (0, os.geteuid()):
        raise SocketPathError(
            f"{directory}: others may put a socket of theirs there; expected a directory of ours"
            " (or root's) that only its owner writes to"
        )


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on. Raises SocketPathError for anything else."""
    try:
        kind = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(kind):
        raise SocketPathError(f"{path}: is there and is no socket; expected none, or an old socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            path.unlink(missing_ok=True)
            return
    raise SocketPathError(f"{path}: somebody listens there already")


def _remove_socket(path: Path) -> None:
    with contextlib.suppress(OSError):  # gone already, or its directory is
        path.unlink()
