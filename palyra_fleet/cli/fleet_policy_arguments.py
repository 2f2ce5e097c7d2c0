"""What the fleet demands of workers and how much it takes, for `palyra-fleet serve`.

Each amount is a field of `WorkerFleetPolicy`, which holds its default.
"""

import argparse
from typing import Final

from palyra_fleet.attestation.result import BindingLevel
from palyra_fleet.cli import argument_types as types
from palyra_fleet.ledger.policy import WorkerFleetPolicy

AMOUNTS: Final = {
    "max_workers": (10_000_000, "workers that are registered at once"),
    "max_leases": (10_000_000, "live leases at once"),
    "leases_per_principal": (10_000_000, "live leases at once of runs of one principal"),
    "heartbeats_per_second": (
        1_000_000,
        "beats of all workers together; many workers beat less often",
    ),
    "storm_quarantines_per_minute": (
        1_000_000,
        "quarantines in a minute; one more freezes new leases",
    ),
}
"""By field: the most that may be said, and what it counts."""


def add_fleet_policy_arguments(parser: argparse.ArgumentParser) -> None:
    plain = WorkerFleetPolicy()
    parser.add_argument(
        "--least-binding",
        type=str.upper,
        choices=["OBSERVED", "ENFORCED"],
        default="OBSERVED",
        help="how well a worker must be bound to a proxy (default observed)",
    )
    parser.add_argument(
        "--trust-capability",
        type=types.name,
        action="append",
        default=[],
        metavar="NAME",
        help="believe a launcher that says so of its worker (may be repeated; default none)",
    )
    parser.add_argument(
        "--two-person-release",
        action="store_true",
        help="a quarantined worker comes back only if one person asks and another approves",
    )
    parser.add_argument(
        "--offer-s",
        type=types.between(1, 3_600),
        default=plain.offer_ms // 1000,
        metavar="SECONDS",
        help="how long a run is kept for the worker that it is offered to "
        f"(default {plain.offer_ms // 1000})",
    )
    parser.add_argument(
        "--reattest-s",
        type=types.between(1, 3_600),
        default=plain.reattest_within_ms // 1000,
        metavar="SECONDS",
        help="how long a worker has to show the new evidence that an operator demands "
        f"(default {plain.reattest_within_ms // 1000})",
    )
    amounts = parser.add_argument_group("how much the fleet takes")
    for field, (most, counted) in AMOUNTS.items():
        default: int = getattr(plain, field)
        amounts.add_argument(
            f"--{field.replace('_', '-')}",
            type=types.between(1, most),
            default=default,
            metavar="N",
            help=f"{counted} (default {default})",
        )


def fleet_policy_of(arguments: argparse.Namespace) -> WorkerFleetPolicy:
    return WorkerFleetPolicy(
        least_binding_level=BindingLevel[arguments.least_binding],
        trusted_capabilities=frozenset(arguments.trust_capability),
        two_person_release=arguments.two_person_release,
        offer_ms=arguments.offer_s * 1000,
        reattest_within_ms=arguments.reattest_s * 1000,
        **{field: getattr(arguments, field) for field in AMOUNTS},
    )
