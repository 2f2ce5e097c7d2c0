"""The grammar of the operator's `palyra-fleet node …` and of `node-state …`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import TypeAdapter

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command, LaterModule
from palyra_fleet.cli.place import Home
from palyra_fleet.wire.node_models import CapabilityName

if TYPE_CHECKING:
    from palyra_fleet.cli import node_commands, node_state_commands
else:
    node_commands = LaterModule("palyra_fleet.cli.node_commands")
    node_state_commands = LaterModule("palyra_fleet.cli.node_state_commands")

type _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
type _MakeVerb = Callable[[_Verbs, str, str, Command], argparse.ArgumentParser]

_capability: Final = types.matching(
    TypeAdapter(CapabilityName), "a name such as echo or system.health"
)


def add_node_operations(verbs: _Verbs, make: _MakeVerb) -> None:
    """Add the operator's verbs to the noun `node`; `make` gives each what they have in common."""
    code = make(verbs, "code", "mint a pairing code; it is shown once", node_commands.mint_code)
    code.add_argument("--method", choices=("pin", "qr"), default="pin")
    code.add_argument("--ttl-s", type=int, metavar="SECONDS", help="30 s to 24 h, default 10 min")
    for name, text, command in (
        ("list", "registered nodes", node_commands.list_nodes),
        ("requests", "devices that want to pair", node_commands.list_requests),
        ("asked", "what nodes were asked to do", node_commands.list_asked),
    ):
        verb = make(verbs, name, text, command)
        verb.add_argument("--limit", type=types.rows, help="so many, the newest (default: all)")
    _on(make(verbs, "show", "one node", node_commands.show_node), "device_id")
    for name, text, command in (
        ("approve", "let a device in; compare its fingerprint first", node_commands.approve),
        ("reject", "turn a device away", node_commands.reject),
    ):
        verb = make(verbs, name, text, command)
        _on(verb, "approval_id")
        _why(verb)
        if name == "approve":
            verb.add_argument(
                "--replace-identity",
                action="store_true",
                help="although the device is paired with another key",
            )
    invoke = make(verbs, "invoke", "ask a node to do something", node_commands.invoke)
    _on(invoke, "device_id")
    invoke.add_argument("capability", type=_capability)
    invoke.add_argument("--input", default="null", metavar="JSON")
    for name, text in (
        ("allow", "agree to what a node was asked to do"),
        ("refuse", "do not agree to it"),
    ):
        verb = make(verbs, name, text, node_commands.decide_asked)
        _on(verb, "request_id")
        _why(verb)


def add_node_state(verbs: _Verbs) -> None:
    """The ways back for `node-runtime.v1.json`. The fleet must not be running."""
    restore = verbs.add_parser("restore", help="put an earlier generation in place")
    restore.add_argument("--from", type=Path, required=True, dest="source", metavar="FILE")
    restore.set_defaults(run=node_state_commands.restore)
    foreign = verbs.add_parser("import", help="take over a file of the Rust system")
    foreign.add_argument("--from", type=Path, required=True, dest="source", metavar="FILE")
    foreign.add_argument("--master-key", type=Path, metavar="FILE")
    foreign.set_defaults(run=node_state_commands.import_foreign)
    for verb in (restore, foreign):
        verb.add_argument("--state-dir", type=Path, default=Home.of().fleet_state)


def _on(verb: argparse.ArgumentParser, name: str) -> None:
    verb.add_argument(name, type=types.ulid)


def _why(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--reason", type=types.reason, required=True)
