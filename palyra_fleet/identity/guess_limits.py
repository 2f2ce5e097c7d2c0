"""GuessLimiter: how often somebody may be wrong about a pairing code.

Wrong codes count per source address and in all. After the free ones each further wrong code holds
back for twice as long, up to a cap; while held back, nothing is judged, counts or prolongs, and the
answer is that of a missing code. A quiet hour forgets. The hold over all sources is for PINs only:
a token has at least 128 bits, so nobody guesses it, and pairing by token goes on under attack. An
attacker with any number of addresses gets at most about 520 judged guesses a day, at six digits
1 in 2 000 for a code that lives that long, and about 20 in a code's default ten minutes. Bounded
memory. Times: Unix ms. Pure.
"""

import ipaddress
from collections import OrderedDict
from dataclasses import dataclass, field, replace
from typing import Final
from urllib.parse import unquote

from palyra_fleet.identity.records import CodeMethod

FORGET_AFTER_MS: Final = 60 * 60 * 1000
MAX_SOURCES: Final = 10_000


@dataclass(frozen=True, slots=True)
class BackOff:
    """How many wrong codes are free, and how long each further one holds back."""

    free: int
    first_ms: int
    longest_ms: int

    def hold_ms(self, wrong: int) -> int:
        if wrong < self.free:
            return 0
        doublings = min(wrong - self.free, 32)
        return min(self.first_ms << doublings, self.longest_ms)


PER_SOURCE: Final = BackOff(free=5, first_ms=30_000, longest_ms=60 * 60 * 1000)
IN_ALL: Final = BackOff(free=20, first_ms=10_000, longest_ms=5 * 60 * 1000)


@dataclass(frozen=True, slots=True)
class _Count:
    wrong: int = 0
    held_until_unix_ms: int = 0
    forgotten_at_unix_ms: int = 0

    def one_more(self, back_off: BackOff, now_unix_ms: int) -> "_Count":
        current = self if now_unix_ms < self.forgotten_at_unix_ms else _Count()
        wrong = current.wrong + 1
        return replace(
            current,
            wrong=wrong,
            held_until_unix_ms=now_unix_ms + back_off.hold_ms(wrong),
            forgotten_at_unix_ms=now_unix_ms + FORGET_AFTER_MS + back_off.hold_ms(wrong),
        )


@dataclass(slots=True)
class GuessLimiter:
    """Counts wrong codes."""

    per_source: BackOff = PER_SOURCE
    in_all: BackOff = IN_ALL
    _sources: OrderedDict[str, _Count] = field(default_factory=OrderedDict)
    _all: _Count = field(default_factory=_Count)

    def holds_back(self, source: str, method: CodeMethod, now_unix_ms: int) -> bool:
        """Whether no code of this source may be judged now."""
        count = self._sources.get(source)
        if count is not None and now_unix_ms < count.held_until_unix_ms:
            return True
        return method is CodeMethod.PIN and now_unix_ms < self._all.held_until_unix_ms

    def wrong(self, source: str, now_unix_ms: int) -> None:
        """A judged code was wrong."""
        count = self._sources.pop(source, _Count())
        self._sources[source] = count.one_more(self.per_source, now_unix_ms)
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        self._all = self._all.one_more(self.in_all, now_unix_ms)


def source_of(peer: str) -> str:
    """The address that counts, of a peer as gRPC names it (`ipv4:192.0.2.1:4711`).

    An IPv6 peer counts as its /64, within which a host changes its address at will. What is no
    address (a Unix socket, a test) counts as it is.
    """
    kind, _, rest = unquote(peer).partition(":")
    host = rest.rpartition(":")[0].strip("[]") if kind in {"ipv4", "ipv6"} else ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return peer[:128]
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if mapped is not None:
        return str(mapped)
    return str(ipaddress.ip_network((address, 64), strict=False).network_address) + "/64"
