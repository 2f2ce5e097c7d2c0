"""The commands about releases that take two persons, and their grammar, among those of workers.

Who asked is told what is still needed, and how the other person says yes.
"""

import argparse
from argparse import Namespace
from collections.abc import Callable
from typing import TYPE_CHECKING

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.output import acknowledge, moment, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode

if TYPE_CHECKING:
    from palyra_fleet.client import OperatorClient
    from palyra_fleet.wire.models import WorkerView


def add_releases(
    verbs: "argparse._SubParsersAction[argparse.ArgumentParser]",
    operator_verb: Callable[..., argparse.ArgumentParser],
) -> None:
    ask = operator_verb(
        verbs, "request-release", "ask another person to release a worker", request_release
    )
    ask.add_argument("worker_id", type=types.ulid)
    operator_verb(verbs, "requests", "releases that wait for another person", list_requests)
    approve = operator_verb(
        verbs, "approve-release", "release a worker as another person asked", approve_release
    )
    withdraw = operator_verb(
        verbs, "withdraw-release", "take a request for a release back", withdraw_release
    )
    for verb in (approve, withdraw):
        verb.add_argument("release_id", type=types.ulid)
    for verb in (ask, approve, withdraw):
        verb.add_argument("--reason", type=types.reason, required=True)


async def request_release(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    asked = await client.request_release(arguments.worker_id, arguments.reason)
    show_one(asked, arguments.output)
    say(
        f"still quarantined: another person must approve by {moment(asked.expires_at_unix_ms)}, "
        f"with\n  palyra-fleet worker approve-release {asked.release_id} --reason …"
    )
    return ExitCode.DONE


async def list_requests(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_many(await client.release_requests(), arguments.output)
    return ExitCode.DONE


async def approve_release(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    released = await client.approve_release(arguments.release_id, arguments.reason)
    show_one(released, arguments.output)
    say_what_is_left(released)
    return ExitCode.DONE


def say_what_is_left(released: "WorkerView") -> None:
    """Released is not yet able to work where the clean-up of the last run failed."""
    if released.state == "failed":
        say(
            "released, but it gets no lease before its failed clean-up is settled, with\n"
            f"  palyra-fleet worker reverify {released.worker_id} --reason …"
        )


async def withdraw_release(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    await client.withdraw_release(arguments.release_id, arguments.reason)
    acknowledge(arguments, arguments.release_id, "withdrawn")
    return ExitCode.DONE
