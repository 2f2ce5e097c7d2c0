"""The grammar of `palyra-fleet principal …`."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command, LaterModule
from palyra_fleet.wire.principal_models import Role

if TYPE_CHECKING:
    from palyra_fleet.cli import principal_commands
else:
    principal_commands = LaterModule("palyra_fleet.cli.principal_commands")

type _Verbs = argparse._SubParsersAction[argparse.ArgumentParser]
type _MakeVerb = Callable[[_Verbs, str, str, Command], argparse.ArgumentParser]


def add_principals(verbs: _Verbs, make: _MakeVerb) -> None:
    """Add the verbs; `make` gives each what operator's verbs have in common."""
    make(verbs, "self", "who your token stands for", principal_commands.show_self)
    make(verbs, "list", "everybody who is known", principal_commands.list_principals)
    create = make(
        verbs, "create", "make somebody known; prints the token once", principal_commands.create
    )
    create.add_argument("name", type=types.name)
    create.add_argument(
        "--role",
        choices=[role.value for role in Role],
        action="append",
        required=True,
        help="viewers look, operators stop, approvers let in, admins do all (may be repeated)",
    )
    create.add_argument(
        "--ttl-s", type=types.seconds, help="how long this holds; default: until revoked"
    )
    create.add_argument(
        "--issuer",
        type=types.issuer,
        metavar="URL",
        help="whose tokens stand for this principal, in place of one of ours (OpenID Connect)",
    )
    create.add_argument(
        "--subject",
        type=types.subject,
        metavar="SUB",
        help="the account there, as the issuer's tokens say in `sub`",
    )
    revoke = make(verbs, "revoke", "end a token and forget whose it was", principal_commands.revoke)
    rotate = make(
        verbs, "rotate", "another token in place of the one before", principal_commands.rotate
    )
    for verb in (revoke, rotate):
        verb.add_argument("name", type=types.name)
    for verb in (create, revoke, rotate):
        verb.add_argument("--reason", type=types.reason, required=True)
