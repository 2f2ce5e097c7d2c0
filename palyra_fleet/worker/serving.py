"""A worker that waits: it takes the runs that the fleet offers to it, one after the other.

It attests once and proves itself again while it goes on. Each run has a fresh workspace (and, with
isolation, a fresh sandbox), its own lease, and ends as in `runner`; only then does the worker wait
for the next. What it cannot do it declines: by the offer's fault it waits on, by its own it ends.
After a run whose lease the fleet ended, or that could not hand it back, the worker attests anew
with a new key, as the fleet demands. It ends by itself where the session is over for good: when it
is quarantined, when another session took its place, when its program changed, and when the fleet is
lost for longer than its attestation holds.

The first SIGINT, SIGTERM or SIGHUP drains: the run that is under way ends by itself, and then the
worker leaves. The second ends the run as well.
"""

import asyncio
import contextlib
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from palyra_fleet.client import FleetError, FleetProblem
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.placement_models import OfferModel
from palyra_fleet.worker.artifacts import ArtifactRefused, Carriage
from palyra_fleet.worker.heard_signals import heard_signals
from palyra_fleet.worker.held_run import HeldRun, ProgramNotStarted, ProxyNotReady
from palyra_fleet.worker.isolation.start import IsolationUnavailable
from palyra_fleet.worker.launcher import (
    EvidenceUnavailable,
    Measurement,
    artifact_is_unchanged,
    measure,
)
from palyra_fleet.worker.receipt import ReceiptRefused
from palyra_fleet.worker.run_settings import RunSettings, WorkerSettings
from palyra_fleet.worker.session import RETRY_AFTER_S, SessionSettings, WorkerSession
from palyra_fleet.worker.stop import Stop, StopKind
from palyra_fleet.worker.workplace import Workplace, workplace
from palyra_fleet.worker.workspace import WorkspaceRefused

_FLEETS_OWN_FAULT: Final = 500
_NEW_SESSION: Final = frozenset({StopKind.LEASE_STOPPED, StopKind.FENCED})
"""What ends a session and not its worker: it may attest anew."""


class WorkerEnded(Exception):
    """The worker waits no longer, and nobody asked it to leave. `stop` says why."""

    def __init__(self, stop: Stop) -> None:
        super().__init__(stop.detail)
        self.stop = stop


@dataclass(frozen=True, slots=True)
class ServeSettings:
    """`runs`: how many to take before it leaves (None: no end). Inputs that an offer names are
    taken from `inputs_from`, and must have the digests that it names; outputs are put into a
    directory of `outputs_to` that is named for the run. Where one is None, such offers are
    declined."""

    worker: WorkerSettings
    runs: int | None = None
    inputs_from: Path | None = None
    outputs_to: Path | None = None


async def serve_as_worker(
    command: Sequence[str], settings: ServeSettings, say: Callable[[str], None]
) -> int:
    """Wait, run, wait again; 0 once it has left, or 128+signal if its last run was interrupted.

    Raises WorkerEnded, and what `run_as_worker` does.
    """
    worker = settings.worker
    measured = await asyncio.to_thread(measure, command[0], worker.inherited.get("PATH"))
    serving = _Serving(command, settings, measured, say)
    async with workplace(RunSettings.of(worker, run_id="none")):
        pass  # the place of every run can be made, and isolated if that is what is attested
    enforced = worker.isolation is not None
    opened = replace(worker.session, egress_enforced=enforced)
    with heard_signals(serving.hear, wanted=worker.forward_signals):
        while not serving.leaves:
            session = await serving.next_session(opened)
            if session is not None:
                async with session:
                    await serving.through(session)
    return serving.exit_code


class _CannotTake(Exception):
    """This offer is not for this worker; the text says why, for the fleet's event log: no paths."""


