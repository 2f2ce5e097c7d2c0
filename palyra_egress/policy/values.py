"""Reads the small values of a policy file: sizes, durations, times, identifiers.

Each function takes the text or number as written and returns the value in its unit, or None if the
spelling is not the expected one. Sizes are bytes (`512`, `64KiB`, `32MiB`, `2GiB`), durations are
milliseconds (`30s`, `10m`, `2h`), times are Unix milliseconds (RFC 3339 with `Z` or an offset).
"""

import re
from datetime import UTC, datetime, timedelta
from typing import Final

EXPECTED_SIZE: Final = "a size such as 512, 64KiB, 32MiB or 2GiB"
EXPECTED_DURATION: Final = "a duration such as 30s, 10m or 2h"
EXPECTED_TIME: Final = "a time such as 2027-03-31T18:00:00Z"
EXPECTED_ID: Final = "letters, digits, '.', '_' and '-', starting with a letter or digit"
MAX_SIZE_BYTES: Final = 1 << 50
MAX_DURATION_MS: Final = 30 * 24 * 3_600_000
SIZE_PATTERN: Final = "(0|[1-9][0-9]{0,15})(KiB|MiB|GiB)"
DURATION_PATTERN: Final = "([1-9][0-9]{0,6})(s|m|h)"
ID_PATTERN: Final = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
INCLUDE_PATTERN: Final = (
    "(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,63}/){0,8}[A-Za-z0-9_][A-Za-z0-9._-]{0,63}[.]ya?ml"
)
"""No `..`, no absolute path, no URL, no globs, and one spelling for each file."""
EXPECTED_INCLUDE: Final = (
    "a file beside or below this one, such as base.yaml or team/rules.yaml: "
    "no .., no absolute path, no URL, no wildcards"
)
FORMAT_PATTERN: Final = (
    r"(?=[!-~])(?:(?!\{secret\})[ -~]){0,100}\{secret\}(?:(?!\{secret\})[ -~]){0,100}(?<! )"
)
"""Printable ASCII with the slot once and no space at either end."""
EXPECTED_FORMAT: Final = 'printable ASCII with {secret} in it once, such as "Bearer {secret}"'
BASIC_USER_PATTERN: Final = "[!-9;-~]{1,100}"
EXPECTED_BASIC_USER: Final = "the user name of HTTP Basic: printable ASCII, no space and no colon"
PLACEHOLDER_PATTERN: Final = "[A-Za-z0-9._~-]{8,128}"
EXPECTED_PLACEHOLDER: Final = "8 to 128 letters, digits, '.', '_', '~' and '-'"
CANARY_PATTERN: Final = "[!-~][ -~]{10,498}[!-~]"
MIN_CANARY_SIGNS: Final = 6
EXPECTED_CANARY: Final = (
    f"12 to 500 printable ASCII signs, at least {MIN_CANARY_SIGNS} different ones, that nothing "
    "else ever says"
)
TIME_PATTERN: Final = (
    "[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}"
    "(?:[.][0-9]{1,6})?(?:[Zz]|[+-][0-9]{2}:[0-9]{2})"
)
_SIZE: Final = re.compile(SIZE_PATTERN, re.ASCII)
_DURATION: Final = re.compile(DURATION_PATTERN, re.ASCII)
_ID: Final = re.compile(ID_PATTERN, re.ASCII)
_INCLUDE: Final = re.compile(INCLUDE_PATTERN, re.ASCII)
_TIME: Final = re.compile(TIME_PATTERN, re.ASCII)
_SIZE_UNITS: Final = {"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
_DURATION_UNITS: Final = {"s": 1000, "m": 60_000, "h": 3_600_000}


def read_size(value: object) -> int | None:
    """Bytes of a plain number or a number with KiB, MiB or GiB."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        found = _SIZE.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            return None
        size = int(found[1]) * _SIZE_UNITS[found[2]]
    return size if 0 <= size <= MAX_SIZE_BYTES else None


def suggest_size(text: str) -> str | None:
    """The spelling that was probably meant: 32MB, 32mb and 32M are 32MiB here."""
    found = re.fullmatch(r"([0-9]{1,15}) ?([kmg])(?:i?b)?", text.strip(), re.ASCII | re.IGNORECASE)
    return None if found is None else f"{int(found[1])}{found[2].upper()}iB"


def is_include(text: str) -> bool:
    return _INCLUDE.fullmatch(text) is not None


def read_duration_ms(text: str) -> int | None:
    found = _DURATION.fullmatch(text)
    if found is None:
        return None
    duration = int(found[1]) * _DURATION_UNITS[found[2]]
    return duration if duration <= MAX_DURATION_MS else None


def read_time_unix_ms(text: str) -> int | None:
    """RFC 3339 with an offset; a time without one means a different moment to every reader."""
    if _TIME.fullmatch(text) is None:
        return None
    try:
        moment = datetime.fromisoformat(text.upper())
    except ValueError:
        return None
    delta = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (delta.days * 86_400 + delta.seconds) * 1000 + delta.microseconds // 1000


def is_identifier(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def write_size(size_bytes: int) -> str:
    """The shortest spelling: the largest unit that leaves a whole number."""
    for unit, factor in reversed(_SIZE_UNITS.items()):
        if size_bytes and size_bytes % factor == 0:
            return f"{size_bytes // factor}{unit}"
    return str(size_bytes)


def write_duration(duration_ms: int) -> str:
    """The shortest spelling of a duration that `read_duration_ms` gave."""
    for unit, factor in reversed(_DURATION_UNITS.items()):
        if duration_ms % factor == 0:
            return f"{duration_ms // factor}{unit}"
    return f"{duration_ms}ms"


def write_time(unix_ms: int) -> str:
    """RFC 3339 in UTC, with a fraction only where there is one; exact for every 64-bit number."""
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms)
    except OverflowError:
        return f"{unix_ms} ms"
    return moment.isoformat(timespec="milliseconds").replace(".000", "").replace("+00:00", "Z")
