"""`palyra-fleet freeze` and `unfreeze`: the kill switch, for new leases alone or for all egress."""

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command
from palyra_fleet.cli.output import show_one
from palyra_fleet.cli.trouble import ExitCode

if TYPE_CHECKING:
    from palyra_fleet.client import OperatorClient

type _Verbs = "argparse._SubParsersAction[argparse.ArgumentParser]"
type _AddVerb = Callable[[_Verbs, str, str, Command], argparse.ArgumentParser]


def add_freeze(verbs: _Verbs, add_verb: _AddVerb) -> None:
    _take_reason(add_verb(verbs, "leases", "give no new leases; what runs goes on", _freeze_leases))
    add_verb(verbs, "show", "what is frozen now, since when and by whom", _show)
    nothing = "let nothing through any proxy, cut what is open, and give no new leases"
    _take_reason(add_verb(verbs, "egress", nothing, _freeze_egress))


def add_unfreeze(verbs: _Verbs, add_verb: _AddVerb) -> None:
    goes_on = "let what runs go on; new leases stay frozen"
    _take_reason(add_verb(verbs, "egress", goes_on, _unfreeze_egress))
    everything = "end every freeze, a storm's among them"
    _take_reason(add_verb(verbs, "all", everything, _unfreeze_all))


def _take_reason(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--reason", type=types.reason, required=True)


async def _show(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_one(await client.frozen(), arguments.output)
    return ExitCode.DONE


async def _freeze_leases(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_one(await client.freeze(arguments.reason), arguments.output)
    return ExitCode.DONE


async def _freeze_egress(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_one(await client.freeze(arguments.reason, egress=True), arguments.output)
    return ExitCode.DONE


async def _unfreeze_egress(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_one(await client.unfreeze(arguments.reason, egress_only=True), arguments.output)
    return ExitCode.DONE


async def _unfreeze_all(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_one(await client.unfreeze(arguments.reason), arguments.output)
    return ExitCode.DONE
