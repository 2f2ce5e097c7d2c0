"""Answers on standard output, as a table for people or JSON for programs; chatter on stderr.

A table has the columns named for its model; long values are kept whole, so that ids can be copied.
Control characters in values that workers chose are shown as `?`, so that no answer can move the
cursor of an operator's terminal.
"""

import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from pydantic import BaseModel

from palyra_fleet.wire.enrolment_models import EnrolmentView, ReferenceValueView
from palyra_fleet.wire.models import (
    EventView,
    GrantView,
    LeaseState,
    LeaseView,
    ViolationView,
    WorkerView,
)

COLUMNS: Final[dict[type[BaseModel], tuple[str, ...]]] = {
    WorkerView: ("worker_id", "state", "admission", "eligibility", "work", "run_id", "lease_id"),
    GrantView: ("grant_id", "run_id", "tool_name", "principal", "egress_profile", "uses"),
    LeaseView: (
        "lease_id",
        "worker_id",
        "run_id",
        "fence",
        "state",
        "egress_profile",
        "expires_at_unix_ms",
    ),
    EnrolmentView: (
        "name",
        "standing",
        "device_id",
        "workers",
        "evidence_seq",
        "revoked_at_unix_ms",
    ),
    ReferenceValueView: ("digest_field", "digest_sha256", "workers"),
    LeaseState: ("lease_id", "state", "expires_at_unix_ms"),
    EventView: ("seq", "at_unix_ms", "reason", "actor", "worker_id", "lease_id"),
    ViolationView: (
        "received_at_unix_ms",
        "outcome",
        "payload.worker_id",
        "payload.reason",
        "payload.rule_id",
        "payload.target",
    ),
}


def show_many(
    found: Sequence[BaseModel], form: str, columns: tuple[str, ...] | None = None
) -> None:
    """A list, as it is: an empty list is an empty table, or `[]`. A table has the columns given, or
    those of its model."""
    if form == "json":
        _line(json.dumps([item.model_dump(mode="json") for item in found], indent=2))
    elif found:
        _table(found, columns or COLUMNS[type(found[0])])
    else:
        say("none")


def show_one(found: BaseModel, form: str) -> None:
    """One thing with all its fields."""
    values = found.model_dump(mode="json")
    if form == "json":
        _line(json.dumps(values, indent=2))
        return
    width = max(len(name) for name in values)
    for name, value in values.items():
        _line(f"{name.ljust(width)}  {_text(value)}")


def say(sentence: str) -> None:
    """Chatter, on stderr. It may quote what workers and proxies chose."""
    sys.stderr.write("\n".join(map(_text, sentence.split("\n"))) + "\n")
    sys.stderr.flush()


def put(text: str) -> None:
    """Data, on stdout."""
    _line(text)


def _table(found: Sequence[BaseModel], columns: tuple[str, ...]) -> None:
    rows = [columns, *(tuple(_text(_dig(item, name)) for name in columns) for item in found)]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        _line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))


def _dig(item: object, path: str) -> object:
    for name in path.split("."):
        item = getattr(item, name)
    return item


def moment(unix_ms: int) -> str:
    """A time for a person to read."""
    return datetime.fromtimestamp(unix_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _text(value: object) -> str:
    text = "-" if value is None else str(value)
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _line(text: str) -> None:
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()
