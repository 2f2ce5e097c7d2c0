"""What proxies and operators may ask about egress policies. Mixed into `FleetService`.

The fleet judges nothing itself: a proxy explains by the policy it enforces, and its answer counts
only if it is about the policy that the proxy's beat names, which is the one that receipts must name
for a lease. What a silent proxy said last is shown as such, and nothing is explained by it.
Times: Unix ms.
"""

import asyncio
import contextlib
from collections.abc import Iterable, Iterator
from typing import Final

from palyra_fleet.refusals import FleetReason, FleetRefusal, worker_unknown
from palyra_fleet.service import policy_desk
from palyra_fleet.service.proxy_commands import ProxyCommands
from palyra_fleet.wire.models import ViolationView
from palyra_fleet.wire.policy_models import (
    MAX_REPLAYED,
    MAX_RULES,
    Answer,
    Ask,
    AskCheck,
    AskExplain,
    AskReplay,
    AskRules,
    CheckAnswer,
    Checked,
    CheckRequest,
    ExplainAnswer,
    Explained,
    ExplainRequest,
    PolicyPoll,
    PolicyQuestion,
    ProxyAnswer,
    ProxyPolicy,
    ProxyRules,
    Refused,
    Replayed,
    ReplayedAll,
    RequestDescribed,
    RulesTold,
)

_NO_LEASE: Final = Replayed(again="unknown", finding="the fleet does not know its lease")
_CUT: Final = 64


