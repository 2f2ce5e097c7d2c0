"""Answers of the fleet API that are lists: `{"items": [...]}`, so that fields can be added later.

`EventsVerified` is the answer of `POST /v1/events:verify`: how many entries form the chain.
"""

from palyra_fleet.wire.approval_models import ApprovalRuleView
from palyra_fleet.wire.lease_models import LeaseView
from palyra_fleet.wire.models import (
    EventView,
    GrantView,
    ViolationView,
    WireModel,
    WorkerView,
)
from palyra_fleet.wire.page_models import PageModel
from palyra_fleet.wire.placement_models import OfferView, WorkerOrder
from palyra_fleet.wire.policy_models import ProxyPolicy
from palyra_fleet.wire.release_models import ReleaseRequestView


class OrderList(WireModel):
    items: tuple[WorkerOrder, ...]


class ReleaseRequestList(WireModel):
    items: tuple[ReleaseRequestView, ...]


class OfferList(WireModel):
    items: tuple[OfferView, ...]


class PolicyList(WireModel):
    """By the proxy's name."""

    items: tuple[ProxyPolicy, ...]


class GrantList(PageModel[GrantView]):
    """The newest first."""


class ApprovalRuleList(WireModel):
    items: tuple[ApprovalRuleView, ...]


class LeaseList(PageModel[LeaseView]):
    """The newest first."""


class WorkerList(PageModel[WorkerView]):
    """The newest id first."""


class ViolationList(PageModel[ViolationView]):
    """The newest first."""


class EventList(WireModel):
    items: tuple[EventView, ...]


class EventsVerified(WireModel):
    """The chain is whole from its first entry to its last; `entries` is how many there are."""

    entries: int
