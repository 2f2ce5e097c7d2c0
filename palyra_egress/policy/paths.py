"""The one form of a request path, and the segment globs that rules write.

`read_path` takes a raw path (starting with `/`, no query) and gives the form that patterns are
compared with: percent-encoded unreserved letters decoded, other escapes in upper case. It refuses
what two servers may read differently: dot segments in any spelling, empty segments inside, encoded
dots and backslashes, double encoding, escapes that are not UTF-8, matrix parameters after dots.
An encoded slash is reported, not refused: a rule may accept it with `encoded_slash: true`, and then
the path must match in both readings, as one segment and as two.

Patterns: literal segments, `*` for exactly one non-empty segment, `**` as the last segment for any
depth: `/v1/**` matches `/v1`, `/v1/` and everything below. Compared case-sensitively, byte by byte.
Invariant: the path that is forwarded is the raw one, so nothing here changes what a server sees.
Sources: RFC 3986 sections 2.3, 3.3 and 6.2.2.
"""

import re
import unicodedata
from dataclasses import dataclass
from typing import Final, NamedTuple

_ALLOWED: Final = re.compile(r"/[!\"$->@-\[\]-~]*", re.ASCII)  # printable, but no # ? or backslash
_ESCAPE: Final = re.compile(r"%([0-9A-Fa-f]{2})?", re.ASCII)
_UNRESERVED: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~")
_DOUBLE: Final = re.compile(r"%25[0-9A-Fa-f]{2}", re.ASCII)
_DOT, _BACKSLASH = 0x2E, 0x5C


@dataclass(slots=True)
class ReadPath:
    """`form` is compared; `decoded_slashes` is the second reading where a slash was encoded."""

    form: str
    decoded_slashes: str | None = None


def _is_dot_segment(segment: str) -> bool:
    """`.` and `..`, also before a matrix parameter or padded with spaces."""
    head = segment.partition(";")[0].strip()
    return head in {".", ".."}


def _has_bad_segment(path: str) -> bool:
    """A dot segment, or an empty segment anywhere but at the end."""
    if "//" in path:
        return True
    return ("/." in path or "/ " in path) and any(
        _is_dot_segment(segment) for segment in path.split("/")
    )


def _normal_form(raw: str) -> str | None:
    """Unreserved escapes decoded, the others in upper case; None for a refused escape."""
    pieces: list[str] = []
    position = 0
    for escape in _ESCAPE.finditer(raw):
        digits = escape[1]
        if digits is None:
            return None
        octet = int(digits, 16)
        if octet < 0x20 or octet in (0x7F, _DOT, _BACKSLASH):
            return None
        pieces.append(raw[position : escape.start()])
        pieces.append(chr(octet) if octet in _UNRESERVED else f"%{digits.upper()}")
        position = escape.end()
    pieces.append(raw[position:])
    form = "".join(pieces)
    return None if _DOUBLE.search(form) is not None else form


def _decode(form: str) -> str | None:
    """The text that the escapes spell, if they are UTF-8."""
    octets = re.sub(
        rb"%([0-9A-F]{2})", lambda match: bytes([int(match[1], 16)]), form.encode("ascii")
    )
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _folds_to_separator(decoded: str) -> bool:
    """True if compatibility mapping of wide characters would make a dot segment or a separator."""
    if decoded.isascii():
        return False
    folded = unicodedata.normalize("NFKC", decoded)
    if folded.count("/") != decoded.count("/") or "\\" in folded:
        return True
    return any(_is_dot_segment(segment) for segment in folded.split("/"))


def read_path(raw: str) -> ReadPath | None:
    """The comparable form of a raw path, or None if it is malformed or ambiguous."""
    if _ALLOWED.fullmatch(raw) is None:
        return None
    if _has_bad_segment(raw):
        return None
    if "%" not in raw:
        return ReadPath(raw)
    form = _normal_form(raw)
    if form is None:
        return None
    decoded = _decode(form)
    if decoded is None or _has_bad_segment(decoded) or _folds_to_separator(decoded):
        return None
    if "%2F" not in form:
        return ReadPath(form)
    return ReadPath(form, form.replace("%2F", "/"))


class PatternSegment(NamedTuple):
    """One segment of a pattern: `rank` 0 literal, 1 one segment, 2 any depth."""

    rank: int
    text: str


@dataclass(frozen=True, slots=True)
class PathPattern:
    """`specificity` sorts the more specific first; `exact` is set when there is no wildcard."""

    text: str
    segments: tuple[PatternSegment, ...]
    exact: str | None

    @property
    def specificity(self) -> tuple[int, ...]:
        return tuple(segment.rank for segment in self.segments)

    @property
    def is_deep(self) -> bool:
        """True if the pattern ends in `**`."""
        return self.segments[-1].rank == 2

    @property
    def literal_prefix(self) -> str:
        """The literal segments before the first wildcard, each with its slash before it."""
        literal: list[str] = []
        for rank, text in self.segments:
            if rank != 0:
                break
            literal.append(f"/{text}")
        return "".join(literal)

    def matches(self, form: str) -> bool:
        """True if the comparable form of a path matches."""
        if self.exact is not None:
            return form == self.exact
        wanted = self.segments
        given = form[1:].split("/")
        if wanted[-1].rank == 2:
            wanted = wanted[:-1]
            if len(given) < len(wanted):
                return False
        elif len(given) != len(wanted):
            return False
        for (rank, text), segment in zip(wanted, given, strict=False):
            if (segment != text) if rank == 0 else (segment == ""):
                return False
        return True


class PathRefused(ValueError):
    """The text is no path pattern."""

    def __init__(self, detail: str, suggestion: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.suggestion = suggestion


def parse_path_pattern(text: str) -> PathPattern:
    """The pattern that `text` spells; raises `PathRefused`."""
    if not text.startswith("/"):
        raise PathRefused("a path pattern starts with a slash", f"/{text}")
    read = read_path(text)
    if read is None or read.decoded_slashes is not None:
        raise PathRefused("the path has dot segments, empty segments, bad escapes or a query")
    segments: list[PatternSegment] = []
    parts = read.form[1:].split("/")
    for position, part in enumerate(parts):
        if part == "**":
            if position != len(parts) - 1:
                raise PathRefused("** may only stand as the last segment")
            segments.append(PatternSegment(2, part))
        elif part == "*":
            segments.append(PatternSegment(1, part))
        elif "*" in part:
            raise PathRefused("a wildcard is a whole segment: * for one, ** at the end for any")
        else:
            segments.append(PatternSegment(0, part))
    exact = read.form if all(segment.rank == 0 for segment in segments) else None
    return PathPattern(text, tuple(segments), exact)
