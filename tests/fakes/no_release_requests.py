"""The fake fleet where nobody has asked for a release: requests for them have tests of their own
on the real fleet."""

from typing import NoReturn

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.release_models import ReleaseRequestView


class NoReleaseRequests:
    """Mixed into `FakeFleetService`."""

    two_person_release = False

    async def request_release(self, actor: str, worker_id: str, reason: str) -> NoReturn:
        raise FleetRefusal(FleetReason.NOT_QUARANTINED, "nobody here is quarantined")

    async def release_requests(self) -> tuple[ReleaseRequestView, ...]:
        return ()

    async def release_request_of(self, worker_id: str) -> None:
        return None

    async def approve_release(self, actor: str, release_id: str, reason: str) -> NoReturn:
        raise FleetRefusal(FleetReason.RELEASE_UNKNOWN, "nobody has asked")

    async def withdraw_release(self, actor: str, release_id: str, reason: str) -> NoReturn:
        raise FleetRefusal(FleetReason.RELEASE_UNKNOWN, "nobody has asked")

    async def void_releases_of(self, asker: str, actor: str, reason: str) -> None:
        """There is none."""
