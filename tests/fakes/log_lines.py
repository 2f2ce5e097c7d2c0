"""What a logger writes, as the JSON lines that a program would write at that moment."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager

from palyra_fleet.logs.lines import JsonLines


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(JsonLines("palyra-test"))
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(json.loads(self.format(record)))


@contextmanager
def json_lines(logger: str, level: int = logging.INFO) -> Iterator[list[dict[str, object]]]:
    """The lines that this logger writes from `level` on while the block lasts."""
    found, handler = logging.getLogger(logger), _Collected()
    before = found.level
    found.addHandler(handler)
    found.setLevel(level)
    try:
        yield handler.lines
    finally:
        found.setLevel(before)
        found.removeHandler(handler)
