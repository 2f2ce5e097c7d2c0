"""Answers of the fleet API that are lists: `{"items": [...]}`, so that fields can be added later.

`EventsVerified` is the answer of `POST /v1/events:verify`: how many entries form the chain.
"""

from palyra_fleet.wire.approval_models import ApprovalRuleView
from palyra_fleet.wire.models import (
    EventView,
    GrantView,
    LeaseView,
    ViolationView,
    WireModel,
    WorkerOrder,
    WorkerView,
)
from palyra_fleet.wire.release_models import ReleaseRequestView


class OrderList(WireModel):
    items: tuple[WorkerOrder, ...]


class ReleaseRequestList(WireModel):
    items: tuple[ReleaseRequestView, ...]


class GrantList(WireModel):
    items: tuple[GrantView, ...]


class ApprovalRuleList(WireModel):
    items: tuple[ApprovalRuleView, ...]


class LeaseList(WireModel):
    items: tuple[LeaseView, ...]


class WorkerList(WireModel):
    """`next_cursor` leads to the next page; None on the last."""

    items: tuple[WorkerView, ...]
    next_cursor: str | None = None


class ViolationList(WireModel):
    """`next_cursor` leads to the next page; None on the last."""

    items: tuple[ViolationView, ...]
    next_cursor: str | None = None


class EventList(WireModel):
    items: tuple[EventView, ...]


class EventsVerified(WireModel):
    """The chain is whole from its first entry to its last; `entries` is how many there are."""

    entries: int
