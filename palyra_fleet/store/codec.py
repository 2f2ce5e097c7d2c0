"""Records as JSON text for the `body` column, and back. Bytes travel as base64.

Reading refuses: a body with an unknown field, a missing required one or a wrong type is damaged
state, and damaged state is not repaired here. Pure.
"""

from pydantic import ConfigDict, TypeAdapter, ValidationError

from palyra_fleet.clock import ClockMark
from palyra_fleet.leases.records import WorkerApprovalGrant, WorkerLease
from palyra_fleet.ledger.facts import WorkerRecord
from palyra_fleet.store.protocol import StateUnusable

_CONFIG = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64", extra="forbid")

_WORKER = TypeAdapter[tuple[WorkerRecord]](tuple[WorkerRecord], config=_CONFIG)
_LEASE = TypeAdapter[tuple[WorkerLease]](tuple[WorkerLease], config=_CONFIG)
_GRANT = TypeAdapter[tuple[WorkerApprovalGrant]](tuple[WorkerApprovalGrant], config=_CONFIG)


def worker_body(worker: WorkerRecord) -> str:
    return _WORKER.dump_json((worker,)).decode()


def lease_body(lease: WorkerLease) -> str:
    return _LEASE.dump_json((lease,)).decode()


def grant_body(grant: WorkerApprovalGrant) -> str:
    return _GRANT.dump_json((grant,)).decode()


def read_worker(body: str) -> WorkerRecord:
    return _read(_WORKER, body)


def read_lease(body: str) -> WorkerLease:
    return _read(_LEASE, body)


def read_grant(body: str) -> WorkerApprovalGrant:
    return _read(_GRANT, body)


def _read[R](adapter: TypeAdapter[tuple[R]], body: str) -> R:
    try:
        return adapter.validate_json(body)[0]
    except ValidationError as error:
        kinds = sorted({problem["type"] for problem in error.errors(include_input=False)})
        text = f"a stored record is damaged ({', '.join(kinds)}); restore the state from a backup"
        raise StateUnusable(text) from None


def mark_text(mark: ClockMark) -> str:
    return f"{mark.since_boot_ms} {mark.unix_ms} {mark.boot_id}"


def read_mark(text: str) -> ClockMark:
    since_boot_ms, unix_ms, boot_id = text.split(" ", 2)
    return ClockMark(boot_id, int(since_boot_ms), int(unix_ms))
