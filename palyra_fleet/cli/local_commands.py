"""Commands that do their work here: serve the fleet, run a program as a worker, make a key.

`serve` ends in order at Ctrl-C or SIGTERM: listeners first, then the fleet. The token itself is
never printed, only the file it is in.
"""

import asyncio
import base64
import importlib
import signal
from argparse import Namespace
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ulid import ULID

from palyra_fleet.approval_watch import followed
from palyra_fleet.cli.evidence_arguments import evidence_source, secret_places
from palyra_fleet.cli.export_arguments import exports_of
from palyra_fleet.cli.fleet_policy_arguments import fleet_policy_of
from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.remote_place import paired_device
from palyra_fleet.cli.trace_arguments import traces_of
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import FleetAddress, RemoteFleet
from palyra_fleet.exports.running import exporting
from palyra_fleet.node_agent.keeper import DeviceKeeper
from palyra_fleet.private_files import OPERATOR_TOKEN, credential
from palyra_fleet.serve import (
    FleetServer,
    find_operator_token,
    open_principals,
    write_admin_url,
)
from palyra_fleet.service import FleetService
from palyra_fleet.settings import FleetSettings
from palyra_fleet.settings_file import settings_file
from palyra_fleet.supervised import serving_notice
from palyra_fleet.tasks import spawn
from palyra_fleet.traces.running import FLEET_SERVICE, tracing
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ApprovalAsked
from palyra_fleet.worker.artifact_arguments import carriage_of
from palyra_fleet.worker.isolation.sandbox import Isolation
from palyra_fleet.worker.launcher import WorkerIdentity
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.runner import run_as_worker
from palyra_fleet.worker.session import SessionSettings

if TYPE_CHECKING:
    from palyra_fleet.cli.serve_nodes import Machines


def serve(arguments: Namespace) -> int:
    """The fleet as a process of its own, until Ctrl-C or SIGTERM."""
    asyncio.run(_serve(arguments))
    return ExitCode.DONE


def run_worker(arguments: Namespace) -> int:
    """Run the program; the exit code is the program's own."""
    if not arguments.program:
        raise Trouble(
            ExitCode.YOURS, "there is nothing to run", "no program was named", "put it after `--`"
        )
    approval = _approval(arguments)
    worker_id = arguments.worker_id or str(ULID())
    identity = WorkerIdentity(
        worker_id, arguments.identity or f"worker:{worker_id}", tuple(arguments.capability)
    )
    place = _worker_place(arguments)
    settings = RunSettings(
        session=SessionSettings(
            place.fleet, arguments.proxy, evidence_source(arguments, place.key), identity
        ),
        run_id=arguments.run_id,
        combined_bundle=arguments.ca_bundle.resolve(),
        palyra_ca=arguments.ca.resolve(),
        ttl_ms=arguments.ttl_s * 1000,
        approval=approval,
        keep_env=frozenset(arguments.keep_env),
        isolation=_isolation(arguments) if arguments.isolate else None,
        carriage=carriage_of(arguments),
        read_only=arguments.read_only,
    )
    return asyncio.run(_run(arguments.program, settings, place))


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


async def _run(program: Sequence[str], settings: RunSettings, place: _WorkerPlace) -> int:
    if place.keeper is None or not isinstance(place.fleet, RemoteFleet):
        return await run_as_worker(program, settings, say)
    renewing = spawn(place.keeper.keep(place.fleet.url), "this machine's certificate")
    try:
        return await run_as_worker(program, settings, say)
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
    """The installation's own directories are hidden whatever else is."""
    own = [Home.of().directory, arguments.socket.parent, *secret_places(arguments)]
    if arguments.fleet is not None:
        own.append(arguments.device)
    return Isolation((*own, *arguments.hide))


def make_launcher_key(arguments: Namespace) -> int:
    """Make the launcher's key file, or read it; its public key is what `launcher enrol` takes."""
    key = SigningKey.load_or_create(arguments.file)
    put(base64.b64encode(key.public_key).decode())
    return ExitCode.DONE


async def _serve(arguments: Namespace) -> None:
    home = Home.of()
    if arguments.listen is not None and not arguments.nodes:
        raise Trouble(
            ExitCode.YOURS,
            "other machines cannot be served",
            "--listen takes machines that have paired, and nothing pairs without --nodes",
            "add --nodes; docs/remote-fleet.md has the whole command",
        )
    principals = open_principals(home.directory, find_operator_token(home.token_file))
    host, port = arguments.admin
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    service = await FleetService.start(
        FleetSettings(
            state_dir=arguments.state_dir,
            policy=fleet_policy_of(arguments),
            file=settings_file(arguments.settings),
            approvals=followed(arguments.approval_rules),
        )
    )
    try:
        async with AsyncExitStack() as serving:
            exports = exports_of(arguments)
            await serving.enter_async_context(exporting(service, exports, arguments.state_dir))
            spans = await serving.enter_async_context(tracing(traces_of(arguments), FLEET_SERVICE))
            machines: Machines | None = None
            if arguments.nodes:
                # gRPC takes a while to load, which only this needs
                command = importlib.import_module("palyra_fleet.cli.serve_nodes")
                machines = await serving.enter_async_context(
                    command.served_nodes(arguments, service)
                )
            server = await serving.enter_async_context(
                FleetServer.start(
                    service,
                    arguments.socket,
                    host,
                    port,
                    principals,
                    nodes=None if machines is None else machines.operations,
                    remote=None if machines is None else machines.remote,
                    spans=spans,
                )
            )
            write_admin_url(home.admin_url_file, server.admin_url)
            say(f"workers and proxies: {server.socket_path}")
            if server.remote_port is not None:
                say(f"other machines:      https://{arguments.listen[0]}:{server.remote_port}")
            say(f"operators:           {server.admin_url}")
            say(f"operator token:      {credential(OPERATOR_TOKEN) or home.token_file}")
            with serving_notice():
                await ended.wait()
            say("stopping")
    finally:
        await service.close()
