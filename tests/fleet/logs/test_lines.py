"""One record is one bounded line, whatever is in it."""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_fleet.logs.fields import MEANINGS, Field, told, within
from palyra_fleet.logs.lines import (
    MAX_FIELD,
    MAX_LINE_BYTES,
    MAX_MESSAGE,
    JsonLines,
    TextLines,
)

EVERY_LINE = {
    "@timestamp",
    "log.level",
    "message",
    "ecs.version",
    "service.name",
    "process.pid",
    "log.logger",
}
PAGE = Path(__file__).resolve().parents[3] / "docs" / "signals.md"


def record(message: object, *args: object, name: str = "palyra_fleet.test", **extra: Any):
    made = logging.LogRecord(name, logging.WARNING, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


def as_json(made: logging.LogRecord) -> dict[str, Any]:
    line = JsonLines("palyra-fleet").format(made)
    assert "\n" not in line
    document: dict[str, Any] = json.loads(line)
    return document


def test_a_line_has_the_names_of_ecs_and_its_own_fields() -> None:
    made = record("lost %d of %s", 3, "them", **told({Field.WORKER_ID: "W", Field.RULE_ID: None}))
    made.created = 1_795_000_000.25
    document = as_json(made)
    assert set(document) == EVERY_LINE | {"palyra.worker.id"}
    assert document["@timestamp"] == "2026-11-18T11:06:40.250Z"
    assert (document["log.level"], document["message"]) == ("warning", "lost 3 of them")
    assert document["service.name"] == "palyra-fleet"
    assert list(document)[:3] == ["@timestamp", "log.level", "message"]  # as the ECS logging spec


def test_what_is_said_around_goes_into_every_line_and_is_left_out_where_nobody_did_it() -> None:
    with within({Field.REQUEST_ID: "R"}):
        assert as_json(record("x"))["http.request.id"] == "R"
        with within({}, alone=True):
            assert "http.request.id" not in as_json(record("x"))
        assert as_json(record("x", **told({Field.REQUEST_ID: "own"})))["http.request.id"] == "own"
    assert "http.request.id" not in as_json(record("x"))


@pytest.mark.parametrize(
    "sign",
    [
        "\n",
        "\r\n",
        "\x00",
        "\x1b[2J",  # clears a terminal
        "\x7f",
        "\x85",  # a line end to some readers
        "\u2028",  # and to others
        "\u202e",  # turns the reading direction
        "\ud800",  # half of a surrogate pair: no JSON reader but Python's takes it
    ],
)
def test_no_sign_of_a_worker_starts_a_line_or_moves_a_cursor(sign: str) -> None:
    forged = f"x{sign}ERROR palyra_fleet: all is lost"
    made = record("worker %s", forged, **told({Field.WORKER_ID: forged}))
    line = JsonLines("palyra-fleet").format(made)
    assert line.isascii() and line.isprintable()
    assert json.loads(line)["palyra.worker.id"].endswith("all is lost")
    json.loads(line)["message"].encode()  # is text
    assert TextLines().format(made).isprintable()


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_a_line_is_bounded_whatever_is_said(message: str, value: str) -> None:
    fields = dict.fromkeys(Field, value * 400)
    line = JsonLines("palyra-fleet").format(record("%s", message * 2_000, **told(fields)))
    assert len(line) <= MAX_LINE_BYTES
    assert line.isascii() and line.isprintable()
    document = json.loads(line)
    assert len(document["message"]) <= MAX_MESSAGE
    assert max(len(document[field]) for field in Field) <= MAX_FIELD


def test_a_fault_is_told_by_its_type_and_places_never_by_its_text() -> None:
    try:
        raise LookupError("s3cr3t")
    except LookupError:
        made = record("it failed", exc_info=sys.exc_info())
    document = as_json(made)
    assert document["error.type"] == "LookupError"
    assert "test_lines.py:" in document["error.stack_trace"]
    for form in (JsonLines("x"), TextLines()):
        assert "s3cr3t" not in form.format(made)
    assert "LookupError at" in TextLines().format(made)


def test_of_other_libraries_only_the_first_line_is_taken() -> None:
    """asyncio puts the text of a lost exception on the second."""
    text = "Task exception was never retrieved\nfuture: <Task exception=ValueError('s3cr3t')>"
    assert as_json(record(text, name="asyncio"))["message"] == "Task exception was never retrieved"
    assert "s3cr3t" in as_json(record(text))["message"]


def test_arguments_that_do_not_fit_lose_no_line() -> None:
    assert as_json(record("%d of %s", "many"))["message"] == "%d of %s"


def test_every_field_has_a_meaning_and_stands_on_the_page_for_operators() -> None:
    assert set(MEANINGS) == set(Field)
    page = PAGE.read_text()
    for field in Field:
        assert f"| `{field.value}` | " in page
