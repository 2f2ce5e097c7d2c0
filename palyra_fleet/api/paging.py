"""Pages of lists that stay right while things come and go.

A page begins after an item, not at a number: what is added or taken away meanwhile shifts nothing,
so no item that was there all along is missed or shown twice. Where it begins is in a cursor, an
opaque token for one list. It gives no access: one that was made up begins somewhere in the same
list, or is refused because it has not the form.
"""

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from palyra_fleet.api.problems import ApiReason, ApiRefusal
from palyra_fleet.wire import page_models
from palyra_fleet.wire.ids import ULID_PATTERN

MAX_CURSOR: Final = 200
DEFAULT_ROWS: Final = 100
MAX_ROWS: Final = page_models.MAX_ROWS
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]+")


class ListOf(Enum):
    """The lists that have pages, and the form of what a page begins after."""

    WORKERS = ("w", ULID_PATTERN)
    VIOLATIONS = ("v", "[0-9a-f]{64}")
    EVENTS = ("e", "[0-9]{1,15}")
    NODES = ("n", ULID_PATTERN)
    DEVICES = ("d", ULID_PATTERN)
    CERTIFICATES = ("x", "[0-9]{15}-[0-9a-f]{64}")
    PAIRING = ("p", ULID_PATTERN)
    CAPABILITIES = ("c", ULID_PATTERN)
    GRANTS = ("g", ULID_PATTERN)
    LEASES = ("l", "[0-9]{1,15}")


@dataclass(frozen=True, slots=True)
class Page[Item]:
    """One page. `next_cursor` is None on the last."""

    items: tuple[Item, ...]
    next_cursor: str | None


def make_cursor(list_of: ListOf, key: str) -> str:
    """The token that begins after the item with this key."""
    mark, _ = list_of.value
    return base64.urlsafe_b64encode(f"{mark}:{key}".encode()).decode().rstrip("=")


def read_cursor(list_of: ListOf, cursor: str | None, name: str = "cursor") -> str | None:
    """The key to begin after; None without a cursor. Raises ApiRefusal."""
    if cursor is None:
        return None
    mark, form = list_of.value
    if len(cursor) <= MAX_CURSOR and _TOKEN.fullmatch(cursor):
        try:
            padded = cursor + "=" * (-len(cursor) % 4)
            said, _, key = base64.urlsafe_b64decode(padded).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            said, key = "", ""
        if said == mark and re.fullmatch(form, key) and make_cursor(list_of, key) == cursor:
            return key
    raise ApiRefusal(ApiReason.QUERY_INVALID, f"{name}: expected the next_cursor of this list")


def cut[Item](
    list_of: ListOf, found: tuple[Item, ...], key: Callable[[Item], str], limit: int
) -> Page[Item]:
    """The page of a list that was asked for one item more than `limit`."""
    items = found[:limit]
    more = len(found) > limit and bool(items)
    return Page(items, make_cursor(list_of, key(items[-1])) if more else None)


def narrowed[Item](
    list_of: ListOf,
    found: tuple[Item, ...],
    key: Callable[[Item], str],
    fits: Callable[[Item], bool],
    limit: int,
) -> Page[Item]:
    """A page of those that fit, of a list that was asked for MAX_ROWS items and one more. It ends
    after `limit` that fit, or after MAX_ROWS that were looked at; the next goes on from there."""
    looked_at = found[:MAX_ROWS]
    shown = tuple(item for item in looked_at if fits(item))
    last = None if len(found) <= MAX_ROWS else looked_at[-1]
    if len(shown) > limit:
        last = shown[limit - 1]
    return Page(shown[:limit], None if last is None else make_cursor(list_of, key(last)))
