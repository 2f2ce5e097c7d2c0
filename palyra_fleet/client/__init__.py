"""Typed clients of the fleet API: for workers, for proxies, for operators.

Import from here: the modules inside may move.
"""

from palyra_fleet.client.errors import FleetError, FleetProblem, FleetUnavailable
from palyra_fleet.client.operator import OperatorClient
from palyra_fleet.client.proxy import ProxyClient
from palyra_fleet.client.transport import FleetAddress, FleetClient, RemoteFleet
from palyra_fleet.client.worker import WorkerClient
from palyra_fleet.wire.worker_actions import WorkerAction

__all__ = [
    "FleetAddress",
    "FleetClient",
    "FleetError",
    "FleetProblem",
    "FleetUnavailable",
    "OperatorClient",
    "ProxyClient",
    "RemoteFleet",
    "WorkerAction",
    "WorkerClient",
]
