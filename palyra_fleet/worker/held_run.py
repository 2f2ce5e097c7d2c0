"""A run that holds its lease: environment, start, watch, end, clean up, complete.

The run is ended early by an order, a quarantine, self-fencing, a changed program or a signal to
this process; then a sentence on `say` tells why, and nothing is carried out.
The lease is handed back with a report of what was looked at afterwards, not of what was tried: the
workspace is gone, nothing of the program is alive, and which artifacts were used and came out. The
lease's secret lives only in the program's environment and workspace, so it is removed when both
are gone.
"""

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from palyra_fleet.client import FleetError
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.models import ArtifactModel, CleanupReport, LeaseAnswer
from palyra_fleet.worker.artifacts import INPUTS, OUTPUTS, ArtifactRefused
from palyra_fleet.worker.environment import EgressAccess, child_environment
from palyra_fleet.worker.heard_signals import heard_signals
from palyra_fleet.worker.isolation.sandbox import INSIDE_PROXY_ADDRESS, copy_into
from palyra_fleet.worker.launcher import Measurement, artifact_is_unchanged
from palyra_fleet.worker.lease_check import LeaseNotKnown, wait_until_known
from palyra_fleet.worker.process_group import LEASE_MARK, ProcessGroup
from palyra_fleet.worker.run_settings import RunSettings
from palyra_fleet.worker.session import WorkerSession
from palyra_fleet.worker.stop import Stop, StopKind
from palyra_fleet.worker.workplace import Workplace

OUTPUT_NOT_CARRIED: Final = 74
"""The exit code of a run whose program ended with 0 and whose outputs did not all come out: that of
EX_IOERR in sysexits.h."""


_COMPLETED: Final = "completed"


class ProgramNotStarted(Exception):
    """The program could not be started, or is not the file that was measured."""


class ProxyNotReady(ProgramNotStarted):
    """The proxy did not get to know the lease in time, and would have refused the program."""


