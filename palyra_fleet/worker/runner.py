"""Runs any program as a worker, once: a place to work, a session, a lease, and the run under it.

The exit code is the program's own (128+signal when it was killed), or OUTPUT_NOT_CARRIED.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

from palyra_fleet.worker.held_run import HeldRun, RunStopped
from palyra_fleet.worker.launcher import measure
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.session import WorkerSession
from palyra_fleet.worker.workplace import workplace


def _say_nothing(sentence: str) -> None:
    del sentence


async def run_as_worker(
    command: Sequence[str],
    settings: RunSettings,
    say: Callable[[str], None] = _say_nothing,
) -> int:
    """Run `command` under a lease; its exit code.

    Raises ArtifactNotFound, ArtifactRefused, IsolationUnavailable, ProgramNotStarted,
    ReceiptRefused, WorkspaceRefused or a FleetError when it did not come to a run at all.
    """
    settings.refuse_what_cannot_be_kept()
    measured = await asyncio.to_thread(measure, command[0], settings.inherited.get("PATH"))
    enforced = settings.isolation is not None
    async with (
        workplace(settings) as place,
        await WorkerSession.open(
            replace(settings.session, egress_enforced=enforced), measured
        ) as session,
    ):
        if session.stopped.done():
            raise RunStopped(session.stopped.result())
        lease = await session.take_lease(
            settings.run_id,
            place.workspace.scope(read_only=settings.read_only),
            settings.ttl_ms,
            settings.required_capabilities,
            place.carrier.transport(),
            settings.approval,
        )
        run = HeldRun(session, place, lease, settings, say)
        return (await run.to_its_end(command, measured)).exit_code
