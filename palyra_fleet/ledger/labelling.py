"""Labels of workers: operators' words about them. They decide nothing. Pure.

A worker gets labels from the join token that let it in, and from operators; it has no say in them
itself. They stay through new evidence, quarantine and release, and go with the record.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from palyra_fleet.ledger.decision import Decision, Detail, EventReason
from palyra_fleet.ledger.draft import Draft
from palyra_fleet.ledger.guards import find_worker
from palyra_fleet.ledger.state import LedgerState
from palyra_fleet.refusals import FleetReason, Refusal
from palyra_fleet.wire.labels import MAX_LABELS, sorted_labels, written


def label(
    state: LedgerState,
    worker_id: str,
    labels: Mapping[str, str],
    remove: Iterable[str],
    actor: str,
    why: str,
    now_unix_ms: int,
) -> Decision | Refusal:
    """Take the keys of `remove`, then give `labels`. What is so already changes nothing."""
    worker = find_worker(state, worker_id)
    if isinstance(worker, Refusal):
        return worker
    before, gone = dict(worker.labels), frozenset(remove)
    after = {key: value for key, value in before.items() if key not in gone} | dict(labels)
    if after == before:
        return Decision(now_unix_ms)
    if len(after) > MAX_LABELS:
        text = f"worker '{worker_id}' would have {len(after)} labels; {MAX_LABELS} is the most"
        return Refusal(FleetReason.LABELS_FULL, text)
    given = [(key, value) for key, value in after.items() if before.get(key) != value]
    detail: Detail = {
        "given": written(sorted(given)) or None,
        "taken": ",".join(sorted(before.keys() - after.keys())) or None,
        "why": why,
    }
    draft = Draft(state, now_unix_ms, actor)
    draft.put_worker(replace(worker, labels=sorted_labels(after)))
    draft.event(EventReason.LABELLED, worker_id, None, detail)
    return draft.finish()
