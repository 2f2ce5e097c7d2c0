"""Unix milliseconds as a date to show. Pure.

Times come from workers, proxies and devices as well, and may be any number that fits their models:
what lies beyond the calendar is shown as its last second, and never stops a page or a command.
"""

from datetime import UTC, datetime
from typing import Final

LAST_UNIX_MS: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def date_of(unix_ms: int) -> datetime:
    """The second it falls in, in UTC."""
    return datetime.fromtimestamp(max(0, min(unix_ms, LAST_UNIX_MS)) // 1000, UTC)