class PolicyCommands(ProxyCommands):
    """Policies, as proxies tell of them."""

    async def next_question(self, proxy_id: str, poll: PolicyPoll) -> PolicyQuestion | None:
        """What an enrolled proxy is asked next; None when its wait is over."""
        self._enrolled_proxy(proxy_id)
        return await self._policies.poll(proxy_id, poll.standing, poll.wait_ms, self._now())

    def take_answer(self, proxy_id: str, told: ProxyAnswer) -> None:
        """The answer of an enrolled proxy. Raises FleetRefusal where nobody waits for it, or it is
        by another policy than the proxy says it has in force."""
        self._enrolled_proxy(proxy_id)
        self._policies.answer(proxy_id, told, self._expected(proxy_id))

    def policies(self) -> tuple[ProxyPolicy, ...]:
        """What every enrolled proxy has in force, by name."""
        return tuple(self._policy_of(name) for name in self._proxy_names())

    async def policy_rules(self, proxy_id: str) -> ProxyRules:
        """All rules of a proxy, and what changed last. Read anew where anything is new."""
        self._known(proxy_id)
        kept = self._policies.rules(proxy_id)
        is_current = kept is not None and (
            kept.standing == self._policies.standing(proxy_id)
            and kept.standing.policy_digest == self._expected(proxy_id)
            and self._policies.is_fresh(proxy_id, self._now())
        )
        if kept is not None and is_current:
            return kept
        found = await self._read_rules(proxy_id)
        self._policies.keep_rules(found)
        return found

    def rules_read_last(self, proxy_id: str) -> ProxyRules | None:
        """For when the proxy cannot be asked: what it told before, perhaps long ago."""
        return self._policies.rules(proxy_id)

    async def explain(self, asked: ExplainRequest) -> ExplainAnswer:
        """How a request would be judged, by the proxy that is named, the worker's, or any."""
        profile, facts, proxy_id = asked.profile or "", asked.facts, asked.proxy_id
        if asked.worker_id is not None:
            worker = self._manager.state.workers.get(asked.worker_id)
            if worker is None:
                raise FleetRefusal.of(worker_unknown(asked.worker_id))
            binding = self._hub.binding_of(asked.worker_id)
            if binding is None:
                text = f"worker '{asked.worker_id}' holds no lease, so it has no profile"
                raise FleetRefusal(FleetReason.LEASE_UNKNOWN, text)
            profile, facts = binding.egress_profile, binding.facts
            proxy_id = proxy_id or worker.proof.binding_proxy_id
        described = asked.model_dump(include=set(RequestDescribed.model_fields))
        request = RequestDescribed.model_validate({**described, "facts": facts})
        who, told = await self._asked(proxy_id, AskExplain(profile=profile, request=request))
        return ExplainAnswer(
            proxy_id=who,
            policy_digest=told.policy_digest,
            profile=profile,
            explained=_as(Explained, told.answer),
        )

    async def check_policy(self, asked: CheckRequest) -> CheckAnswer:
        """Whether files are a policy, and what they would change at a proxy."""
        who, told = await self._asked(asked.proxy_id, AskCheck(files=asked.files))
        checked = _as(Checked, told.answer)
        return CheckAnswer(proxy_id=who, policy_digest=told.policy_digest, checked=checked)

    async def judged_now(
        self, evidence: Iterable[ViolationView], profiles: dict[str, str]
    ) -> dict[str, Replayed]:
        """By evidence digest, how the proxy that refused it would judge it now. `profiles` is by
        lease. Where that proxy cannot be asked, this is what the finding says. All proxies are
        asked at once, and what one has not said within the time of one question it says not."""
        found: dict[str, Replayed] = {}
        by_proxy: dict[str, list[ViolationView]] = {}
        for one in evidence:
            if one.payload.lease_id not in profiles:
                found[one.evidence_sha256] = _NO_LEASE
            else:
                by_proxy.setdefault(one.payload.proxy_id, []).append(one)
        asked = (self._replayed_by(name, these, profiles) for name, these in by_proxy.items())
        for told in await asyncio.gather(*asked):
            found |= told
        return found

    async def _replayed_by(
        self, proxy_id: str, refused: list[ViolationView], profiles: dict[str, str]
    ) -> dict[str, Replayed]:
        late = Replayed(again="unknown", finding=f"proxy '{proxy_id}' did not answer in time")
        found = {one.evidence_sha256: late for one in refused}
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(policy_desk.ANSWER_WITHIN_S):
                for part in _parts(refused):
                    answers = await self._replayed(proxy_id, part, profiles)
                    digests = (one.evidence_sha256 for one in part)
                    found |= dict(zip(digests, answers, strict=True))
        return found

    async def _replayed(
        self, proxy_id: str, part: list[ViolationView], profiles: dict[str, str]
    ) -> tuple[Replayed, ...]:
        asked = AskReplay(
            refused=tuple(
                Refused(
                    profile=profiles[one.payload.lease_id][:_CUT],
                    reason=one.payload.reason[:_CUT],
                    target=one.payload.target,
                )
                for one in part
            )
        )
        try:
            told = await self._policies.ask(proxy_id, asked, self._now())
            answers = _as(ReplayedAll, told.answer).found
            if len(answers) != len(part):
                raise _no_answer(proxy_id)
        except FleetRefusal as refusal:
            return (Replayed(again="unknown", finding=refusal.text[:500]),) * len(part)
        return answers

    async def _read_rules(self, proxy_id: str) -> ProxyRules:
        first = await self._told_rules(proxy_id, 0)
        rules, following = list(first.rules), first.following
        while following is not None and len(rules) < MAX_RULES:
            part = await self._told_rules(proxy_id, following)
            if part.standing.policy_digest != first.standing.policy_digest or not part.rules:
                raise _no_answer(proxy_id)
            rules += part.rules
            following = part.following
        shown = tuple(rules[:MAX_RULES])
        return ProxyRules(
            proxy_id=proxy_id,
            standing=first.standing,
            rules=shown,
            rules_left_out=max(0, first.standing.rules - len(shown)),
            changes=first.changes,
            changes_left_out=first.changes_left_out,
        )

    async def _told_rules(self, proxy_id: str, start: int) -> RulesTold:
        told = await self._policies.ask(proxy_id, AskRules(start=start), self._now())
        rules = _as(RulesTold, told.answer)
        if rules.standing.policy_digest != told.policy_digest:
            raise _no_answer(proxy_id)
        return rules

    async def _asked(self, proxy_id: str | None, ask: Ask) -> tuple[str, ProxyAnswer]:
        who = self._who_answers() if proxy_id is None else self._known(proxy_id)
        return who, await self._policies.ask(who, ask, self._now())

    def _who_answers(self) -> str:
        """Any proxy that speaks now, if they all have one policy."""
        fresh = [one for one in self.policies() if one.heard == "fresh"]
        if not fresh:
            text = "no proxy speaks to the fleet now"
            raise FleetRefusal(FleetReason.POLICY_PROXY_SILENT, text)
        if len({one.expected_digest for one in fresh}) > 1:
            names = ", ".join(one.proxy_id for one in fresh[:10])
            text = f"the proxies have several policies in force; name one of: {names}"
            raise FleetRefusal(FleetReason.POLICIES_DIFFER, text)
        return fresh[0].proxy_id

    def _known(self, proxy_id: str) -> str:
        proxy = self._manager.state.enrolled.get(("proxy", proxy_id))
        if proxy is None or proxy.revoked:
            raise FleetRefusal(FleetReason.POLICY_PROXY_UNKNOWN, f"proxy '{proxy_id}' is unknown")
        return proxy_id

    def _proxy_names(self) -> Iterator[str]:
        enrolled = self._manager.state.enrolled.values()
        names = (key.name for key in enrolled if key.kind == "proxy" and not key.revoked)
        return iter(sorted(names))

    def _policy_of(self, proxy_id: str) -> ProxyPolicy:
        standing, expected = self._policies.standing(proxy_id), self._expected(proxy_id)
        is_fresh = self._policies.is_fresh(proxy_id, self._now())
        return ProxyPolicy(
            proxy_id=proxy_id,
            heard="never" if standing is None else "fresh" if is_fresh else "silent",
            heard_at_unix_ms=self._policies.heard_at_unix_ms(proxy_id),
            expected_digest=expected,
            as_expected=standing is not None and standing.policy_digest == expected,
            standing=standing,
        )

    def _expected(self, proxy_id: str) -> str | None:
        """The policy that the proxy's beat names; receipts for leases must name the same."""
        word = self._manager.state.policy_words.get(proxy_id)
        return None if word is None else word.policy_digest


def _as[Kind: Answer](kind: type[Kind], answer: Answer) -> Kind:
    """The answer, whose kind the desk compared with the question's."""
    if not isinstance(answer, kind):
        raise TypeError(f"expected {kind.__name__}")
    return answer


def _parts(refused: list[ViolationView]) -> Iterator[list[ViolationView]]:
    for start in range(0, len(refused), MAX_REPLAYED):
        yield refused[start : start + MAX_REPLAYED]


def _no_answer(proxy_id: str) -> FleetRefusal:
    text = f"proxy '{proxy_id}' changed its policy while it was asked; ask again"
    return FleetRefusal(FleetReason.POLICY_OTHER, text)
