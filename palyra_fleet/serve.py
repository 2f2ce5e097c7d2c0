"""Composition helpers: a started FleetService served on its listeners, and the files beside it.

`FleetServer.start` opens the Unix socket (0600, in a directory only its owner may enter) for
workers and proxies, the loopback listener for operators, a Unix socket of their own for operators
of this account, who thereby know that no other account listens there, and, where asked for, the
listener for workers and proxies on other machines (mutual TLS; see `api.remote_listener`), and
closes them in order. The operator token is a 0600 file made at the first start; other principals
stand in a file beside it, and only digests of tokens go into the server. The keys of `issuers` are
read while it runs.
"""

import asyncio
import errno
import ipaddress
import os
import resource
import secrets
import socket
import stat
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from aiohttp import web

from palyra_fleet.api.application import ApiSettings, make_application
from palyra_fleet.api.callers import ProofGate
from palyra_fleet.api.devices import DeviceGate
from palyra_fleet.api.protocol import (
    MAX_ADMIN_CONNECTIONS,
    MAX_SOCKET_CONNECTIONS,
    FleetConnection,
)
from palyra_fleet.api.remote_listener import RemoteSettings, served_remotely
from palyra_fleet.api.routes import Listener
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.issuers.keeper import kept_keys
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.principals.book import PrincipalBook, PrincipalFileError, token_sha256
from palyra_fleet.private_files import OPERATOR_TOKEN, credential, read_private
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.traces.spans import Spans
from palyra_fleet.wire.keys import KeyFileError

MAX_SOCKET_PATH_BYTES: Final = 107
TOKEN_BYTES: Final = 32
_MAX_TOKEN_BYTES: Final = 4096
_CLOSE_WITHIN_S: Final = 2.0
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})

__all__ = [
    "FleetServer",
    "ServeError",
    "find_operator_token",
    "load_or_create_operator_token",
    "open_principals",
    "write_admin_url",
]


class ServeError(Exception):
    """The fleet cannot listen there, or a file beside it is not safe; the operator must act."""


@dataclass(frozen=True, slots=True)
class FleetServer:
    """A fleet that is being served."""

    socket_path: Path
    admin_url: str
    remote_port: int | None = None

    @classmethod
    @asynccontextmanager
    async def start(
        cls,
        service: FleetService,
        socket_path: Path,
        admin_host: str,
        admin_port: int,
        principals: PrincipalBook,
        *,
        issuers: Sequence[TrustedIssuer] = (),
        operators_socket: Path | None = None,
        nodes: NodeOperations | None = None,
        remote: RemoteSettings | None = None,
        spans: Spans | None = None,
        clock: Callable[[], int] = now_unix_ms,
        body_within_ms: int = 10_000,
        view_write_within_ms: int = 5_000,
    ) -> AsyncIterator["FleetServer"]:
        """Serve `service` until the block ends; the service itself stays the caller's to close.

        `admin_port` 0 takes a free port. Raises ServeError; with `remote` also ListenError and
        TlsUnsound.
        """
        if operators_socket is not None:
            _tell_apart(socket_path, operators_socket)
        service.counts.spans = None if spans is None else spans.counts
        admin = _listen_on_loopback(admin_host, admin_port)
        sockets = {Listener.SOCKET: list[socket.socket](), Listener.ADMIN: [admin]}
        files = {socket_path: Listener.SOCKET}
        if operators_socket is not None:
            files[operators_socket] = Listener.ADMIN
        made: list[Path] = []
        try:
            for file, listener in files.items():
                sockets[listener].append(_listen_on_socket_file(file))
                made.append(file)
        except ServeError:
            _end(chain(*sockets.values()), made)
            raise
        most = {Listener.SOCKET: _socket_connections(), Listener.ADMIN: MAX_ADMIN_CONNECTIONS}
        proofs = ProofGate(service.caller_by_key)
        try:
            async with AsyncExitStack() as serving:
                problems = service.counts.issuer_problems
                keys = kept_keys(issuers, clock, problems=problems)
                settings = ApiSettings(
                    principals=principals,
                    issuers=await serving.enter_async_context(keys),
                    spans=spans,
                    admin_hosts=_LOOPBACK_NAMES | {admin_host.lower()},
                    body_within_ms=body_within_ms,
                    view_write_within_ms=view_write_within_ms,
                )
                remote_port = None
                for listener, opened in sockets.items():
                    application = make_application(
                        listener, service, settings, clock, nodes, proofs=proofs
                    )
                    serves = _served(application, opened, most[listener])
                    await serving.enter_async_context(serves)
                if remote is not None:
                    application = make_application(
                        Listener.REMOTE,
                        service,
                        settings,
                        clock,
                        devices=DeviceGate(remote.identity, remote.clock),
                        proofs=proofs,
                    )
                    remote_port = await serving.enter_async_context(
                        served_remotely(application, remote)
                    )
                yield cls(socket_path, _url_of(admin), remote_port)
        finally:
            _end(chain(*sockets.values()), made)


