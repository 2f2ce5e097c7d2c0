"""What `serve --nodes` adds: listeners for nodes, and for whom `--listen` serves."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

from palyra_fleet.api.remote_listener import RemoteSettings
from palyra_fleet.cli.output import say
from palyra_fleet.identity.identity_core import ROOT_FILE
from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.messages import RevocationNotice
from palyra_fleet.nodes.listeners import NodeListenerSettings
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.nodes.plane import NodePlane, NodePlaneSettings
from palyra_fleet.nodes.worker_certificates import (
    certificate_end_of,
    certificates_of,
    keep_looking,
)
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.store.state_directory import AUTHORITY
from palyra_fleet.tasks import spawn


@dataclass(frozen=True, slots=True)
class Machines:
    """What operators may do about nodes, and how workers and proxies of theirs are served."""

    operations: NodeOperations
    remote: RemoteSettings | None


@asynccontextmanager
async def served_nodes(arguments: Namespace, fleet: FleetService) -> AsyncIterator[Machines]:
    """Serve nodes until the block ends. What the fleet trusts of a device goes with the device."""
    settings = NodePlaneSettings(
        listeners=NodeListenerSettings(arguments.enrolment, arguments.node),
        identity=IdentitySettings(
            trust_domain=arguments.trust_domain,
            server_names=tuple(arguments.server_name),
            allow_server_generated_keys=arguments.allow_server_generated_keys,
        ),
        master_key_file=arguments.master_key,
    )
    async with NodePlane.open(arguments.state_dir, settings) as plane:
        say(f"nodes that enrol:    {arguments.enrolment[0]}:{plane.listeners.enrolment_port}")
        say(f"nodes:               {arguments.node[0]}:{plane.listeners.node_port}")
        say(f"the nodes' root:     {arguments.state_dir / AUTHORITY / ROOT_FILE}")
        await fleet.keep_devices(
            [one.device_id for one in plane.identity.devices() if not one.revoked]
        )

        fleet.tell_certificate_ends(partial(certificate_end_of, plane.identity))
        fleet.tell_certificates(partial(certificates_of, plane.identity))
        looking = spawn(keep_looking(fleet.look_at_certificates), "look at certificates")

        def gone(notice: RevocationNotice) -> None:
            fleet.look_at_certificates()
            if notice.device_gone:
                _ = spawn(fleet.device_gone(notice.device_id, notice.reason), "a device is gone")

        with ExitStack() as subscribed:
            subscribed.callback(plane.identity.subscribe(gone))
            subscribed.callback(looking.cancel)
            remote = None
            if arguments.listen is not None:
                remote = RemoteSettings(arguments.listen, plane.identity, plane.identity.now)
            yield Machines(NodeOperations(plane.service), remote)
