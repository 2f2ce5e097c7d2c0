"""Answers on standard output: a table for people, JSON or YAML for programs, or names alone for
shells; chatter on stderr.

A table has the columns named for its model; long values are kept whole, so that ids can be copied.
Control characters in values that workers chose are shown as `?`, so that no answer can move the
cursor of an operator's terminal.
"""

import io
import json
import logging
import re
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Final

from pydantic import BaseModel
from ruamel.yaml import YAML

from palyra_fleet.logs.output import chatter
from palyra_fleet.wire.enrolment_models import EnrolmentView, ReferenceValueView
from palyra_fleet.wire.lease_models import LeaseView
from palyra_fleet.wire.models import (
    EventView,
    GrantView,
    LeaseState,
    ViolationView,
    WorkerView,
)
from palyra_fleet.wire.moments import date_of
from palyra_fleet.wire.placement_models import OfferView
from palyra_fleet.wire.policy_models import ProxyPolicy, RuleInForce
from palyra_fleet.wire.release_models import ReleaseRequestView
from palyra_fleet.wire.snapshot_models import SnapshotView

_QUOTED_AT_MOST: Final = 60
_LETS_IN: Final = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*://)?.*@", re.DOTALL)
_ASKED: Final = re.compile(r"(?<=.)[?#].*", re.DOTALL)
FORMS: Final = ("table", "json", "yaml", "name")
"""`name` is the first column alone, one a line."""


_TIME: Final = "_unix_ms"


class Done(BaseModel):
    """What came of a change that answers nothing by itself: which command, of what, in words."""

    done: str
    subject: str
    message: str


COLUMNS: Final[dict[type[BaseModel], tuple[str, ...]]] = {
    Done: ("subject",),
    WorkerView: ("worker_id", "state", "admission", "eligibility", "work", "run_id", "lease_id"),
    GrantView: (
        "grant_id",
        "run_id",
        "tool_name",
        "principal",
        "egress_profile",
        "read_only",
        "uses",
        "rule_id",
    ),
    LeaseView: (
        "lease_id",
        "worker_id",
        "run_id",
        "fence",
        "state",
        "egress_profile",
        "expires_at_unix_ms",
        "ended_at_unix_ms",
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
    ReleaseRequestView: ("release_id", "worker_id", "asked_by", "why", "expires_at_unix_ms"),
    OfferView: (
        "offer_id",
        "run_id",
        "worker_id",
        "state",
        "lease_id",
        "expires_at_unix_ms",
    ),
    SnapshotView: ("snapshot_id", "saved_at_unix_ms", "saved_by", "epoch", "seq", "size_bytes"),
    ProxyPolicy: (
        "proxy_id",
        "heard",
        "as_expected",
        "standing.rules",
        "standing.loaded_at_unix_ms",
        "standing.policy_digest",
    ),
    RuleInForce: ("rule_id", "kind", "hosts", "methods", "profiles", "where", "owner"),
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
    columns = columns or (COLUMNS.get(type(found[0])) if found else None)
    if form == "name":
        for item in found:
            _line(printable(_dig(item, _naming(item, columns))))
    elif form != "table":
        _line(_written([item.model_dump(mode="json") for item in found], form))
    elif found:
        _table(found, columns or COLUMNS[type(found[0])])
    else:
        say("none")


def show_one(found: BaseModel, form: str) -> None:
    """One thing with all its fields."""
    values = found.model_dump(mode="json")
    if form == "name":
        _line(printable(_dig(found, _naming(found, COLUMNS.get(type(found))))))
        return
    if form != "table":
        _line(_written(values, form))
        return
    width = max(len(_heading(name)) for name in values)
    for name, value in values.items():
        _line(f"{_heading(name).ljust(width)}  {_cell(name, value)}")


def acknowledge(arguments: Namespace, subject: str, sentence: str) -> None:
    """That a change was made: a sentence for people, on stderr; for programs an answer."""
    if arguments.output == "table":
        say(sentence)
        return
    done = f"{arguments.noun} {arguments.verb}"
    show_one(Done(done=done, subject=subject, message=sentence), arguments.output)


def _naming(item: BaseModel, columns: tuple[str, ...] | None) -> str:
    """The field that names a thing: its first column, or its first field."""
    return columns[0] if columns else next(iter(type(item).model_fields))


def _written(values: object, form: str) -> str:
    """JSON or YAML; in both, control characters are escaped."""
    if form == "json":
        return json.dumps(values, indent=2)
    text = io.StringIO()
    yaml = YAML(pure=True)
    yaml.allow_unicode = False
    yaml.dump(values, text)
    return text.getvalue()


def quoted(given: str) -> str:
    """What was given, for a sentence that says it does not fit: not at length, and of an address
    neither who is to be let in nor what is asked for, since both may hold a secret."""
    given = _ASKED.sub("?…", _LETS_IN.sub(r"\1…@", given))
    return repr(given[:_QUOTED_AT_MOST])


def say(sentence: str, level: int = logging.INFO) -> None:
    """Chatter, on stderr. It may quote what workers and proxies chose. Where the log is JSON it is
    a line of the log, of this level."""
    speak = chatter()
    if speak is not None:
        speak(level, sentence)
        return
    sys.stderr.write("\n".join(map(printable, sentence.split("\n"))) + "\n")
    sys.stderr.flush()


def clear() -> None:
    """An empty screen on a terminal, an empty line elsewhere."""
    sys.stdout.write("\x1b[H\x1b[2J" if sys.stdout.isatty() else "\n")
    sys.stdout.flush()


def put(text: str) -> None:
    """Data, on stdout."""
    _line(text)


def announce(text: str) -> None:
    """What a program that serves says of itself: on stdout, or a line of a log that is JSON."""
    if chatter() is None:
        _line(text)
    elif text:
        say(text)


def _table(found: Sequence[BaseModel], columns: tuple[str, ...]) -> None:
    rows = [
        tuple(map(_heading, columns)),
        *(tuple(_cell(name, _dig(item, name)) for name in columns) for item in found),
    ]
    widths = [max(len(row[index]) for row in rows) for index in range(len(columns))]
    for row in rows:
        _line("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)))


def _heading(name: str) -> str:
    """What a table calls a field. Programs read the other forms, which keep its name."""
    return name.removesuffix(_TIME)


def _cell(name: str, value: object) -> str:
    """A value in a table, where a time is one for people and what has parts is told part by part;
    `-` where there is nothing."""
    match value:
        case int() if name.endswith(_TIME):
            return moment(value)
        case dict():
            told = [f"{_heading(str(key))}={_cell(str(key), one)}" for key, one in value.items()]
        case list() | tuple():
            told = [_cell("", one) for one in value]
        case _:
            return printable(value)
    return ", ".join(printable(one) for one in told) or "-"


def _dig(item: object, path: str) -> object:
    for name in path.split("."):
        item = None if item is None else getattr(item, name)
    return item


def moment(unix_ms: int) -> str:
    """A time for a person to read."""
    return date_of(unix_ms).strftime("%Y-%m-%d %H:%M:%S UTC")


def printable(value: object) -> str:
    """One line of text that cannot move the cursor; `-` for None."""
    text = "-" if value is None else str(value)
    return "".join(sign if sign.isprintable() else "?" for sign in text)


def _line(text: str) -> None:
    sys.stdout.write(text.rstrip() + "\n")
    sys.stdout.flush()
