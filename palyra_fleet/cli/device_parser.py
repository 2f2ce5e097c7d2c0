"""The grammar of `palyra-fleet device …`, `certificate …` and `ca …`."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command, LaterModule
from palyra_fleet.identity.records import ClientKind
from palyra_fleet.wire.certificate_models import CertificateKind, Standing
from palyra_fleet.wire.node_models import DeviceState

if TYPE_CHECKING:
    from palyra_fleet.cli import device_commands
else:
    device_commands = LaterModule("palyra_fleet.cli.device_commands")

type _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
type _MakeVerb = Callable[[_Verbs, str, str, Command], argparse.ArgumentParser]


def add_devices(verbs: _Verbs, make: _MakeVerb) -> None:
    """`palyra-fleet device …`; `make` gives each verb what they have in common."""
    listed = make(verbs, "list", "devices that paired", device_commands.list_devices)
    listed.add_argument("--state", choices=tuple(DeviceState), help="only those in this state")
    listed.add_argument("--kind", choices=tuple(ClientKind), help="only those that are so")
    _limit(listed)
    make(verbs, "show", "one device", device_commands.show_device).add_argument(
        "device_id", type=types.ulid
    )
    rotate = make(
        verbs,
        "rotate",
        "demand a new certificate with a new key; those of now end at the deadline",
        device_commands.rotate_device,
    )
    _on_device(rotate)
    rotate.add_argument(
        "--within-s",
        type=types.between(60, 24 * 3600),
        default=600,
        metavar="SECONDS",
        help="until then it may use what it has: a minute to a day (default: 600)",
    )
    for name, text in (
        ("revoke", "end a device's certificates; its id stays out"),
        ("remove", "end a device's certificates and forget it"),
    ):
        _on_device(make(verbs, name, text, device_commands.end_device))


def add_certificates(verbs: _Verbs, make: _MakeVerb) -> None:
    """`palyra-fleet certificate …`."""
    listed = make(
        verbs,
        "list",
        "certificates of authorities, listeners and devices",
        device_commands.list_certificates,
    )
    listed.add_argument("--state", choices=tuple(Standing), help="only those in this state")
    listed.add_argument("--kind", choices=tuple(CertificateKind), help="only those of this kind")
    listed.add_argument("--device", type=types.ulid, metavar="DEVICE", help="only those of it")
    listed.add_argument(
        "--expires-within-s",
        type=types.between(0, 20 * 366 * 24 * 3600),
        metavar="SECONDS",
        help="only those that are good, and no longer than that",
    )
    _limit(listed)


def add_authorities(verbs: _Verbs, make: _MakeVerb) -> None:
    """`palyra-fleet ca …`."""
    make(verbs, "show", "trusted authorities, oldest first", device_commands.show_authorities)
    rotate = make(
        verbs,
        "rotate",
        "a new authority signs devices; the old one stays trusted until its last certificate ends",
        device_commands.rotate_authority,
    )
    _why(rotate)


def _limit(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--limit", type=types.rows, help="so many, the newest (default: all)")


def _on_device(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("device_id", type=types.ulid)
    _why(verb)


def _why(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--reason", type=types.reason, required=True)
