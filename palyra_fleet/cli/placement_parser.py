"""The grammar of `palyra-fleet run …`."""

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command, LaterModule
from palyra_fleet.worker.artifact_arguments import add_carried

if TYPE_CHECKING:
    from palyra_fleet.cli import placement_commands
else:
    placement_commands = LaterModule("palyra_fleet.cli.placement_commands")

type _Verbs = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_runs(
    verbs: _Verbs, add_verb: Callable[[_Verbs, str, str, Command], argparse.ArgumentParser]
) -> None:
    place = add_verb(
        verbs, "place", "offer an approved run to a worker that waits", placement_commands.place
    )
    place.add_argument("run_id", type=types.principal)
    place.add_argument(
        "--grant", type=types.ulid, metavar="ID", help="by this approval (default: the first)"
    )
    place.add_argument(
        "--capability",
        type=types.name,
        action="append",
        default=[],
        metavar="NAME",
        help="only to a worker that has it (may be repeated)",
    )
    place.add_argument(
        "--read-only",
        action="store_true",
        help="only to a worker that runs it isolated, with a workspace it cannot change",
    )
    add_carried(place)
    place.add_argument(
        "--ttl-s", type=types.seconds, default=300, help="the lease's length; it is renewed in time"
    )
    place.add_argument(
        "--wait",
        type=types.seconds,
        metavar="SECONDS",
        help="offer it again until a worker took it, for so long",
    )
    add_verb(verbs, "offers", "runs that are kept for a worker now", placement_commands.list_offers)
