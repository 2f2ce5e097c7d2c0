"""Commands that do their work here: serve the fleet, make a key.

`serve` ends in order at Ctrl-C or SIGTERM: listeners first, then the fleet. The token itself is
never printed, only the file it is in.
"""

import asyncio
import base64
import importlib
import signal
from argparse import Namespace
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from palyra_fleet.cli.export_arguments import exports_of
from palyra_fleet.cli.fleet_policy_arguments import fleet_policy_of
from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.place import Home
from palyra_fleet.cli.trace_arguments import traces_of
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.core_files import forbid_core_files
from palyra_fleet.exports.running import exporting
from palyra_fleet.private_files import OPERATOR_TOKEN, credential
from palyra_fleet.serve import (
    FleetServer,
    find_operator_token,
    open_principals,
    write_admin_url,
)
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.approval_watch import followed
from palyra_fleet.settings.file import settings_file
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.supervised import serving_notice
from palyra_fleet.traces.running import FLEET_SERVICE, tracing
from palyra_fleet.wire.keys import SigningKey

if TYPE_CHECKING:
    from palyra_fleet.cli.serve_nodes import Machines


def serve(arguments: Namespace) -> int:
    """The fleet as a process of its own, until Ctrl-C or SIGTERM."""
    forbid_core_files()
    asyncio.run(_serve(arguments))
    return ExitCode.DONE


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
    file = settings_file(arguments.settings)
    host, port = arguments.admin
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    service = await FleetService.start(
        FleetSettings(
            state_dir=arguments.state_dir,
            policy=fleet_policy_of(arguments),
            file=file,
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
                    operators_socket=home.operators_socket,
                    issuers=file.issuers,
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
