"""Commands that do their work here: serve the fleet, run a program as a worker, make a key.

`serve` ends in order at Ctrl-C or SIGTERM: listeners first, then the fleet. The token itself is
never printed, only the file it is in.
"""

import asyncio
import base64
import importlib
import signal
from argparse import Namespace
from contextlib import AsyncExitStack

from ulid import ULID

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.ledger.policy import WorkerFleetPolicy
from palyra_fleet.serve import (
    FleetServer,
    load_or_create_operator_token,
    open_principals,
    write_admin_url,
)
from palyra_fleet.service import FleetService
from palyra_fleet.settings import FleetSettings
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.worker.isolation.sandbox import Isolation
from palyra_fleet.worker.launcher import Launcher, WorkerIdentity
from palyra_fleet.worker.runner import RunSettings, run_as_worker
from palyra_fleet.worker.session import SessionSettings


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
    worker_id = arguments.worker_id or str(ULID())
    identity = WorkerIdentity(
        worker_id, arguments.identity or f"worker:{worker_id}", tuple(arguments.capability)
    )
    launcher = Launcher(SigningKey.load(arguments.launcher_key))
    settings = RunSettings(
        session=SessionSettings(arguments.socket, arguments.proxy, launcher, identity),
        run_id=arguments.run_id,
        combined_bundle=arguments.ca_bundle.resolve(),
        palyra_ca=arguments.ca.resolve(),
        ttl_ms=arguments.ttl_s * 1000,
        isolation=_isolation(arguments) if arguments.isolate else None,
    )
    return asyncio.run(run_as_worker(arguments.program, settings, say))


def _isolation(arguments: Namespace) -> Isolation:
    """The installation's own directories are hidden whatever else is."""
    own = (Home.of().directory, arguments.launcher_key.parent, arguments.socket.parent)
    return Isolation((*own, *arguments.hide))


def make_launcher_key(arguments: Namespace) -> int:
    """Make the launcher's key file, or read it; its public key is what `launcher enrol` takes."""
    key = SigningKey.load_or_create(arguments.file)
    put(base64.b64encode(key.public_key).decode())
    return ExitCode.DONE


async def _serve(arguments: Namespace) -> None:
    home = Home.of()
    principals = open_principals(home.directory, load_or_create_operator_token(home.token_file))
    host, port = arguments.admin
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    service = await FleetService.start(
        FleetSettings(
            state_dir=arguments.state_dir,
            policy=WorkerFleetPolicy(
                least_binding_level=BindingLevel[arguments.least_binding],
                trusted_capabilities=frozenset(arguments.trust_capability),
            ),
        )
    )
    try:
        async with AsyncExitStack() as serving:
            nodes = None
            if arguments.nodes:
                # gRPC takes a while to load, which only this needs
                command = importlib.import_module("palyra_fleet.cli.serve_nodes")
                nodes = await serving.enter_async_context(command.served_nodes(arguments))
            server = await serving.enter_async_context(
                FleetServer.start(service, arguments.socket, host, port, principals, nodes=nodes)
            )
            write_admin_url(home.admin_url_file, server.admin_url)
            say(f"workers and proxies: {server.socket_path}")
            say(f"operators:           {server.admin_url}")
            say(f"operator token:      {home.token_file}")
            await ended.wait()
            say("stopping")
    finally:
        await service.close()
