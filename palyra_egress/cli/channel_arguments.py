"""The channels that a proxy may have beside its plain listener, as arguments."""

import argparse
from argparse import Namespace
from pathlib import Path
from typing import Final

from palyra_egress.proxy.channels.settings import ChannelSettings
from palyra_egress.proxy.channels.worker_sockets import LeaseListenerSettings, PeerSocketSettings
from palyra_egress.proxy.channels.worker_tls import WorkerTlsSettings
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.wire.ids import is_canonical_ulid

DEFAULT_TRUST_DOMAIN: Final = "palyra.internal"
MODES: Final = {"0600": 0o600, "0660": 0o660, "0666": 0o666}


def add_channel_arguments(parser: argparse.ArgumentParser) -> None:
    """See docs/channels.md."""
    channels = parser.add_argument_group("who is asking (docs/channels.md)")
    channels.add_argument(
        "--worker-tls", type=address, metavar="HOST:PORT", help="where workers use mutual TLS"
    )
    channels.add_argument(
        "--worker-roots", type=Path, metavar="PEM", help="the fleet's authority, for --worker-tls"
    )
    channels.add_argument(
        "--worker-trust-domain",
        default=DEFAULT_TRUST_DOMAIN,
        metavar="NAME",
        help=f"of the workers' certificates (default {DEFAULT_TRUST_DOMAIN})",
    )
    channels.add_argument(
        "--worker-tls-name",
        action="append",
        default=[],
        metavar="NAME",
        help="a name that workers call the proxy by, for its certificate (may be repeated)",
    )
    channels.add_argument(
        "--peer-socket", type=Path, metavar="PATH", help="a Unix socket for the accounts of --peer"
    )
    channels.add_argument(
        "--peer",
        type=_peer,
        action="append",
        default=[],
        metavar="UID=WORKER",
        help="at --peer-socket this account is this worker (may be repeated)",
    )
    channels.add_argument(
        "--lease-sockets", type=Path, metavar="DIR", help="a Unix socket for each lease, made here"
    )
    channels.add_argument(
        "--lease-socket-mode",
        choices=sorted(MODES),
        default="0600",
        help="who may connect to those (default 0600)",
    )
    channels.add_argument(
        "--worker-listen",
        type=_worker_address,
        action="append",
        default=[],
        metavar="WORKER=HOST:PORT",
        help="an address for one worker, open while it has a lease (may be repeated)",
    )
    channels.add_argument(
        "--worker-redirect",
        type=_worker_address,
        action="append",
        default=[],
        metavar="WORKER=HOST:PORT",
        help="where netfilter leads what one worker connects to (docs/doors.md; may be repeated)",
    )


def channels_of(arguments: Namespace) -> ChannelSettings:
    """The channels that were asked for. Raises Trouble where half of one was."""
    _both(arguments.worker_tls, "--worker-tls", arguments.worker_roots, "--worker-roots")
    _both(arguments.peer_socket, "--peer-socket", arguments.peer, "--peer")
    tls = None
    if arguments.worker_tls is not None:
        host, port = arguments.worker_tls
        names = tuple(arguments.worker_tls_name) or ("localhost",)
        tls = WorkerTlsSettings(
            host, port, arguments.worker_roots, arguments.worker_trust_domain, names
        )
    peers = None
    if arguments.peer_socket is not None:
        peers = PeerSocketSettings(arguments.peer_socket, _once(arguments.peer, "--peer"))
    leases = None
    if arguments.lease_sockets is not None or arguments.worker_listen or arguments.worker_redirect:
        leases = LeaseListenerSettings(
            arguments.lease_sockets,
            MODES[arguments.lease_socket_mode],
            _once(arguments.worker_listen, "--worker-listen"),
            _once(arguments.worker_redirect, "--worker-redirect"),
        )
    return ChannelSettings(tls, peers, leases)


def address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _peer(text: str) -> tuple[int, str]:
    uid, _, worker = text.partition("=")
    if not (uid.isascii() and uid.isdecimal()) or not is_canonical_ulid(worker):
        raise argparse.ArgumentTypeError("expected UID=WORKER, a number and a worker's id")
    return int(uid), worker


def _worker_address(text: str) -> tuple[str, tuple[str, int]]:
    worker, _, where = text.partition("=")
    if not is_canonical_ulid(worker):
        raise argparse.ArgumentTypeError("expected WORKER=HOST:PORT")
    host, port = address(where)
    if port == 0:
        raise argparse.ArgumentTypeError("expected a port from 1 on, since it must be told")
    return worker, (host, port)


def _once[K, V](pairs: list[tuple[K, V]], option: str) -> dict[K, V]:
    """A table in which nothing was said twice. Raises Trouble."""
    table = dict(pairs)
    if len(table) == len(pairs) == len(set(table.values())):
        return table
    raise Trouble(
        ExitCode.YOURS,
        "a channel is not clear",
        f"{option} names the same one twice",
        "name each account, address and worker once",
    )


def _both(first: object, first_option: str, second: object, second_option: str) -> None:
    if bool(first) == bool(second):
        return
    given, missing = (first_option, second_option) if first else (second_option, first_option)
    raise Trouble(
        ExitCode.YOURS, "a channel is not whole", f"{given} needs {missing}", f"add {missing}"
    )
