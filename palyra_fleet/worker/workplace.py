"""Where one run works: its workspace, what is carried into it, and its sandbox, made and undone."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from palyra_fleet.worker.artifacts import INPUTS, Carriage, Carrier
from palyra_fleet.worker.isolation.sandbox import Sandbox
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.workspace import Workspace, remove_left_behind


@dataclass(frozen=True, slots=True)
class Workplace:
    """Fresh for each run. `sandbox` is there, and proven, where the run is isolated."""

    workspace: Workspace
    carrier: Carrier
    sandbox: Sandbox | None


@contextlib.asynccontextmanager
async def workplace(settings: RunSettings) -> AsyncIterator[Workplace]:
    """The place that this run needs, gone when the block ends. Raises ArtifactRefused,
    IsolationUnavailable or WorkspaceRefused."""
    settings.refuse_what_cannot_be_kept()
    async with (
        _workspace(settings.workspace_parent) as workspace,
        _carrier(settings.carriage, workspace) as carrier,
        _sandbox(settings, workspace) as sandbox,
    ):
        yield Workplace(workspace, carrier, sandbox)


@contextlib.asynccontextmanager
async def _workspace(parent: Path | None) -> AsyncIterator[Workspace]:
    await remove_left_behind(parent)
    workspace = Workspace.create(parent)
    try:
        yield workspace
    finally:
        await workspace.remove()
        workspace.close()


@contextlib.asynccontextmanager
async def _carrier(carriage: Carriage, workspace: Workspace) -> AsyncIterator[Carrier]:
    carrier = await asyncio.to_thread(Carrier.load, carriage, workspace.root_fd)
    try:
        yield carrier
    finally:
        carrier.close()


@contextlib.asynccontextmanager
async def _sandbox(settings: RunSettings, workspace: Workspace) -> AsyncIterator[Sandbox | None]:
    """The sandbox that the run asks for, proven. It is closed after the lease is handed back: what
    is left of the program loses its way out with the lease, not before."""
    if settings.isolation is None:
        yield None
        return
    sandbox = await Sandbox.prove(
        settings.isolation,
        workspace.root,
        settings.working_directory or Path.cwd(),
        settings.session.proxy_address,
        workspace.root / INPUTS,
        workspace.temporary if settings.read_only else None,
    )
    try:
        yield sandbox
    finally:
        await sandbox.close()