@dataclass(slots=True)
class _Serving:
    command: Sequence[str]
    settings: ServeSettings
    measured: Measurement
    say: Callable[[str], None]
    runs: int = 0
    exit_code: int = 0
    _drained: asyncio.Event = field(default_factory=asyncio.Event)
    _session: WorkerSession | None = None

    @property
    def leaves(self) -> bool:
        return self._drained.is_set() or self.runs == self.settings.runs

    def hear(self, number: signal.Signals) -> None:
        """A signal came."""
        if not self._drained.is_set():
            self._drained.set()
            self.say(f"{number.name}: no new runs; the worker leaves when what it runs has ended")
        elif self._session is not None:
            self.exit_code = 128 + number
            self._session.stop(Stop(StopKind.INTERRUPTED, number.name))

    async def next_session(self, settings: SessionSettings) -> WorkerSession | None:
        """Attest with a new key. A fleet or proxy that is gone is asked again for as long as the
        last attestation would have held; None if the worker leaves meanwhile. Raises what
        `WorkerSession.open` does."""
        time, last, said = settings.time, self._session, False
        while not self.leaves:
            try:
                return await WorkerSession.open(settings, self.measured)
            except (FleetError, ReceiptRefused) as error:
                refused = isinstance(error, FleetProblem) and error.status < _FLEETS_OWN_FAULT
                if refused or last is None or time.now_s() >= last.good_until_s:
                    raise
                if not said:
                    self.say(f"the fleet or the proxy is gone, it is asked again: {error}")
                said = True
            await time.sleep(RETRY_AFTER_S)
        return None

    async def through(self, session: WorkerSession) -> None:
        """Take runs until the worker leaves or the session is used up. Raises WorkerEnded."""
        self._session = session
        while not (self.leaves or session.stopped.done()):
            offer = await self._offered(session)
            if offer is not None and not await self._take(session, offer):
                break
        if not session.stopped.done():
            await session.stop_waiting("the worker leaves")
            return
        stop = session.stopped.result()
        if stop.kind not in _NEW_SESSION and stop.kind is not StopKind.INTERRUPTED:
            raise WorkerEnded(stop)

    async def _offered(self, session: WorkerSession) -> OfferModel | None:
        """The next offer; None if the worker leaves or the session is stopped first."""
        self.say(f"worker {session.worker_id} waits for a run")
        offer = spawn(session.next_offer(), f"offers {session.worker_id}")
        drained = spawn(self._drained.wait(), "drained")
        either: set[asyncio.Future[Any]] = {offer, drained, session.stopped}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not offer.done():
                return None
            if self._drained.is_set() or session.stopped.done():
                await session.decline(offer.result(), "the worker leaves")
                return None
            return offer.result()
        finally:
            offer.cancel()
            drained.cancel()

    async def _take(self, session: WorkerSession, offer: OfferModel) -> bool:
        """Take and run it, or decline it; whether the session can hold another lease."""
        async with contextlib.AsyncExitStack() as stack:
            try:
                run = self._run_of(offer)
                place = await self._place(stack, run, offer)
            except _CannotTake as why:
                self.say(f"declined {offer.run_id}: {why}")
                await session.decline(offer, str(why))
                return True
            except (IsolationUnavailable, ProgramNotStarted, WorkspaceRefused) as error:
                await session.decline(offer, type(error).__name__)
                raise
            try:
                lease = await session.take_offer(
                    offer, place.workspace.scope(read_only=run.read_only)
                )
            except FleetProblem as problem:
                self.say(f"{offer.run_id} was not taken: {problem.detail}")
                return True
            except (FleetError, ReceiptRefused, EvidenceUnavailable) as error:
                # the fleet may have given the lease: a new key ends it
                self.say(f"{offer.run_id} was not taken: {error}")
                return False
            self.runs += 1
            self.say(f"runs {lease.run_id} under lease {lease.lease_id}")
            try:
                end = await HeldRun(session, place, lease, run, self.say).to_its_end(
                    self.command, self.measured
                )
            except (FleetError, ProgramNotStarted) as error:
                if _is_own_fault(error) and not session.stopped.done():
                    raise
                self.say(f"{lease.run_id} did not start: {error}")
                return False
        self.say(f"{lease.run_id} ended with {end.exit_code}")
        if not end.clean:
            raise WorkerEnded(Stop(StopKind.QUARANTINED, "a run could not be cleaned up"))
        return end.handed_back

    def _run_of(self, offer: OfferModel) -> RunSettings:
        """The offer as this worker would run it. Raises _CannotTake."""
        transport, settings = offer.artifact_transport, self.settings
        inputs: tuple[tuple[str, Path], ...] = ()
        outputs_to = Path()
        if transport.inputs:
            if settings.inputs_from is None:
                raise _CannotTake("this worker has no place with inputs")
            inputs = tuple((one.path, settings.inputs_from / one.path) for one in transport.inputs)
        if transport.outputs:
            if settings.outputs_to is None:
                raise _CannotTake("this worker has no place for outputs")
            outputs_to = settings.outputs_to / offer.run_id
        carriage = Carriage(inputs, transport.outputs, outputs_to, transport.max_output_bytes)
        run = RunSettings.of(
            settings.worker,
            run_id=offer.run_id,
            ttl_ms=offer.ttl_ms,
            required_capabilities=offer.required_capabilities,
            carriage=carriage,
            read_only=offer.read_only,
        )
        try:
            run.refuse_what_cannot_be_kept()
        except WorkspaceRefused as refusal:
            raise _CannotTake(str(refusal)) from refusal
        return replace(run, forward_signals=False)  # they mean this worker, see `hear`

    async def _place(
        self, stack: contextlib.AsyncExitStack, run: RunSettings, offer: OfferModel
    ) -> Workplace:
        """A place with what the offer names. Raises _CannotTake, IsolationUnavailable,
        ProgramNotStarted or WorkspaceRefused."""
        artifact = self.measured.artifact
        if not await asyncio.to_thread(artifact_is_unchanged, artifact):
            raise ProgramNotStarted(f"{artifact.executable} changed after it was measured")
        if run.carriage.outputs:
            await asyncio.to_thread(_make_private, run.carriage.destination)
        try:
            place = await stack.enter_async_context(workplace(run))
        except ArtifactRefused as refusal:
            self.say(str(refusal))
            raise _CannotTake("its inputs are not here") from refusal
        if place.carrier.inputs != offer.artifact_transport.inputs:
            raise _CannotTake("the inputs here are not those that it names")
        return place


def _is_own_fault(error: Exception) -> bool:
    """Whether the next run would meet the same: the program is not what it was, or no program."""
    return isinstance(error, ProgramNotStarted) and not isinstance(error, ProxyNotReady)


def _make_private(directory: Path) -> None:
    """Where the outputs of one run go. Raises WorkspaceRefused."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise WorkspaceRefused(f"{directory}: no place for outputs: {error.strerror}") from error
