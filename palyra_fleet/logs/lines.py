"""One log record as one line: JSON for machines, text for people. Nothing else formats records.

A line is one line whatever a worker called itself: control signs, and all that is not ASCII, leave
as JSON escapes, or as `?` on a terminal. It is bounded: texts are cut, and a line never holds more
than `MAX_LINE_BYTES`. Of an exception it has the type and the places in the code, never its text,
which may hold what a caller sent; of other libraries only the first line of their message.
"""

import json
import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final

from palyra_fleet.logs.faults import places_of
from palyra_fleet.logs.fields import ATTRIBUTE, ECS_VERSION, Field, Value, around

MAX_MESSAGE: Final = 2_048
MAX_FIELD: Final = 256
MAX_FOREIGN: Final = 256
MAX_LINE_BYTES: Final = 32 * 1024
_OURS: Final = ("palyra_egress", "palyra_fleet")
_LONGEST_ESCAPE: Final = 12
_ENOUGH: Final = 2


class JsonLines(logging.Formatter):
    """The Elastic Common Schema, dotted names. `service` is the program's name."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Value] = {
            "@timestamp": moment_of(record.created),
            "log.level": record.levelname.lower(),
            "message": bounded(_message(record), MAX_MESSAGE),
            "ecs.version": ECS_VERSION,
            "service.name": self._service,
            "process.pid": record.process or 0,
            "log.logger": bounded(record.name, MAX_FIELD),
            **{name.value: _cut(value) for name, value in _fields(record).items()},
            **_error(record),
        }
        return dumped(document)


class TextLines(logging.Formatter):
    """Level, logger, message, and the fields in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        told = " ".join(f"{name}={_cut(value)}" for name, value in _fields(record).items())
        error = _error(record)
        lines = [
            f"{record.levelname} {record.name}: {bounded(_message(record), MAX_MESSAGE)}"
            + (f" [{told}]" if told else "")
        ]
        if error:
            places = str(error["error.stack_trace"]).split("\n")
            lines += [f"{error['error.type']} at", *(f"  {place}" for place in places)]
        return "\n".join(map(_shown, lines))


def dumped(document: Mapping[str, object]) -> str:
    """JSON of printable ASCII in one line."""
    return json.dumps(document, separators=(",", ":")).replace("\x7f", "\\u007f")


def bounded(text: str, most: int) -> str:
    """At most `most` signs, and twice as many bytes once it is escaped. What is no Unicode text
    (half of a surrogate pair) becomes `?`, which every reader of JSON takes."""
    text = text[:most].encode(errors="replace").decode()
    return text if len(json.dumps(text)) <= _ENOUGH * most else text[: most // _LONGEST_ESCAPE]


def moment_of(unix_s: float) -> str:
    """RFC 3339 in UTC, with milliseconds."""
    return datetime.fromtimestamp(unix_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def is_ours(name: str) -> bool:
    """Whether a logger is of these programs."""
    return name.partition(".")[0] in _OURS


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except (TypeError, ValueError, KeyError):  # arguments that do not fit: the line is not lost
        text = str(record.msg)
    return text if is_ours(record.name) else text.partition("\n")[0][:MAX_FOREIGN]


def _fields(record: logging.LogRecord) -> dict[Field, Value]:
    own: Mapping[Field, Value] = getattr(record, ATTRIBUTE, {})
    return {**around(), **own}


def _cut(value: Value) -> Value:
    return bounded(value, MAX_FIELD) if isinstance(value, str) else value


def _error(record: logging.LogRecord) -> dict[str, Value]:
    if not record.exc_info or record.exc_info[0] is None:
        return {}
    kind, _, trace = record.exc_info
    return {
        "error.type": kind.__name__,
        "error.stack_trace": bounded(places_of(trace), MAX_MESSAGE),
    }


def _shown(line: str) -> str:
    return "".join(sign if sign.isprintable() else "?" for sign in line)
