"""The one spelling of an id: a ULID of 26 characters of upper-case Crockford base 32.

The first character is at most `7` (128 bits fit no more). Anything else is another id, or none.
"""

import re
from typing import Final

ULID_PATTERN: Final = "[0-7][0-9A-HJKMNP-TV-Z]{25}"
_ULID: Final = re.compile(ULID_PATTERN)


def is_canonical_ulid(text: str) -> bool:
    """Whether `text` is a ULID in its canonical spelling."""
    return _ULID.fullmatch(text) is not None
