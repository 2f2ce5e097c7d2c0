"""Whether one pattern names everything that another names: for the linter and for `policy diff`.

Every function answers for the whole sets, not for samples, and says False where it is not sure, so
"is covered" can be trusted and "is not covered" may be too careful: a pattern is covered here by
one other pattern, never by several together (address ranges are the exception: they are joined).
"""

from collections.abc import Iterable, Sequence

from palyra_egress.destination.address_class import AddressRange
from palyra_egress.destination.hostpattern import HostPattern, PatternKind
from palyra_egress.policy.paths import PathPattern, PatternSegment


def split_host(pattern: HostPattern) -> tuple[HostPattern, ...]:
    """`.example` as `example` and `*.example`, which different patterns may cover."""
    if pattern.kind is not PatternKind.NAME_AND_BELOW:
        return (pattern,)
    return (
        HostPattern(PatternKind.NAME, pattern.name, pattern.name),
        HostPattern(PatternKind.BELOW, f"*.{pattern.name}", pattern.name),
    )


def host_covers(wide: HostPattern, narrow: HostPattern) -> bool:
    """True if every host that `narrow` names is named by `wide`."""
    if wide.addresses is not None or narrow.addresses is not None:
        if wide.addresses is None or narrow.addresses is None:
            return False
        same_version = wide.addresses.version == narrow.addresses.version
        low, high = narrow.addresses.low, narrow.addresses.high
        return same_version and wide.addresses.low <= low and high <= wide.addresses.high
    is_below = narrow.name.endswith(f".{wide.name}")
    is_same = narrow.name == wide.name
    match wide.kind:
        case PatternKind.NAME:
            return is_same and narrow.kind is PatternKind.NAME
        case PatternKind.BELOW:
            return is_below or (is_same and narrow.kind is PatternKind.BELOW)
        case _:
            return is_below or is_same


def hosts_overlap(one: HostPattern, other: HostPattern) -> bool:
    """True if some host is named by both. Names nest, so two that overlap are nested."""
    if one.addresses is not None and other.addresses is not None:
        same_version = one.addresses.version == other.addresses.version
        apart = one.addresses.high < other.addresses.low or other.addresses.high < one.addresses.low
        return same_version and not apart
    return any(
        host_covers(left, right) or host_covers(right, left)
        for left in split_host(one)
        for right in split_host(other)
    )


def _segment_covers(wide: PatternSegment, narrow: PatternSegment) -> bool:
    if wide.rank == 0:
        return narrow.rank == 0 and narrow.text == wide.text
    return narrow.rank == 1 or (narrow.rank == 0 and narrow.text != "")


def path_covers(wide: PathPattern | None, narrow: PathPattern | None) -> bool:
    """True if every path that `narrow` matches is matched by `wide`; None is every path."""
    if wide is None:
        return True
    narrow_is_deep = narrow is None or narrow.is_deep
    if not wide.is_deep and narrow_is_deep:
        return False
    inner = () if narrow is None else narrow.segments[:-1] if narrow_is_deep else narrow.segments
    outer = wide.segments[:-1] if wide.is_deep else wide.segments
    if len(inner) < len(outer) or (not wide.is_deep and len(inner) != len(outer)):
        return False
    return all(_segment_covers(left, right) for left, right in zip(outer, inner, strict=False))


def paths_overlap(one: PathPattern | None, other: PathPattern | None) -> bool:
    """True if some path is matched by both; None is every path."""
    if one is None or other is None:
        return True
    left = one.segments[:-1] if one.is_deep else one.segments
    right = other.segments[:-1] if other.is_deep else other.segments
    if len(left) != len(right) and not (one if len(left) < len(right) else other).is_deep:
        return False
    return all(
        _segment_covers(mine, theirs) or _segment_covers(theirs, mine)
        for mine, theirs in zip(left, right, strict=False)
    )


def until_covers(wide_unix_ms: int | None, narrow_unix_ms: int | None) -> bool:
    """True if the one ends no earlier than the other; None never ends."""
    return wide_unix_ms is None or (narrow_unix_ms is not None and wide_unix_ms >= narrow_unix_ms)


def joined(ranges: Iterable[AddressRange]) -> list[AddressRange]:
    """The same addresses in the fewest ranges, in order."""
    result: list[AddressRange] = []
    for version, low, high in sorted(ranges):
        if result and result[-1].version == version and low <= result[-1].high + 1:
            result[-1] = AddressRange(version, result[-1].low, max(result[-1].high, high))
        else:
            result.append(AddressRange(version, low, high))
    return result


def ranges_cover(wide: Sequence[AddressRange], narrow: Sequence[AddressRange]) -> bool:
    """True if every address of `narrow` is in `wide`, taken together."""
    outer = joined(wide)
    return all(
        any(
            whole.version == part.version and whole.low <= part.low and part.high <= whole.high
            for whole in outer
        )
        for part in joined(narrow)
    )
