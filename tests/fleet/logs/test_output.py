"""How lines get out: a reader that stands still holds up nobody, and what it misses is counted."""

import json
import logging
import os
import re
import subprocess
import sys

import pytest

from palyra_fleet.logs.lines import JsonLines, TextLines
from palyra_fleet.logs.output import LinesBehind

PROGRAM = """
import asyncio, logging, sys, warnings
from palyra_fleet.cli.output import announce, say
from palyra_fleet.logs.output import LogFormat, begin
begin("palyra-fleet", LogFormat(sys.argv[1]), sys.argv[2], behind=True)
announce("serves at 127.0.0.1:1")
say("palyra-fleet: it does not work\\nwhy: it is off", logging.ERROR)
logging.getLogger("palyra_fleet.x").info("an information")
logging.getLogger("palyra_egress.x").warning("a warning")
logging.getLogger("mitmproxy").info("a raw request")
warnings.warn("old", DeprecationWarning)
"""


def ran(form: str, level: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "always", "-c", PROGRAM, form, level],
        capture_output=True,
        text=True,
        check=True,
    )


def test_with_json_every_line_of_stderr_is_json_and_stdout_is_empty() -> None:
    done = ran("json", "warning")
    assert done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["log.level"], line["message"]) for line in lines[:3]] == [
        ("info", "serves at 127.0.0.1:1"),
        ("error", "palyra-fleet: it does not work\nwhy: it is off"),
        ("warning", "a warning"),
    ]
    assert "DeprecationWarning" in lines[3]["message"] and len(lines) == 4


def test_as_text_people_read_what_they_always_read() -> None:
    done = ran("text", "info")
    assert done.stdout == "serves at 127.0.0.1:1\n"
    assert "why: it is off\n" in done.stderr
    assert "INFO palyra_fleet.x: an information\n" in done.stderr
    assert "WARNING palyra_egress.x: a warning\n" in done.stderr
    assert "raw request" not in done.stderr


def told_as_dropped(text: bytes) -> int:
    return sum(int(found) for found in re.findall(rb"(\d+) lines were dropped", text))


def lines_of(descriptor: int) -> list[str]:
    with os.fdopen(descriptor) as reader:
        return reader.read().splitlines()


def test_a_reader_that_stands_still_holds_up_nobody_and_what_it_missed_is_told() -> None:
    reading, writing = os.pipe()
    handler = LinesBehind(writing, most=8)
    handler.setFormatter(TextLines())
    text = "x" * 1_000
    for _ in range(2_000):  # the pipe holds 64 of them, the queue eight
        handler.emit(
            logging.LogRecord("palyra_fleet", logging.WARNING, __file__, 1, text, (), None)
        )
    dropped = handler.dropped
    assert dropped >= 1_900
    os.set_blocking(reading, False)
    got = b""
    while told_as_dropped(got) < dropped:
        try:
            got += os.read(reading, 65_536)
        except BlockingIOError:
            os.sched_yield()
    assert told_as_dropped(got) == dropped
    handler.close()
    os.close(writing)
    os.close(reading)


def test_what_waits_at_the_end_is_written_and_a_reader_that_is_gone_is_no_error() -> None:
    reading, writing = os.pipe()
    handler = LinesBehind(writing)
    handler.setFormatter(TextLines())
    for number in range(100):
        handler.emit(
            logging.LogRecord("palyra_fleet", logging.INFO, __file__, 1, "%d", (number,), None)
        )
    handler.close()
    handler.close()
    os.close(writing)
    assert [line.rpartition(" ")[2] for line in lines_of(reading)] == [str(n) for n in range(100)]
    reading, writing = os.pipe()
    os.close(reading)
    gone = LinesBehind(writing)
    gone.setFormatter(TextLines())
    gone.emit(logging.LogRecord("palyra_fleet", logging.INFO, __file__, 1, "x", (), None))
    gone.close()
    os.close(writing)
    assert gone.dropped == 1


class NotShown:
    def __str__(self) -> str:
        raise RuntimeError("hunter2")


@pytest.mark.parametrize("form", [TextLines(), JsonLines("palyra-fleet")], ids=["text", "json"])
def test_a_line_that_cannot_be_written_ends_nothing_and_is_told(form: logging.Formatter) -> None:
    reading, writing = os.pipe()
    handler = LinesBehind(writing)
    handler.setFormatter(form)
    place = ("palyra_fleet.x", logging.WARNING, __file__, 1)
    handler.emit(logging.LogRecord(*place, "%s", (NotShown(),), None))
    handler.close()
    os.close(writing)
    (line,) = lines_of(reading)
    assert "a line could not be written: RuntimeError at " in line
    assert "hunter2" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_process_whose_reader_stands_still_ends_all_the_same(form: str) -> None:
    program = PROGRAM + "for n in range(9_000): logging.getLogger('palyra_fleet').error('x' * 99)"
    with subprocess.Popen(
        [sys.executable, "-c", program, form, "info"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.wait(60) == 0  # nobody reads its 64 KiB pipe
        assert process.stderr is not None
        process.stderr.close()
