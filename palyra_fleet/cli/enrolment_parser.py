"""The grammar of `palyra-fleet proxy|launcher|reference`."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import LaterModule

if TYPE_CHECKING:
    from palyra_fleet.cli import enrolment_commands, local_commands
else:
    enrolment_commands = LaterModule("palyra_fleet.cli.enrolment_commands")
    local_commands = LaterModule("palyra_fleet.cli.local_commands")

type _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
type _OperatorVerb = Callable[..., argparse.ArgumentParser]


def add_enrolment(verbs: _Verbs, operator_verb: _OperatorVerb) -> None:
    """The verbs that proxies and launchers share."""
    enrol = operator_verb(verbs, "enrol", "make a key known", enrolment_commands.enrol)
    enrol.add_argument("name", type=types.name)
    enrol.add_argument(
        "public_key",
        nargs="?",
        type=types.public_key,
        help="base64 of the raw Ed25519 key; good on the fleet's own machine",
    )
    enrol.add_argument(
        "--device", type=types.ulid, metavar="ID", help="the key of this paired machine instead"
    )
    operator_verb(verbs, "list", "every one, also taken back", enrolment_commands.list_enrolled)
    revoke = operator_verb(
        verbs, "revoke", "trust it no more, nor who rests on it", enrolment_commands.revoke
    )
    revoke.add_argument("name", type=types.name)
    revoke.add_argument("--reason", type=types.reason, required=True)


def add_launcher_key(verbs: _Verbs) -> None:
    key = verbs.add_parser("key", help="make a launcher's key file; prints the public key")
    key.add_argument("file", type=Path)
    key.set_defaults(run=local_commands.make_launcher_key)


def add_references(verbs: _Verbs, operator_verb: _OperatorVerb) -> None:
    add = operator_verb(verbs, "add", "accept these digests", enrolment_commands.add_reference)
    withdraw = operator_verb(
        verbs, "withdraw", "accept these digests no more", enrolment_commands.withdraw_reference
    )
    for verb in (add, withdraw):
        for field in ("image", "build", "artifact"):
            verb.add_argument(f"--{field}", type=types.digest, action="append", default=[])
    add.add_argument("--measure", metavar="PROGRAM", help="measure this program here and now")
    withdraw.add_argument(
        "--measure", metavar="PROGRAM", help="the digest of this program, measured here and now"
    )
    withdraw.add_argument("--reason", type=types.reason, required=True)
    operator_verb(verbs, "list", "what is accepted", enrolment_commands.list_references)
