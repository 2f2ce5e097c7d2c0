"""The grammar of `palyra-fleet node install|run|status|uninstall`."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from palyra_fleet.cli.place import Home

CLIENT_KINDS: Final = ("node", "proxy", "desktop", "cli")

type _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]


def add_node_agent(verbs: _Verbs) -> None:
    """Add the verbs to the noun `node`."""
    install = _verb(verbs, "install", "pair this machine; the code comes from standard input")
    install.add_argument("--enrolment", type=_address, required=True, metavar="HOST:PORT")
    install.add_argument("--node", type=_address, required=True, metavar="HOST:PORT")
    install.add_argument("--ca", type=Path, required=True, help="the fleet's CA certificate, PEM")
    install.add_argument("--kind", choices=CLIENT_KINDS, default="node")
    install.add_argument(
        "--again", action="store_true", help="although it is paired: as another device"
    )
    _verb(verbs, "run", "be a node until Ctrl-C")
    status = _verb(verbs, "status", "who this node is and whether it is connected")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    uninstall = _verb(verbs, "uninstall", "revoke this node's pairing and forget it")
    uninstall.add_argument(
        "--local-only", action="store_true", help="forget it without telling the fleet"
    )


def _verb(verbs: _Verbs, name: str, text: str) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.add_argument(
        "--home",
        type=Path,
        default=Home.of().directory / "node-agent",
        metavar="DIR",
        help="where this node keeps its pairing, sealed (default PALYRA_HOME/node-agent)",
    )
    verb.set_defaults(run=_later(name))
    return verb


def _later(handler: str) -> Callable[[argparse.Namespace], int]:
    """A handler that is imported when it is called: gRPC is slow to load."""

    def call(arguments: argparse.Namespace) -> int:
        module = importlib.import_module("palyra_fleet.cli.node_agent_commands")
        return int(getattr(module, handler)(arguments))

    return call


def _address(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise argparse.ArgumentTypeError("expected HOST:PORT")
    return text
