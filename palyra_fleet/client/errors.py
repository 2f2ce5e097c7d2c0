"""What can go wrong between a client and the fleet, translated once.

`FleetUnavailable`: nobody answered, or not in time, or not in our language; the caller may try
again. `FleetProblem`: the fleet answered with a refusal (RFC 9457); trying the same again is
useless unless `status` says so. Neither text ever holds a token, a proof or a lease secret.
"""


class FleetError(Exception):
    """Base of both."""


class FleetUnavailable(FleetError):
    """The fleet could not be reached, fell silent, or did not answer as the fleet does."""


class FleetProblem(FleetError):
    """The fleet's answer is a refusal. `reason` is stable, `detail` is for people."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{reason} ({status}): {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail
