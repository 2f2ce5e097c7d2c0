"""Words for the errors that a command may raise. Loaded when there is one: it knows them all."""

from typing import Final

from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import FleetProblem, FleetUnavailable
from palyra_fleet.core_files import CoreFilesAllowed
from palyra_fleet.leases.approval_file import ApprovalFileError
from palyra_fleet.nodes.errors import ListenError, TlsUnsound
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.serve import ServeError
from palyra_fleet.settings.file import SettingsFileError
from palyra_fleet.store.protocol import StateUnusable, StoreFailed
from palyra_fleet.wire.keys import KeyFileError
from palyra_fleet.wire.sealing import SealBroken
from palyra_fleet.worker.artifacts import ArtifactRefused
from palyra_fleet.worker.held_run import ProgramNotStarted, RunStopped
from palyra_fleet.worker.isolation.start import IsolationUnavailable
from palyra_fleet.worker.launcher import ArtifactNotFound, EvidenceUnavailable
from palyra_fleet.worker.receipt import ReceiptRefused
from palyra_fleet.worker.serving import WorkerEnded
from palyra_fleet.worker.stop import StopKind
from palyra_fleet.worker.workspace import WorkspaceRefused

EXPECTED = (
    FleetProblem,
    FleetUnavailable,
    FleetRefusal,
    ServeError,
    KeyFileError,
    CoreFilesAllowed,
    ArtifactNotFound,
    ArtifactRefused,
    EvidenceUnavailable,
    SettingsFileError,
    ApprovalFileError,
    IsolationUnavailable,
    ProgramNotStarted,
    ReceiptRefused,
    ListenError,
    TlsUnsound,
    StateUnusable,
    StoreFailed,
    SealBroken,
    WorkerEnded,
    WorkspaceRefused,
)
"""Everything a command may raise that `trouble_of` has words for."""


def trouble_of(error: Exception) -> Trouble:
    """The words and the exit code for an expected error."""
    match error:
        case FleetUnavailable():
            return Trouble(
                ExitCode.UNREACHABLE,
                "the fleet cannot be reached",
                str(error),
                "start it with `palyra-fleet serve`, or correct --url, --socket or PALYRA_HOME",
            )
        case FleetProblem():
            return _trouble_of_problem(error)
        case FleetRefusal():
            return Trouble(
                ExitCode.YOURS, "the fleet does not start", error.text, "see the text above"
            )
        case ReceiptRefused():
            return Trouble(
                ExitCode.UNREACHABLE,
                "the proxy gave no receipt",
                str(error),
                "check --proxy, and that the proxy is running",
            )
        case StateUnusable() | StoreFailed() | SealBroken():
            return Trouble(
                ExitCode.YOURS,
                "the stored state is not usable",
                str(error),
                "see the line above; docs/fleet-state.md and docs/nodes.md have the ways back",
            )
        case TlsUnsound():
            return Trouble(
                ExitCode.OURS,
                "TLS does not refuse what it must, so nodes are not served",
                str(error),
                "install the locked requirements; report it if they are",
            )
        case (
            ServeError()
            | KeyFileError()
            | CoreFilesAllowed()
            | ListenError()
            | EvidenceUnavailable()
        ):
            return Trouble(
                ExitCode.YOURS, "the setup is not usable", str(error), "correct it and try again"
            )
        case SettingsFileError() | ApprovalFileError():
            return _trouble_of_file(error)
        case (
            IsolationUnavailable()
            | ArtifactRefused()
            | WorkspaceRefused()
            | ArtifactNotFound()
            | ProgramNotStarted()
            | WorkerEnded()
        ):
            return _trouble_of_worker(error)
        case _:
            return Trouble(
                ExitCode.OURS,
                "this program made a mistake",
                type(error).__name__,
                "report it; PALYRA_DEBUG=1 shows where",
            )


def _trouble_of_worker(error: Exception) -> Trouble:
    """A program that runs as a worker: it did not come to that, or the worker waits no longer."""
    match error:
        case IsolationUnavailable():
            return Trouble(
                ExitCode.YOURS,
                "the program did not run: it cannot be isolated here",
                str(error),
                "mend what is named; docs/isolation.md says what a machine needs",
            )
        case ArtifactRefused() | WorkspaceRefused():
            return Trouble(
                ExitCode.YOURS,
                "the program did not run: its place to work cannot be prepared",
                str(error),
                "correct --carry-in or --carry-to, or TMPDIR, where the workspace is made",
            )
        case WorkerEnded(stop=stop):
            changed = stop.kind is StopKind.PROGRAM_CHANGED
            return Trouble(
                ExitCode.YOURS if changed else ExitCode.NO,
                "the worker waits no longer",
                f"{stop.detail} [{stop.kind}]",
                "start it again, once its new digest is accepted"
                if changed
                else "`palyra-fleet worker show` and `event tail` show how it came to this",
            )
        case _:
            return Trouble(
                ExitCode.YOURS, "the program did not run", str(error), _after_no_start(error)
            )


def _after_no_start(error: Exception) -> str:
    if isinstance(error, RunStopped) and error.kind is StopKind.QUARANTINED:
        return "`palyra-fleet worker show` says why; `worker release` lets it in again"
    return "check the command after `--`; `palyra-fleet worker show` says how it stands"


def _trouble_of_file(error: SettingsFileError | ApprovalFileError) -> Trouble:
    if isinstance(error, ApprovalFileError):
        what = "the approval rules are not usable"
        remedy = "correct the lines named above; `palyra-fleet approval check FILE` shows them"
    else:
        what = "the settings are not usable, and nothing was started"
        remedy = "correct what is named above; docs/reference/settings.md lists every key"
    return Trouble(ExitCode.YOURS, what, str(error), remedy)


def _trouble_of_problem(problem: FleetProblem) -> Trouble:
    why = f"{problem.detail} [{problem.reason}]"
    if problem.reason == FleetReason.CHAIN_BROKEN:
        return Trouble(
            ExitCode.NO,
            "the event log does not verify",
            why,
            "treat the log as tampered with; restore a snapshot",
        )
    limit_reached = problem.reason in {
        FleetReason.RULE_LIMIT,
        FleetReason.LEASES_FULL,
        FleetReason.FLEET_FULL,
        FleetReason.SNAPSHOT_BUSY,
        FleetReason.POLICY_BUSY,
    }
    if problem.status in {401, 421, 429} and not limit_reached:
        return Trouble(
            ExitCode.YOURS,
            "the fleet did not accept the credentials",
            why,
            "check --token-file and --url",
        )
    if problem.reason == FleetReason.POLICY_PROXY_SILENT:
        return Trouble(
            ExitCode.UNREACHABLE,
            "the proxy could not be asked",
            why,
            "`palyra-fleet policy list` says when each proxy spoke last; see whether it runs",
        )
    if problem.status >= 500:
        return Trouble(
            ExitCode.OURS, "the fleet could not answer", why, "look at the fleet's log and retry"
        )
    return Trouble(ExitCode.NO, "the fleet refused", why, _where_to_look(problem.reason))


_LOOK_AT_RELEASES: Final = (
    "have somebody else look: `palyra-fleet worker requests`, `approve-release`"
)
_LOOK_AT_FREEZE: Final = (
    "`palyra-fleet freeze show` says by whom and since when; `unfreeze all` ends it"
)
_LOOK_AT_SNAPSHOTS: Final = "`palyra-fleet snapshot list` shows those there are"
_LOOK_AT_GRANTS: Final = (
    "`palyra-fleet grant list` shows those there are; `grant create` approves a run"
)
_LOOK_AT_ASKED: Final = "`palyra-fleet node show DEVICE` and `node asked` show how it came to this"
_BY_REASON: Final[dict[str, str]] = {
    FleetReason.RELEASE_NEEDS_SECOND: (
        "`palyra-fleet worker request-release`; then somebody else's `approve-release`"
    ),
    FleetReason.RELEASE_REQUESTED: _LOOK_AT_RELEASES,
    FleetReason.RELEASE_SAME_PERSON: _LOOK_AT_RELEASES,
    FleetReason.RELEASE_UNKNOWN: "`palyra-fleet worker requests` shows those that are open",
    FleetReason.REATTEST_FIRST: "start the worker again, so that it attests; then ask again",
    FleetReason.WORKER_UNKNOWN: "`palyra-fleet worker list` shows those there are",
    FleetReason.JOIN_UNKNOWN: "`palyra-fleet join-token list` shows those there are",
    FleetReason.LEASE_UNKNOWN: "`palyra-fleet lease list --state all` shows also those that ended",
    FleetReason.NO_GRANT: _LOOK_AT_GRANTS,
    FleetReason.GRANT_SPENT: _LOOK_AT_GRANTS,
    FleetReason.GRANT_UNKNOWN: _LOOK_AT_GRANTS,
    FleetReason.STORM: _LOOK_AT_FREEZE,
    FleetReason.FROZEN: _LOOK_AT_FREEZE,
    FleetReason.ALREADY_FROZEN: _LOOK_AT_FREEZE,
    FleetReason.NOT_FROZEN: "`palyra-fleet freeze show` says what is frozen",
    FleetReason.SNAPSHOT_BUSY: _LOOK_AT_SNAPSHOTS,
    FleetReason.SNAPSHOTS_FULL: _LOOK_AT_SNAPSHOTS,
    "api.ahead_of_log": (
        "look whether a snapshot was restored; `palyra-fleet event tail` begins anew"
    ),
    "node.not_served": "start the fleet with `palyra-fleet serve --nodes`",
    "api.role_refused": (
        "name the token of somebody with that role; `palyra-fleet principal self` says yours"
    ),
}
_BY_KIND: Final[dict[str, str]] = {
    "capability": _LOOK_AT_ASKED,
    "node": _LOOK_AT_ASKED,
    "enrolment": "`palyra-fleet proxy list` and `launcher list` show what is enrolled",
    "pairing": "`palyra-fleet node requests` shows how it came to this",
    "identity": "`palyra-fleet node list` and `ca show` show how it came to this",
    "principal": "`palyra-fleet principal list` shows those there are",
}
"""By what stands before the first dot of a reason."""


def _where_to_look(reason: str) -> str:
    kind = reason.partition(".")[0]
    anything = "`palyra-fleet worker show` and `event tail` show how it came to this"
    return _BY_REASON.get(reason) or _BY_KIND.get(kind) or anything
