"""What the command line says when something is wrong: three lines and an exit code.

The lines say what happened, why, and what to do. Exit codes: 0 done, 1 the answer is no, 2 yours
to fix (usage, file, credentials), 69 the server cannot be reached, 70 our fault.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """How the program ends."""

    DONE = 0
    NO = 1
    YOURS = 2
    UNREACHABLE = 69
    OURS = 70


class Trouble(Exception):
    """One error for a person."""

    def __init__(self, exit_code: ExitCode, what: str, why: str, remedy: str) -> None:
        super().__init__(f"{what}\n  why: {why}\n  do:  {remedy}")
        self.exit_code = exit_code
        self.why = why
        self.remedy = remedy


def reason_of(error: Exception) -> str:
    """What the system said, without a number and without the path once more."""
    told = error.strerror if isinstance(error, OSError) else None
    return told or str(error) or type(error).__name__
