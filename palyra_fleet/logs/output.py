"""How log lines get out: on stderr, and for programs that serve by a thread of its own.

Who reads stderr may be slow or stand still; a program that serves must not stand still with it. So
lines wait in a bounded queue, and what finds it full is dropped and counted: the next line that
gets out says how many are missing, and a metric shows it. At the end what waits is written, for at
most `END_WITHIN_S`.
"""

import contextlib
import logging
import os
import queue
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from palyra_fleet.logs.faults import fault_of
from palyra_fleet.logs.lines import JsonLines, TextLines

MAX_WAITING: Final = 4_096
END_WITHIN_S: Final = 2.0
LEVELS: Final = ("error", "warning", "info")
CHATTER: Final = "palyra_fleet.cli.output"
"""The logger of what commands say to people."""


class LogFormat(StrEnum):
    """How lines look."""

    TEXT = "text"
    JSON = "json"


@dataclass(slots=True)
class _Output:
    format: LogFormat = LogFormat.TEXT
    behind: "LinesBehind | None" = None


_OUTPUT: Final = _Output()


class LinesBehind(logging.Handler):
    """Writes lines in a thread. `dropped` counts those that found the queue full."""

    def __init__(self, descriptor: int, most: int = MAX_WAITING) -> None:
        super().__init__()
        self.dropped = 0
        self._told = 0
        self._descriptor = descriptor
        self._waiting: queue.Queue[str | None] = queue.Queue(most)
        self._closed = False
        self._thread = threading.Thread(target=self._write_all, name="log lines", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as fault:  # noqa: BLE001 a line must not end what it tells of
            place = (record.name, logging.ERROR, record.pathname, record.lineno)
            told = (*place, "a line could not be written: %s", (fault_of(fault),), None)
            line = self.format(logging.LogRecord(*told))
        try:
            self._waiting.put_nowait(line)
        except queue.Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what waits, for a moment. May be called twice."""
        if not self._closed:
            self._closed = True
            with contextlib.suppress(queue.Full):
                self._waiting.put(None, timeout=END_WITHIN_S)
            self._thread.join(END_WITHIN_S)
        super().close()

    def _write_all(self) -> None:
        while (line := self._waiting.get()) is not None:
            if not self._write(line):
                self.dropped += 1
            elif self.dropped > self._told:
                missing, self._told = self.dropped - self._told, self.dropped
                text = "%d lines were dropped: who reads the log is too slow"
                place = (__name__, logging.WARNING, __file__, 0, text, (missing,), None)
                self._write(self.format(logging.LogRecord(*place)))

    def _write(self, line: str) -> bool:
        """Past `sys.stderr`, whose lock a thread that stands still would hold for ever."""
        left = line.encode(errors="replace") + b"\n"
        try:
            while left:
                left = left[os.write(self._descriptor, left) :]
        except OSError:  # nobody reads any more
            return False
        return True


def begin(service: str, form: LogFormat, level: str, *, behind: bool) -> None:
    """Let log lines out. `level` is for our own loggers; other libraries speak from warnings on.
    `behind`: in a thread, for programs that serve. Where handlers are set up already, they stay."""
    if logging.root.handlers:
        return
    handler = LinesBehind(sys.stderr.fileno()) if behind else logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(service) if form is LogFormat.JSON else TextLines())
    logging.root.addHandler(handler)
    logging.root.setLevel(logging.WARNING)
    logging.captureWarnings(True)
    for name in ("palyra_egress", "palyra_fleet"):
        logging.getLogger(name).setLevel(level.upper())
    logging.getLogger(CHATTER).setLevel(logging.INFO)
    _OUTPUT.format = form
    _OUTPUT.behind = handler if isinstance(handler, LinesBehind) else None


def chatter() -> Callable[[int, str], None] | None:
    """Where what is said to people goes while the log is JSON; None: to stderr as it is."""
    return logging.getLogger(CHATTER).log if _OUTPUT.format is LogFormat.JSON else None


def dropped_lines() -> int:
    """How many lines of this process were dropped."""
    return 0 if _OUTPUT.behind is None else _OUTPUT.behind.dropped
