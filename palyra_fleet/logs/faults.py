"""A fault in words that may stand in any log: its type and the places in the code, no value.

An error's text, and the traceback that `logging` prints with it, may hold what somebody sent. Only
our own formatters (`lines`) leave it out of a record that carries the error itself; those of a host
that embeds us, and mitmproxy's, print it. So no record of ours carries a traceback, or an error
that nobody expected: it is told by `fault_of`, which a test of the whole source keeps so
(`tests/project/test_told_faults.py`). An error whose text is ours is told by it.
"""

import traceback
from types import TracebackType
from typing import Final

MAX_PLACES: Final = 16


def fault_of(error: BaseException) -> str:
    """`TYPE at FILE:LINE FUNCTION > …`, innermost last; the type alone for one never raised."""
    kind, places = type(error).__name__, places_of(error.__traceback__, " > ")
    return f"{kind} at {places}" if places else kind


def places_of(trace: TracebackType | None, between: str = "\n") -> str:
    """Where in the code, innermost last, at most `MAX_PLACES`; no values."""
    frames = traceback.extract_tb(trace)[-MAX_PLACES:]
    return between.join(f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames)
