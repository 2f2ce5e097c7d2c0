"""The operator's commands: each asks the fleet one thing and shows the answer.

Every function takes the parsed arguments and a client, and returns the exit code; a refusal comes
as FleetProblem and is put into words by `main`.
"""

import asyncio
from argparse import Namespace

from palyra_fleet.cli.later import Command
from palyra_fleet.cli.output import acknowledge, clear, say, show_many, show_one
from palyra_fleet.cli.place import find_fleet
from palyra_fleet.cli.release_commands import say_what_is_left
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.client import OperatorClient, WorkerAction
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.lease_models import LeasesThat
from palyra_fleet.wire.models import GrantRequest
from palyra_fleet.wire.reattest_models import ReattestRequest


def run(command: Command, arguments: Namespace) -> ExitCode:
    """Run one command against the fleet that the arguments and the environment name."""

    async def with_client() -> ExitCode:
        waits = getattr(arguments, "wait", None) is not None or getattr(arguments, "follow", False)
        where, token = find_fleet(arguments.url, arguments.token_file, may_be_away=waits)
        async with OperatorClient(where, token) as client:
            code = await command(arguments, client)
            while getattr(arguments, "watch", None):
                await asyncio.sleep(arguments.watch)
                clear()
                code = await command(arguments, client)
            return code

    return asyncio.run(with_client())


async def list_workers(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.workers(
        arguments.state,
        arguments.eligibility,
        arguments.attestor,
        arguments.capability,
        tuple(arguments.label),
        waits=True if arguments.waits else None,
        demanded=True if arguments.demanded else None,
    )
    show_many(found, arguments.output)
    return ExitCode.DONE


async def show_worker(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_one(await client.worker(arguments.worker_id), arguments.output)
    return ExitCode.DONE


async def label_worker(arguments: Namespace, client: OperatorClient) -> ExitCode:
    changes = arguments.changes
    asked = LabelRequest(
        reason=arguments.reason,
        labels={key: value for key, value in changes if value is not None},
        remove=tuple(key for key, value in changes if value is None),
    )
    show_one(await client.label(arguments.worker_id, asked), arguments.output)
    return ExitCode.DONE


async def change_worker(arguments: Namespace, client: OperatorClient) -> ExitCode:
    if arguments.dry_run:
        return await _only_look(arguments, client)
    action = WorkerAction(arguments.verb)
    changed = await client.act(action, arguments.worker_id, arguments.reason)
    show_one(changed, arguments.output)
    if action is WorkerAction.RELEASE:
        say_what_is_left(changed)
    return ExitCode.DONE


async def reattest_worker(arguments: Namespace, client: OperatorClient) -> ExitCode:
    if arguments.dry_run:
        return await _only_look(arguments, client)
    asked = ReattestRequest(
        reason=arguments.reason,
        new_key=arguments.new_key,
        within_ms=None if arguments.within_s is None else arguments.within_s * 1000,
    )
    show_one(await client.reattest(arguments.worker_id, asked), arguments.output)
    return ExitCode.DONE


async def drain_worker(arguments: Namespace, client: OperatorClient) -> ExitCode:
    if arguments.dry_run:
        return await _only_look(arguments, client)
    deadline_ms = arguments.within_s * 1000
    changed = await client.drain(arguments.worker_id, arguments.reason, deadline_ms)
    show_one(changed, arguments.output)
    return ExitCode.DONE


async def _only_look(arguments: Namespace, client: OperatorClient) -> ExitCode:
    """What `--dry-run` does: the worker must be there, and stays as it is."""
    show_one(await client.worker(arguments.worker_id), arguments.output)
    say(f"{arguments.verb} was not asked for: --dry-run")
    return ExitCode.DONE


async def create_grant(arguments: Namespace, client: OperatorClient) -> ExitCode:
    request = GrantRequest(
        run_id=arguments.run_id,
        tool_name=arguments.tool,
        principal=arguments.principal,
        egress_profile=arguments.profile,
        ttl_ms=arguments.ttl_s * 1000,
        worker_id=arguments.worker,
        read_only=arguments.read_only,
    )
    show_one(await client.create_grant(request), arguments.output)
    return ExitCode.DONE


async def list_grants(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.grants(), arguments.output)
    return ExitCode.DONE


async def withdraw_grant(arguments: Namespace, client: OperatorClient) -> ExitCode:
    await client.withdraw_grant(arguments.grant_id, arguments.reason)
    acknowledge(arguments, arguments.grant_id, "withdrawn")
    return ExitCode.DONE


async def list_leases(arguments: Namespace, client: OperatorClient) -> ExitCode:
    those = LeasesThat(arguments.state)
    show_many(await client.leases(arguments.limit, those), arguments.output)
    return ExitCode.DONE


async def revoke_lease(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_one(await client.revoke_lease(arguments.lease_id, arguments.reason), arguments.output)
    return ExitCode.DONE


async def list_violations(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.violations(arguments.worker, arguments.limit)
    show_many(found, arguments.output)
    return ExitCode.DONE
