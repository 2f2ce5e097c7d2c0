"""`palyra-fleet node-state …`: the ways back for the file with codes, requests and nodes."""

import asyncio
import importlib
from argparse import Namespace

from palyra_fleet.cli.output import say
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.manager import IdentityManager
from palyra_fleet.identity.pairing import PairingLedger, PairingSettings
from palyra_fleet.nodes import recovery


def restore(arguments: Namespace) -> int:
    """Put an earlier generation in place."""
    found = recovery.restore(arguments.state_dir, arguments.source, now_unix_ms())
    _tell(found)
    say("codes of that generation are void, and undecided requests have expired")
    return ExitCode.DONE


def import_foreign(arguments: Namespace) -> int:
    """Take over a file of the Rust system; its codes are kept as keyed hashes."""
    asyncio.run(_import(arguments))
    return ExitCode.DONE


async def _import(arguments: Namespace) -> None:
    plane = importlib.import_module("palyra_fleet.nodes.plane")
    master = plane.master_key(arguments.state_dir, arguments.master_key)
    identity = await IdentityManager.start(arguments.state_dir, master)
    try:
        ledger = PairingLedger(PairingSettings(), identity.pairing_pepper)
        found = recovery.import_foreign(
            arguments.state_dir, arguments.source, ledger.hash_of, now_unix_ms()
        )
    finally:
        await identity.close()
    _tell(found)
    for path in found.dropped:
        say(f"left out: {path}")


def _tell(found: recovery.Recovered) -> None:
    state = found.state
    say(
        f"in place: {len(state.nodes)} nodes, {len(state.pairing_requests)} pairing requests,"
        f" {len(state.active_pairing_codes)} codes"
    )
