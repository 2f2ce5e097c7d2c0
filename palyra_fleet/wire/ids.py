"""The one spelling of an id (a ULID: 26 characters of upper-case Crockford base 32) and of a name.

The first character is at most `7` (128 bits fit no more). Anything else is another id, or none.
"""

import re
from typing import Final

from ulid import ULID

ULID_PATTERN: Final = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
NAME_PATTERN: Final = "[a-z0-9][a-z0-9._-]{0,63}"
_ULID: Final = re.compile(ULID_PATTERN)


def first_id_of(unix_ms: int) -> str:
    """The lowest id that a moment has (none is lower from then on)."""
    return str(ULID.from_timestamp(max(0, unix_ms)))[:10] + "0" * 16


def is_canonical_ulid(text: str) -> bool:
    """Whether `text` is a ULID in its canonical spelling."""
    return _ULID.fullmatch(text) is not None
