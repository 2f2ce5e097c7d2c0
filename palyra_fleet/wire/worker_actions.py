"""What an operator may ask of a worker, as routes and commands spell it."""

from enum import StrEnum


class WorkerAction(StrEnum):
    """What an operator can do to a worker with nothing but a reason."""

    QUARANTINE = "quarantine"
    RELEASE = "release"
    REVERIFY = "reverify"
    CORDON = "cordon"
    UNCORDON = "uncordon"
    BAN = "ban"
    EVICT = "evict"
