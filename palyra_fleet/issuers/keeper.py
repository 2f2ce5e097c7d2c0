"""IssuerKeys: the keys of the trusted issuers, read again and again while the fleet runs.

Every issuer has its own reader. It reads at the start, every `REREAD_S`, and soon after somebody
came with a key that is not known, but never twice within `GAP_S`: so a changed key is known quickly
and strangers cause no flood. Each good reading replaces the one before, so that a key which the
issuer took back is worth nothing any more; so does one in which it has none that can be used. While
readings fail, the last good one holds for `HOLD_MS` and then counts no longer: unknown keys let
nobody in. Each new problem is logged once,
and its end; meanwhile it stands in `problems`, for an alarm. Times: Unix ms; `clock` gives them.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.issuers.key_sources import KeysUnreadable, KeysWithdrawn, read_keys
from palyra_fleet.issuers.tokens import NotBelieved, TokenFault, VerifiedSubject, judge
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.key_sets import VerifyingKey

REREAD_S: Final = 300.0
UNREADABLE: Final = "its keys cannot be read or used, and hold an hour at most; the log says why"
GAP_S: Final = 10.0
HOLD_MS: Final = 3_600_000
_LOOK_FOR_KEYS: Final = frozenset({TokenFault.KEY_UNKNOWN, TokenFault.KEYS_UNKNOWN})
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """What is known of one issuer's keys."""

    keys: Mapping[str, VerifyingKey] | None = None
    read_at_unix_ms: int = 0
    problem: str = ""
    wanted: asyncio.Event = field(default_factory=asyncio.Event)


class IssuerKeys:
    """What tokens are verified with now."""

    def __init__(
        self,
        issuers: Sequence[TrustedIssuer],
        clock: Callable[[], int] = now_unix_ms,
        gap_s: float = GAP_S,
        problems: dict[str, str] | None = None,
    ) -> None:
        self._issuers = tuple(issuers)
        self._problems = {} if problems is None else problems
        self._clock = clock
        self._gap_s = gap_s
        self._held = {issuer.name: _Held() for issuer in self._issuers}

    def __repr__(self) -> str:
        return f"IssuerKeys({', '.join(self._held)})"

    def subject_of(self, token: str, now_unix_ms: int) -> VerifiedSubject | NotBelieved:
        """Whom the token is about, or why it is not believed. A key that is not known is looked
        for."""
        judged = judge(token, self._issuers, self._keys_of, now_unix_ms)
        if isinstance(judged, NotBelieved) and judged.fault in _LOOK_FOR_KEYS:
            self._held[judged.issuer_name].wanted.set()
        return judged

    async def read_once(self, issuer: TrustedIssuer) -> None:
        """Read one issuer's keys, and keep what was good before if that fails."""
        held = self._held[issuer.name]
        held.wanted.clear()
        try:
            keys = await read_keys(issuer)
        except KeysUnreadable as error:
            if held.problem != str(error):
                _log.warning("the keys of issuer %s cannot be read: %s", issuer.name, error)
            held.problem = str(error)
            if isinstance(error, KeysWithdrawn):
                held.keys = None
            self._problems[issuer.name] = UNREADABLE
            return
        if held.problem or held.keys is None:
            _log.info("issuer %s: %d keys are known", issuer.name, len(keys))
        held.keys, held.read_at_unix_ms, held.problem = keys, self._clock(), ""
        self._problems.pop(issuer.name, None)

    async def keep(self, issuer: TrustedIssuer) -> None:
        """Read again until cancelled."""
        wanted = self._held[issuer.name].wanted
        while True:
            await asyncio.sleep(self._gap_s)
            try:
                async with asyncio.timeout(max(0.0, REREAD_S - self._gap_s)):
                    await wanted.wait()
            except TimeoutError:
                pass
            await self.read_once(issuer)

    def _keys_of(self, name: str, now_unix_ms: int) -> Mapping[str, VerifyingKey] | None:
        held = self._held[name]
        fresh = 0 <= now_unix_ms - held.read_at_unix_ms < HOLD_MS
        return held.keys if fresh else None


@asynccontextmanager
async def kept_keys(
    issuers: Sequence[TrustedIssuer],
    clock: Callable[[], int] = now_unix_ms,
    gap_s: float = GAP_S,
    problems: dict[str, str] | None = None,
) -> AsyncIterator[IssuerKeys | None]:
    """The issuers' keys, read once before the block and again while it runs. None: no issuers. An
    issuer that does not answer holds up the start for seconds, and nobody else."""
    if not issuers:
        yield None
        return
    known = IssuerKeys(issuers, clock, gap_s, problems)
    async with asyncio.TaskGroup() as reading:
        for issuer in issuers:
            reading.create_task(known.read_once(issuer))
    tasks = [spawn(known.keep(issuer), f"the keys of issuer {issuer.name}") for issuer in issuers]
    try:
        yield known
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
