"""What a worker is, and what one of its runs is to be: values, and what none may ask together."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final, Self

from palyra_fleet.wire.models import ApprovalAsked
from palyra_fleet.worker.artifacts import Carriage
from palyra_fleet.worker.isolation.sandbox import Isolation
from palyra_fleet.worker.session import SessionSettings
from palyra_fleet.worker.workspace import WorkspaceRefused

DEFAULT_TTL_MS: Final = 300_000


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """What every run of a worker shares.

    `proxy_knows_within_ms`: how long to wait for the proxy to say that it knows the lease, before
    the program is started; None does not ask. `keep_env` names inherited variables that reach the
    program although they may make it run other code (see `inherited`). With `isolation` the program
    runs in namespaces of its own whose only way out is the proxy. `socks_address` (`host:port`) is
    where the program finds SOCKS, if it is to know.
    """

    session: SessionSettings
    combined_bundle: Path
    palyra_ca: Path
    workspace_parent: Path | None = None
    working_directory: Path | None = None
    inherited: Mapping[str, str] = field(default_factory=lambda: dict(os.environ), repr=False)
    keep_env: frozenset[str] = frozenset()
    forward_signals: bool = True
    proxy_knows_within_ms: int | None = 5_000
    isolation: Isolation | None = None
    socks_address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings(WorkerSettings):
    """One run. `ttl_ms` is the lease's length, renewed at half life until the program ends.

    `carriage` is what is carried into the run and out of it. `read_only` lets the program change
    neither its workspace nor its working directory, which takes isolation, and leaves no outputs.
    """

    run_id: str
    ttl_ms: int = DEFAULT_TTL_MS
    required_capabilities: tuple[str, ...] = ()
    approval: ApprovalAsked | None = None
    carriage: Carriage = field(default_factory=Carriage)
    read_only: bool = False

    @classmethod
    def of(cls, worker: WorkerSettings, **order: Any) -> Self:
        """A run of this worker, by its order."""
        shared = {one.name: getattr(worker, one.name) for one in fields(WorkerSettings)}
        return cls(**shared, **order)

    def refuse_what_cannot_be_kept(self) -> None:
        """The program runs under the account that owns its workspace: no mode keeps it from
        writing. Raises WorkspaceRefused."""
        if not self.read_only:
            return
        if self.isolation is None:
            raise WorkspaceRefused(
                "a read-only workspace cannot be enforced without isolation; run it isolated"
            )
        if self.carriage.outputs:
            raise WorkspaceRefused(
                "a run with a read-only workspace leaves no outputs to carry out"
            )
