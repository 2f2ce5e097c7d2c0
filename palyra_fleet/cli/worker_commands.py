"""`worker run` and `worker serve`: a program as a worker, once or for every run that is offered."""

import asyncio
from argparse import Namespace
from collections.abc import Coroutine
from dataclasses import dataclass

from ulid import ULID

from palyra_fleet.cli.evidence_arguments import evidence_source, secret_places
from palyra_fleet.cli.output import say
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.remote_place import paired_device
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import FleetAddress, RemoteFleet
from palyra_fleet.node_agent.keeper import DeviceKeeper
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ApprovalAsked
from palyra_fleet.worker.artifact_arguments import carriage_of
from palyra_fleet.worker.isolation.sandbox import Isolation
from palyra_fleet.worker.launcher import WorkerIdentity
from palyra_fleet.worker.run_settings import RunSettings, WorkerSettings
from palyra_fleet.worker.runner import run_as_worker
from palyra_fleet.worker.serving import ServeSettings, serve_as_worker
from palyra_fleet.worker.session import SessionSettings


def run_worker(arguments: Namespace) -> int:
    """Run the program; the exit code is the program's own."""
    _refuse_nothing(arguments)
    approval = _approval(arguments)
    place = _worker_place(arguments)
    settings = RunSettings.of(
        _worker_settings(arguments, place),
        run_id=arguments.run_id,
        ttl_ms=arguments.ttl_s * 1000,
        approval=approval,
        carriage=carriage_of(arguments),
        read_only=arguments.read_only,
    )
    return asyncio.run(_at(place, run_as_worker(arguments.program, settings, say)))


def serve_worker(arguments: Namespace) -> int:
    """Run the program for every run that the fleet offers; 0 once it was asked to leave."""
    _refuse_nothing(arguments)
    place = _worker_place(arguments)
    settings = ServeSettings(
        _worker_settings(arguments, place),
        arguments.runs,
        None if arguments.carry_from is None else arguments.carry_from.resolve(),
        None if arguments.carry_to is None else arguments.carry_to.resolve(),
    )
    return asyncio.run(_at(place, serve_as_worker(arguments.program, settings, say)))


def _refuse_nothing(arguments: Namespace) -> None:
    if not arguments.program:
        raise Trouble(
            ExitCode.YOURS, "there is nothing to run", "no program was named", "put it after `--`"
        )


def _worker_settings(arguments: Namespace, place: "_WorkerPlace") -> WorkerSettings:
    worker_id = arguments.worker_id or str(ULID())
    identity = WorkerIdentity(
        worker_id, arguments.identity or f"worker:{worker_id}", tuple(arguments.capability)
    )
    return WorkerSettings(
        session=SessionSettings(
            place.fleet, arguments.proxy, evidence_source(arguments, place.key), identity
        ),
        combined_bundle=arguments.ca_bundle.resolve(),
        palyra_ca=arguments.ca.resolve(),
        keep_env=frozenset(arguments.keep_env),
        isolation=_isolation(arguments) if arguments.isolate else None,
    )


@dataclass(frozen=True, slots=True)
class _WorkerPlace:
    """Where the fleet is, the key that this machine paired with, and who renews its certificate."""

    fleet: FleetAddress
    key: SigningKey | None = None
    keeper: DeviceKeeper | None = None


def _worker_place(arguments: Namespace) -> _WorkerPlace:
    if arguments.fleet is None:
        return _WorkerPlace(arguments.socket)
    device = paired_device(arguments.device, "node")
    fleet = device.keeper.fleet(device.url(arguments.fleet))
    return _WorkerPlace(fleet, device.keeper.signing_key, device.keeper)


async def _at(place: _WorkerPlace, work: Coroutine[object, object, int]) -> int:
    """Do the work, with this machine's certificate kept in date."""
    if place.keeper is None or not isinstance(place.fleet, RemoteFleet):
        return await work
    renewing = spawn(place.keeper.keep(place.fleet.url), "this machine's certificate")
    try:
        return await work
    finally:
        renewing.cancel()


def _approval(arguments: Namespace) -> ApprovalAsked | None:
    if arguments.tool is None and arguments.profile is None:
        return None
    if arguments.tool is None or arguments.profile is None:
        raise Trouble(
            ExitCode.YOURS,
            "an approval rule cannot be asked",
            "--tool and --profile belong together",
            "give both, or neither where an operator approves",
        )
    return ApprovalAsked(tool_name=arguments.tool, egress_profile=arguments.profile)


def _isolation(arguments: Namespace) -> Isolation:
    """The installation's own directories are hidden whatever else is. A path that somebody typed
    and that is not there is a slip, and would hide nothing."""
    if (gone := [path for path in arguments.hide if not path.exists()]) != []:
        raise Trouble(
            ExitCode.YOURS,
            f"{gone[0]}: there is nothing to hide",
            "--hide takes a directory or file that is there when the program starts",
            "name one, or leave the option out",
        )
    own = [Home.of().directory, arguments.socket.parent, *secret_places(arguments)]
    if arguments.fleet is not None:
        own.append(arguments.device)
    if arguments.verb == "serve":  # what other runs are given and have left is not for this one
        own += [path for path in (arguments.carry_from, arguments.carry_to) if path is not None]
    return Isolation((*own, *arguments.hide))
