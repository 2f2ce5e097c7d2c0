"""Lists that are cut into pages, each of which begins after an item of the one before."""

from typing import Final

from palyra_fleet.wire.models import WireModel

MAX_ROWS: Final = 1000
"""How many items a page has at most."""


class PageModel[Item](WireModel):
    """`next_cursor` leads to the next page; None on the last."""

    items: tuple[Item, ...]
    next_cursor: str | None = None
