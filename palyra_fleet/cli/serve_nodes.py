"""What `serve --nodes` adds: the listeners for nodes beside the fleet's own."""

from argparse import Namespace
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from palyra_fleet.cli.output import say
from palyra_fleet.identity.identity_core import ROOT_FILE
from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.nodes.listeners import NodeListenerSettings
from palyra_fleet.nodes.operations import NodeOperations
from palyra_fleet.nodes.plane import NodePlane, NodePlaneSettings
from palyra_fleet.store.state_directory import AUTHORITY


@asynccontextmanager
async def served_nodes(arguments: Namespace) -> AsyncIterator[NodeOperations]:
    """Serve nodes until the block ends; what operators may do about them."""
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
        yield NodeOperations(plane.service)