def load_or_create_operator_token(path: Path) -> str:
    """The operator's token, made at the first start. Raises ServeError if the file is not safe."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return _read_token(path)
    except OSError as error:
        raise ServeError(f"{path}: cannot make the token file: {error.strerror}") from error
    token = secrets.token_urlsafe(TOKEN_BYTES)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(token + "\n")
        file.flush()
        os.fsync(file.fileno())
    return token


def find_operator_token(path: Path) -> str:
    """The operator's token: what the service manager handed over, else the file's, made at the
    first start. Raises ServeError if the file is not safe or holds no token."""
    handed = credential(OPERATOR_TOKEN)
    if handed is None:
        return load_or_create_operator_token(path)
    try:
        token = read_private(handed, _MAX_TOKEN_BYTES).decode("ascii").strip()
    except (KeyFileError, UnicodeDecodeError) as error:
        raise ServeError(f"the operator's token cannot be used: {error}") from error
    if len(token) < TOKEN_BYTES:
        raise ServeError(f"{handed}: holds no token of at least {TOKEN_BYTES} characters")
    return token


def open_principals(directory: Path, operator_token: str) -> PrincipalBook:
    """The principals of the installation in `directory`, which is made if it is not there, and the
    holder of its token. Raises ServeError if directory or file are not usable."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ServeError(f"{directory}: cannot make the directory: {error.strerror}") from error
    try:
        return PrincipalBook.open(directory / "principals.json", token_sha256(operator_token))
    except PrincipalFileError as error:
        raise ServeError(str(error)) from error


def write_admin_url(path: Path, admin_url: str) -> None:
    """Say where the admin listener is, for browsers and scripts (replaces what was said before)."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(admin_url + "\n", encoding="ascii")
    fresh.replace(path)


def _read_token(path: Path) -> str:
    try:
        found = path.stat()
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ServeError(f"{path}: cannot read the token file") from error
    if found.st_uid != os.geteuid():
        raise ServeError(f"{path}: belongs to another user, who knows this token")
    if found.st_mode & 0o077:
        raise ServeError(f"{path}: mode {found.st_mode & 0o777:o} is too open; expected 600")
    if len(token) < TOKEN_BYTES:
        raise ServeError(f"{path}: holds no token; remove the file to have a new one made")
    return token


def _socket_connections() -> int:
    """How many connections the Unix socket may have: half of what the process can open."""
    can_open, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_SOCKET_CONNECTIONS if can_open < 0 else min(MAX_SOCKET_CONNECTIONS, can_open // 2)


@asynccontextmanager
async def _served(
    application: web.Application, listening: Sequence[socket.socket], most: int
) -> AsyncIterator[None]:
    """Accept connections until the block ends; then end what is open, and clean up."""
    runner = web.AppRunner(application, handle_signals=False, shutdown_timeout=_CLOSE_WITHIN_S)
    await runner.setup()
    try:
        loop = asyncio.get_running_loop()
        accepting = [
            await loop.create_server(lambda: FleetConnection(runner, most), sock=one)
            for one in listening
        ]
        try:
            yield
        finally:
            for server in accepting:
                server.close()
    finally:
        await runner.cleanup()


def _listen_on_loopback(host: str, port: int) -> socket.socket:
    try:
        address = ipaddress.ip_address("127.0.0.1" if host.lower() == "localhost" else host)
    except ValueError:
        raise ServeError(f"{host}: the admin listener takes a loopback address") from None
    if not address.is_loopback:
        raise ServeError(f"{host}: the admin listener takes a loopback address only")
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((str(address), port))
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ServeError(f"{host}:{port}: cannot listen: {error.strerror}") from error
    return listening


def _url_of(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _tell_apart(workers: Path, operators: Path) -> None:
    if workers.resolve() == operators.resolve():
        raise ServeError(f"{workers}: is the operators' socket; name another for workers")


def _listen_on_socket_file(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > MAX_SOCKET_PATH_BYTES:
        said = f"{path}: a socket path has at most {MAX_SOCKET_PATH_BYTES} bytes"
        raise ServeError(f"{said}; this one has {len(os.fsencode(path))}")
    _own_directory(path.parent)
    _remove_dead_socket(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.setblocking(False)
    except OSError as error:
        listening.close()
        raise ServeError(f"{path}: cannot listen: {error.strerror}") from error
    return listening


def _own_directory(directory: Path) -> None:
    """Make the directory, or refuse one that others may enter: the socket's guard is its folder."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
    except OSError as error:
        raise ServeError(f"{directory}: cannot make the directory: {error.strerror}") from error
    if found.st_mode & 0o077 or found.st_uid != os.geteuid():
        raise ServeError(f"{directory}: others may enter this directory; expected your own, 700")


def _end(listening: Iterable[socket.socket], files: Iterable[Path]) -> None:
    """Close what listens, and take away the socket files."""
    for one in listening:
        one.close()
    for file in files:
        file.unlink(missing_ok=True)


def _remove_dead_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ServeError(f"{path}: is there already and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        answer = probe.connect_ex(str(path))
    if answer not in {errno.ECONNREFUSED, errno.ENOENT}:
        raise ServeError(f"{path}: another fleet is listening there")
    path.unlink(missing_ok=True)
