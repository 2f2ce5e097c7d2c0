"""Operators ask about policies, and proxies answer: only the one that was asked, only by the policy
that it says it has in force, and nobody is told anything else."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from pydantic import ValidationError
from ulid import ULID

from palyra_fleet.client import FleetProblem, OperatorClient, ProxyClient
from palyra_fleet.refusals import FleetReason, FleetRefusal
from palyra_fleet.service import policy_desk
from palyra_fleet.service.policy_desk import MAX_WAITING, SILENT_AFTER_MS, PolicyDesk
from palyra_fleet.tasks import spawn
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import ViolationPayload, ViolationView
from palyra_fleet.wire.policy_models import (
    MAX_REPLAYED,
    MAX_STEPS,
    Answer,
    AskCheck,
    AskExplain,
    AskReplay,
    AskRules,
    CheckRequest,
    Explained,
    ExplainRequest,
    ExplainStep,
    PolicyQuestion,
    PolicyStanding,
    PolicyText,
    ProxyAnswer,
    Replayed,
    ReplayedAll,
    RequestDescribed,
    RuleInForce,
    RulesTold,
)
from tests.fakes.real_fleet import RealFleet, enrolment, real_fleet
from tests.fakes.until import until

OLD, NEW = "a" * 64, "b" * 64
URL = "https://api.example/"
EXPLAIN = ExplainRequest(profile="api", url=URL)
REFUSED = Explained(allowed=False, effect="deny", reason="egress.host_denied")


def standing(digest: str = OLD, rules: int = 2) -> PolicyStanding:
    return PolicyStanding(
        policy_digest=digest,
        name="egress",
        mode="enforce",
        loaded_at_unix_ms=1,
        rules=rules,
        profiles=("api",),
    )


def rule(number: int) -> RuleInForce:
    return RuleInForce(
        kind="allow",
        rule_id=f"rule-{number}",
        hosts=("api.example",),
        hosts_in_all=1,
        where=f"egress.yaml:{number}",
    )


@pytest.fixture
async def fleet() -> AsyncIterator[RealFleet]:
    async with real_fleet() as running:
        yield running


async def next_of(proxy: ProxyClient, digest: str = OLD) -> PolicyQuestion:
    """The proxy beats, polls, and is asked something."""
    await proxy.beat(0, digest)
    return await until("a question", lambda: proxy.next_question(standing(digest), 100))


async def told(
    proxy: ProxyClient, question: PolicyQuestion, answer: Answer, digest: str = OLD
) -> None:
    await proxy.answer_question(
        ProxyAnswer(question_id=question.question_id, policy_digest=digest, answer=answer)
    )


async def refusal_of(asking: Coroutine[Any, Any, object]) -> tuple[int, str]:
    with pytest.raises(FleetProblem) as refused:
        await asking
    return refused.value.status, refused.value.reason


async def test_an_explanation_says_which_proxy_gave_it_and_by_which_policy(
    fleet: RealFleet,
) -> None:
    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        asking = spawn(fleet.operator.explain(EXPLAIN), "explain")
        question = await next_of(proxy)
        assert question.ask == AskExplain(profile="api", request=RequestDescribed(url=URL))
        await told(proxy, question, REFUSED)
        found = await asking
    assert (found.proxy_id, found.policy_digest, found.explained) == ("proxy-1", OLD, REFUSED)


@pytest.mark.parametrize(
    ("answer", "digest", "why"),
    [
        (REFUSED, NEW, "another policy"),
        (ReplayedAll(found=()), OLD, "something else"),
    ],
)
async def test_an_answer_by_another_policy_or_to_another_question_reaches_nobody(
    fleet: RealFleet, answer: Answer, digest: str, why: str
) -> None:
    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        asking = spawn(refusal_of(fleet.operator.explain(EXPLAIN)), "explain")
        question = await next_of(proxy)
        with pytest.raises(FleetProblem, match=why) as refused:
            await told(proxy, question, answer, digest)
        assert (refused.value.status, refused.value.reason) == (409, "policy.other_policy")
        assert await asking == (409, "policy.other_policy")


async def test_only_the_proxy_that_was_asked_answers_and_only_once(fleet: RealFleet) -> None:
    key = SigningKey.generate()
    await fleet.operator.enrol_proxy(enrolment("proxy-2", key))
    async with fleet.as_proxy() as proxy, ProxyClient(fleet.server.socket_path, key) as other:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        asking = spawn(fleet.operator.explain(EXPLAIN), "explain")
        question = await next_of(proxy)
        await other.beat(0, OLD)
        unknown = (404, "policy.question_unknown")
        assert await refusal_of(told(other, question, REFUSED)) == unknown
        await told(proxy, question, REFUSED)
        assert (await asking).proxy_id == "proxy-1"
        assert await refusal_of(told(proxy, question, REFUSED)) == unknown


async def test_an_answer_beyond_its_bounds_is_not_taken(fleet: RealFleet) -> None:
    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        asking = spawn(fleet.operator.explain(EXPLAIN), "explain")
        question = await next_of(proxy)
        steps = (ExplainStep(name="rules", finding="x" * 1_000),) * 100
        large = Explained(allowed=True, steps=steps)
        assert await refusal_of(told(proxy, question, large)) == (413, "api.body_too_large")
        steps = (ExplainStep(name="rules", finding="x"),) * (MAX_STEPS + 1)
        many = Explained.model_construct(kind="explain", allowed=True, steps=steps)
        assert await refusal_of(told(proxy, question, many)) == (400, "api.body_invalid")
        await told(proxy, question, REFUSED)
        assert (await asking).explained == REFUSED


async def test_what_each_proxy_has_in_force_is_listed_and_a_proxy_that_never_spoke_is_shown_so(
    fleet: RealFleet,
) -> None:
    await fleet.operator.enrol_proxy(enrolment("proxy-2", SigningKey.generate()))
    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        first, second = await fleet.operator.policies()
        assert (first.proxy_id, first.heard, first.standing) == ("proxy-1", "fresh", standing())
        assert (first.expected_digest, first.as_expected) == (OLD, True)
        assert (second.proxy_id, second.heard, second.standing) == ("proxy-2", "never", None)
        await proxy.beat(0, NEW)
        first, _ = await fleet.operator.policies()
        assert (first.expected_digest, first.as_expected) == (NEW, False)
    asked = EXPLAIN.model_copy(update={"proxy_id": "proxy-2"})
    assert await refusal_of(fleet.operator.explain(asked)) == (503, "policy.proxy_silent")
    asked = EXPLAIN.model_copy(update={"proxy_id": "nobody"})
    assert await refusal_of(fleet.operator.explain(asked)) == (404, "policy.proxy_unknown")


async def test_proxies_with_several_policies_are_asked_by_name(fleet: RealFleet) -> None:
    key = SigningKey.generate()
    await fleet.operator.enrol_proxy(enrolment("proxy-2", key))
    async with fleet.as_proxy() as proxy, ProxyClient(fleet.server.socket_path, key) as other:
        for one, digest in ((proxy, OLD), (other, NEW)):
            await one.beat(0, digest)
            await one.next_question(standing(digest))
        files = (PolicyText(name="egress.yaml", text="version: 1"),)
        differ = (409, "policy.proxies_differ")
        assert await refusal_of(fleet.operator.explain(EXPLAIN)) == differ
        assert await refusal_of(fleet.operator.check_policy(CheckRequest(files=files))) == differ
        named = EXPLAIN.model_copy(update={"proxy_id": "proxy-2"})
        asking = spawn(fleet.operator.explain(named), "explain")
        await told(other, await next_of(other, NEW), REFUSED, NEW)
        assert (await asking).policy_digest == NEW


async def test_rules_are_read_in_parts_of_one_policy_and_read_again_only_when_it_is_another(
    fleet: RealFleet,
) -> None:
    async def answers(proxy: ProxyClient, digest: str, later: str) -> None:
        """Two parts, the second of them by the policy `later`."""
        for start, of in ((0, digest), (1, later)):
            question = await next_of(proxy, of)
            assert question.ask == AskRules(start=start)
            following = None if start else 1
            part = RulesTold(standing=standing(of), rules=(rule(start),), following=following)
            await told(proxy, question, part, of)

    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        reading = spawn(fleet.operator.policy_rules("proxy-1"), "rules")
        await answers(proxy, OLD, OLD)
        found = await reading
        assert [one.rule_id for one in found.rules] == ["rule-0", "rule-1"]
        assert await fleet.operator.policy_rules("proxy-1") == found  # and nobody is asked
        await proxy.beat(0, NEW)
        reading_again = spawn(refusal_of(fleet.operator.policy_rules("proxy-1")), "rules")
        await answers(proxy, NEW, OLD)
        assert await reading_again == (409, "policy.other_policy")


LEASE = str(ULID())


def refused_by(proxy_id: str, number: int) -> ViolationView:
    """Evidence, as far as it is looked at."""
    payload = ViolationPayload.model_construct(
        proxy_id=proxy_id, lease_id=LEASE, reason="egress.host_denied", target=URL
    )
    return ViolationView.model_construct(evidence_sha256=f"{proxy_id} {number}", payload=payload)


async def replays(proxy: ProxyClient, question: PolicyQuestion) -> None:
    assert isinstance(question.ask, AskReplay)
    again = Replayed(again="refused", finding="as before")
    await told(proxy, question, ReplayedAll(found=(again,) * len(question.ask.refused)))


async def test_one_proxy_that_hangs_keeps_none_from_being_asked_how_it_judges_now(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_desk, "ANSWER_WITHIN_S", 600.0)
    key = SigningKey.generate()
    await fleet.operator.enrol_proxy(enrolment("proxy-2", key))
    async with fleet.as_proxy() as proxy, ProxyClient(fleet.server.socket_path, key) as other:
        for one in (proxy, other):
            await one.beat(0, OLD)
            await one.next_question(standing())
        found = [refused_by("proxy-1", 1), refused_by("proxy-2", 1)]
        judging = spawn(fleet.service.judged_now(found, {LEASE: "api"}), "judging")
        of_both = [(one, await next_of(one)) for one in (proxy, other)]  # none is answered yet
        for one, question in of_both:
            await replays(one, question)
        assert {one.again for one in (await judging).values()} == {"refused"}


async def test_what_a_proxy_has_not_said_in_time_is_unknown_and_what_it_said_counts(
    fleet: RealFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(policy_desk, "ANSWER_WITHIN_S", 5.0)
    found = [refused_by("proxy-1", number) for number in range(MAX_REPLAYED + 1)]
    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        judging = spawn(fleet.service.judged_now(found, {LEASE: "api"}), "judging")
        await replays(proxy, await next_of(proxy))
        *first, last = (await judging).values()
    assert {one.again for one in first} == {"refused"}
    assert (last.again, "in time" in last.finding) == ("unknown", True)


async def test_a_proxy_that_is_taken_back_is_asked_no_more_and_forgotten(fleet: RealFleet) -> None:
    async with fleet.as_proxy() as proxy:
        await proxy.beat(0, OLD)
        await proxy.next_question(standing())
        asking = spawn(refusal_of(fleet.operator.explain(EXPLAIN)), "explain")
        await next_of(proxy)
        await fleet.operator.take_back("proxy", "proxy-1", "it was replaced")
        assert await asking == (503, "policy.proxy_silent")
    assert await fleet.operator.policies() == ()


async def test_explaining_and_checking_take_a_viewer_and_change_nothing(fleet: RealFleet) -> None:
    seq = (await fleet.operator.events(0, 1000))[-1].seq
    await fleet.operator.policies()
    with pytest.raises(FleetProblem, match="no proxy speaks"):
        await fleet.operator.explain(EXPLAIN)
    async with OperatorClient(fleet.server.admin_url, "x" * 43) as stranger:
        assert await refusal_of(stranger.policies()) == (401, "api.token_refused")
    assert (await fleet.operator.events(0, 1000))[-1].seq == seq


async def test_a_proxy_that_fell_silent_is_not_asked() -> None:
    desk = PolicyDesk()
    assert await desk.poll("proxy-1", standing(), 0, 1_000) is None
    assert desk.is_fresh("proxy-1", 1_000 + SILENT_AFTER_MS - 1)
    assert not desk.is_fresh("proxy-1", 1_000 + SILENT_AFTER_MS)
    with pytest.raises(FleetRefusal, match="does not speak"):
        await desk.ask("proxy-1", AskRules(), 1_000 + SILENT_AFTER_MS)
    assert desk.standing("proxy-1") == standing()


async def test_only_so_many_questions_wait_for_one_proxy() -> None:
    desk = PolicyDesk()
    await desk.poll("proxy-1", standing(), 0, 1_000)
    waiting = [spawn(desk.ask("proxy-1", AskRules(), 1_000), f"{n}") for n in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(FleetRefusal) as refused:
        await desk.ask("proxy-1", AskRules(), 1_000)
    assert refused.value.reason is FleetReason.POLICY_BUSY
    desk.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert {one.reason for one in ended if isinstance(one, FleetRefusal)} == {FleetReason.CLOSED}
    assert await desk.poll("proxy-1", standing(), 0, 1_000) is None


async def test_an_answer_to_a_question_that_was_never_asked_is_refused() -> None:
    desk = PolicyDesk()
    invented = ProxyAnswer(question_id=str(ULID()), policy_digest=OLD, answer=REFUSED)
    with pytest.raises(FleetRefusal) as refused:
        desk.answer("proxy-1", invented, OLD)
    assert refused.value.reason is FleetReason.QUESTION_UNKNOWN


@pytest.mark.parametrize("model", [CheckRequest, AskCheck])
def test_a_bundle_with_one_name_twice_is_refused_where_it_comes_in(
    model: type[CheckRequest | AskCheck],
) -> None:
    one = PolicyText(name="egress.yaml", text="")
    with pytest.raises(ValidationError, match="a file is given twice"):
        model(files=(one, one))
