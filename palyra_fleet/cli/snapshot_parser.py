"""The grammar of `palyra-fleet snapshot`: verbs, flags, and the function each verb calls."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command, LaterModule
from palyra_fleet.cli.place import Home

if TYPE_CHECKING:
    from palyra_fleet.cli import snapshot_commands
else:
    snapshot_commands = LaterModule("palyra_fleet.cli.snapshot_commands")

type _Verbs = "argparse._SubParsersAction[argparse.ArgumentParser]"
type _AddVerb = Callable[[_Verbs, str, str, Command], argparse.ArgumentParser]


def add_snapshots(verbs: _Verbs, add_verb: _AddVerb) -> None:
    save = verbs.add_parser("save", help="write a checked copy; the fleet may be running")
    inspect = verbs.add_parser("inspect", help="check a snapshot and say what it holds")
    restore = verbs.add_parser("restore", help="put a snapshot in place; the fleet is stopped")
    for verb, run in (
        (save, snapshot_commands.save),
        (inspect, snapshot_commands.inspect),
        (restore, snapshot_commands.restore),
    ):
        verb.add_argument("file", type=Path)
        verb.add_argument("-o", "--output", choices=("table", "json"), default="table")
        verb.set_defaults(run=run)
    for verb in (save, restore):
        verb.add_argument("--state-dir", type=Path, default=Home.of().fleet_state)
    asked = "have the running fleet save one beside its store"
    take = add_verb(verbs, "take", asked, snapshot_commands.take)
    take.add_argument("--reason", type=types.reason, required=True)
    add_verb(verbs, "list", "those that the fleet keeps there", snapshot_commands.list_kept)
    restore.add_argument(
        "--replace", action="store_true", help="set aside the state that is there already"
    )
    restore.add_argument(
        "--workers-may-return",
        action="store_true",
        help="where the state that was there cannot be read: do not quarantine every worker",
    )
