"""PolicyDesk: what each proxy says it has in force, and questions on their way to it.

A proxy polls: it tells its standing and waits for a question; its answer comes in a call of its
own. So the fleet needs no policy engine, and no way in to a proxy. Kept in memory alone, bounded
per proxy. An answer is believed only from the proxy that was asked, only while somebody waits for
it, only in the kind that was asked, and only about the policy that `expected` names at that moment:
whoever asks is never told what another policy says. Times: Unix ms.
"""

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from typing import Final

from ulid import ULID

from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.wire.policy_models import (
    Ask,
    AskCheck,
    PolicyQuestion,
    PolicyStanding,
    ProxyAnswer,
    ProxyRules,
)

SILENT_AFTER_MS: Final = 10_000
"""A proxy polls every few seconds; one that did not for so long is not asked."""
ANSWER_WITHIN_S: Final = 5.0
CHECKED_WITHIN_S: Final = 12.0
"""A check takes a process of its own, on a machine that may be busy."""
MAX_WAITING: Final = 16
MAX_RULES_KEPT: Final = 8
"""For how many proxies the rules that were read last are kept."""


@dataclass(slots=True)
class _Told:
    """One proxy, as it spoke last."""

    standing: PolicyStanding
    heard_at_unix_ms: int
    waiting: deque[PolicyQuestion] = field(default_factory=deque)
    asked: asyncio.Event = field(default_factory=asyncio.Event)


@dataclass(slots=True)
class _Open:
    """A question that somebody waits for."""

    proxy_id: str
    kind: str
    answered: asyncio.Future[ProxyAnswer]


@dataclass(slots=True)
class PolicyDesk:
    """One per fleet."""

    _told: dict[str, _Told] = field(default_factory=dict)
    _open: dict[str, _Open] = field(default_factory=dict)
    _rules: OrderedDict[str, ProxyRules] = field(default_factory=OrderedDict)
    _closed: bool = False

    async def poll(
        self, proxy_id: str, standing: PolicyStanding, wait_ms: int, now_unix_ms: int
    ) -> PolicyQuestion | None:
        """The next question for this proxy; waits up to `wait_ms` for one."""
        told = self._told.get(proxy_id)
        if told is None:
            told = self._told[proxy_id] = _Told(standing, now_unix_ms)
        told.standing, told.heard_at_unix_ms = standing, now_unix_ms
        if not told.waiting and not self._closed and wait_ms > 0:
            told.asked.clear()
            try:
                async with asyncio.timeout(wait_ms / 1000):
                    await told.asked.wait()
            except TimeoutError:
                return None
        return told.waiting.popleft() if told.waiting else None

    def answer(self, proxy_id: str, told: ProxyAnswer, expected_digest: str | None) -> None:
        """Hand an answer to who waits for it. Raises FleetRefusal."""
        asked = self._open.get(told.question_id)
        if asked is None or asked.proxy_id != proxy_id or asked.answered.done():
            text = "nobody waits for an answer to this question"
            raise FleetRefusal(FleetReason.QUESTION_UNKNOWN, text)
        wrong = None
        if told.policy_digest != expected_digest:
            wrong = "by another policy than it says it has in force"
        elif told.answer.kind != asked.kind:
            wrong = "something else than it was asked"
        if wrong is not None:
            text = f"proxy '{proxy_id}' answered {wrong}"
            asked.answered.set_exception(FleetRefusal(FleetReason.POLICY_OTHER, text))
            raise FleetRefusal(FleetReason.POLICY_OTHER, text)
        asked.answered.set_result(told)

    async def ask(self, proxy_id: str, ask: Ask, now_unix_ms: int) -> ProxyAnswer:
        """What the proxy answers. Raises FleetRefusal where it does not."""
        told = self._told.get(proxy_id)
        if told is None or not self.is_fresh(proxy_id, now_unix_ms):
            text = f"proxy '{proxy_id}' does not speak to the fleet now"
            raise FleetRefusal(FleetReason.POLICY_PROXY_SILENT, text)
        if sum(one.proxy_id == proxy_id for one in self._open.values()) >= MAX_WAITING:
            text = f"{MAX_WAITING} questions wait for proxy '{proxy_id}' already"
            raise FleetRefusal(FleetReason.POLICY_BUSY, text)
        question = PolicyQuestion(question_id=str(ULID.from_timestamp(now_unix_ms)), ask=ask)
        asked = _Open(proxy_id, ask.kind, asyncio.get_running_loop().create_future())
        self._open[question.question_id] = asked
        told.waiting.append(question)
        told.asked.set()
        within_s = CHECKED_WITHIN_S if isinstance(ask, AskCheck) else ANSWER_WITHIN_S
        try:
            async with asyncio.timeout(within_s):
                return await asked.answered
        except TimeoutError:
            text = f"proxy '{proxy_id}' did not answer within {within_s:.0f} seconds"
            raise FleetRefusal(FleetReason.POLICY_PROXY_SILENT, text) from None
        finally:
            del self._open[question.question_id]
            if question in told.waiting:
                told.waiting.remove(question)

    def standing(self, proxy_id: str) -> PolicyStanding | None:
        """What the proxy said last; None where it never spoke."""
        told = self._told.get(proxy_id)
        return None if told is None else told.standing

    def heard_at_unix_ms(self, proxy_id: str) -> int | None:
        told = self._told.get(proxy_id)
        return None if told is None else told.heard_at_unix_ms

    def is_fresh(self, proxy_id: str, now_unix_ms: int) -> bool:
        """Whether the proxy spoke lately, so that asking it is worth it."""
        told = self._told.get(proxy_id)
        return told is not None and now_unix_ms - told.heard_at_unix_ms < SILENT_AFTER_MS

    def rules(self, proxy_id: str) -> ProxyRules | None:
        """The rules that were read last."""
        return self._rules.get(proxy_id)

    def keep_rules(self, rules: ProxyRules) -> None:
        self._rules[rules.proxy_id] = rules
        self._rules.move_to_end(rules.proxy_id)
        if len(self._rules) > MAX_RULES_KEPT:
            self._rules.popitem(last=False)

    def forget(self, proxy_id: str) -> None:
        """The proxy is trusted no more: what it said goes, and nobody waits for it."""
        self._rules.pop(proxy_id, None)
        told = self._told.pop(proxy_id, None)
        if told is not None:
            told.waiting.clear()
            told.asked.set()
        text = f"proxy '{proxy_id}' was taken back"
        for one in self._open.values():
            if one.proxy_id == proxy_id and not one.answered.done():
                one.answered.set_exception(FleetRefusal(FleetReason.POLICY_PROXY_SILENT, text))

    def close(self) -> None:
        """Answer everyone who waits."""
        self._closed = True
        for told in self._told.values():
            told.asked.set()
        for one in self._open.values():
            if not one.answered.done():
                closed = FleetRefusal(FleetReason.CLOSED, "the fleet is shutting down")
                one.answered.set_exception(closed)