class RunStopped(ProgramNotStarted):
    """The worker's session was over before the program was started."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(f"no run: {stop.detail}")
        self.kind = stop.kind


@dataclass(frozen=True, slots=True)
class RunEnd:
    """`exit_code` is the program's own, or OUTPUT_NOT_CARRIED. `clean`: nothing of the run is left
    here. `handed_back`: the fleet took the lease back as ended well; only then can the session hold
    another."""

    exit_code: int
    clean: bool
    handed_back: bool


@dataclass(frozen=True, slots=True)
class HeldRun:
    """One run, from its lease to the end of it."""

    session: WorkerSession
    place: Workplace
    lease: LeaseAnswer
    settings: RunSettings
    say: Callable[[str], None]

    async def to_its_end(self, command: Sequence[str], measured: Measurement) -> RunEnd:
        """Run `command`. Raises ProgramNotStarted or a FleetError where it did not come to that;
        all is cleaned up and reported then, too."""
        group: ProcessGroup | None = None
        inputs = self.place.carrier.inputs
        ended_by_itself = False
        try:
            with heard_signals(self._interrupt, wanted=self.settings.forward_signals):
                await self.session.start_lease(self.settings.ttl_ms)
                await self._until_the_proxy_knows()
                inputs = ()  # until they were looked at once more, nobody can vouch for them
                inputs = await self._used_inputs()
                group = await self._start(command, measured)
                code = await self._watch(group)
                ended_by_itself = not self.session.stopped.done()
        finally:
            clean, handed_back = await self._clean_up(group, inputs, ended_by_itself)
        if self.place.carrier.refused and not code:
            code = OUTPUT_NOT_CARRIED
        return RunEnd(code, clean, handed_back)

    def _interrupt(self, number: signal.Signals) -> None:
        self.session.stop(Stop(StopKind.INTERRUPTED, number.name))

    async def _used_inputs(self) -> tuple[ArtifactModel, ...]:
        try:
            return await asyncio.to_thread(self.place.carrier.used)
        except ArtifactRefused as refusal:
            raise ProgramNotStarted(str(refusal)) from refusal

    async def _until_the_proxy_knows(self) -> None:
        within_ms = self.settings.proxy_knows_within_ms
        if within_ms is None:
            return
        try:
            await wait_until_known(
                self.settings.session.proxy_address,
                self.lease.lease_id,
                self.lease.egress_secret,
                self.settings.session.time,
                within_ms=within_ms,
                timeout_ms=self.settings.session.timeout_ms,
            )
        except LeaseNotKnown as unknown:
            raise ProxyNotReady(str(unknown)) from unknown

    async def _start(self, command: Sequence[str], measured: Measurement) -> ProcessGroup:
        artifact = measured.artifact
        if self.session.stopped.done():
            raise RunStopped(self.session.stopped.result())
        if not await asyncio.to_thread(artifact_is_unchanged, artifact):
            raise ProgramNotStarted(f"{artifact.executable} changed after it was measured")
        try:
            if self.place.sandbox is not None:
                environment = await asyncio.to_thread(self._isolated_environment)
                return await self.place.sandbox.start(artifact, command[1:], environment)
            return await ProcessGroup.start(
                (artifact.invoked_as, *command[1:]),
                artifact.executable,
                self._environment(
                    self.settings.session.proxy_address,
                    self.settings.combined_bundle,
                    self.settings.palyra_ca,
                ),
                self.settings.working_directory,
            )
        except OSError as error:
            raise ProgramNotStarted(
                f"{artifact.executable} cannot be started: {error.strerror}"
            ) from error

    async def _watch(self, group: ProcessGroup) -> int:
        """Wait for the program or for a reason to stop it, whichever is first."""
        ended = spawn(group.wait(), f"program of {self.lease.lease_id}")
        either: set[asyncio.Future[Any]] = {ended, self.session.stopped}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not ended.done():
                stop = self.session.stopped.result()
                self.say(sentence_of(stop))
                await group.end(_first_signal(stop))
            return await ended
        finally:
            ended.cancel()

    async def _clean_up(
        self,
        group: ProcessGroup | None,
        inputs: tuple[ArtifactModel, ...],
        ended_by_itself: bool,
    ) -> tuple[bool, bool]:
        """End, carry out, remove, report. Whether all is gone, and whether the fleet took that for
        the end of the lease."""
        processes_ended = True if group is None else await group.end()
        outputs: tuple[ArtifactModel, ...] = ()
        if ended_by_itself and processes_ended:  # nothing comes out of a run that was stopped
            outputs = await asyncio.to_thread(self.place.carrier.collect)
        for sentence in self.place.carrier.refused:
            self.say(f"output {sentence}")
        workspace_removed = await self.place.workspace.remove()
        report = CleanupReport(
            workspace_removed=workspace_removed,
            processes_ended=processes_ended,
            secrets_removed=processes_ended and workspace_removed,
            inputs=inputs,
            outputs=outputs,
        )
        if not report.secrets_removed:
            self.say("the run could not be cleaned up; the fleet quarantines this worker")
        handed_back = False
        try:
            ended = await self.session.complete_lease(report)
            handed_back = ended.state == _COMPLETED
            if report.secrets_removed and not handed_back:
                self.say("the fleet did not accept the run's report, and quarantines this worker")
        except FleetError as error:
            if not self.session.stopped.done():
                self.say(f"the lease could not be completed: {error}")
        return report.secrets_removed, handed_back

    def _isolated_environment(self) -> dict[str, str]:
        """As seen from inside: the proxy is behind the door, the CAs are in the workspace."""
        files = (self.settings.combined_bundle, self.settings.palyra_ca)
        bundle, ca = copy_into(self.place.workspace.root, files)
        return self._environment(INSIDE_PROXY_ADDRESS, bundle, ca)

    def _environment(self, proxy_address: str, bundle: Path, palyra_ca: Path) -> dict[str, str]:
        access = EgressAccess(
            proxy_address=proxy_address,
            lease_id=self.lease.lease_id,
            egress_secret=self.lease.egress_secret,
            combined_bundle=bundle,
            palyra_ca=palyra_ca,
            socks_address=self.settings.socks_address,
        )
        own = {
            LEASE_MARK: self.lease.lease_id,
            "PALYRA_RUN_ID": self.lease.run_id,
            "PALYRA_WORKER_ID": self.lease.worker_id,
            "PALYRA_WORKSPACE": str(self.place.workspace.root),
            "PALYRA_INPUTS": str(self.place.workspace.root / INPUTS),
            "PALYRA_OUTPUTS": str(self.place.workspace.root / OUTPUTS),
            "TMPDIR": str(self.place.workspace.temporary),
        }
        return child_environment(self.settings.inherited, access, own, self.settings.keep_env)


def _first_signal(stop: Stop) -> signal.Signals:
    if stop.kind is StopKind.INTERRUPTED:
        return signal.Signals[stop.detail]
    return signal.SIGTERM


def sentence_of(stop: Stop) -> str:
    """Why the run is ended, for the person at the terminal."""
    match stop.kind:
        case StopKind.QUARANTINED:
            return (
                f"this worker was quarantined: {stop.detail}. "
                "Its network access has ended; an operator must release it."
            )
        case StopKind.LEASE_STOPPED:
            return f"the fleet ended this run's lease: {stop.detail}"
        case StopKind.FENCED | StopKind.PROGRAM_CHANGED:
            return f"the run was stopped: {stop.detail}"
        case StopKind.SESSION_OVER:
            return f"the fleet no longer knows this worker's session: {stop.detail}"
        case StopKind.INTERRUPTED:
            return f"interrupted by {stop.detail}; ending the run"
