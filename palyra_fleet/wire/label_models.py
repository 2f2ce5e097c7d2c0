"""The JSON body that changes the labels of a worker."""

from typing import Annotated

from pydantic import Field

from palyra_fleet.wire.labels import MAX_LABELS, LabelKey, LabelMap
from palyra_fleet.wire.models import ShortText, WireModel


class LabelRequest(WireModel):
    """Labels to give the worker, whatever it had under these keys, and keys to take from it. What
    is in both is given; the same again changes nothing."""

    reason: ShortText
    labels: LabelMap = Field(default_factory=dict)
    remove: Annotated[tuple[LabelKey, ...], Field(max_length=MAX_LABELS)] = ()
