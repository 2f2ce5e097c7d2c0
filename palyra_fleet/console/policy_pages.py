"""The page of policies, and what other pages ask about policies. Every answer is a proxy's, and the
page says whose, by which digest, and whether that proxy still speaks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from palyra_fleet.console import traffic
from palyra_fleet.console.gate import ConsoleCall
from palyra_fleet.console.rendering import render
from palyra_fleet.refusals import FleetRefusal
from palyra_fleet.wire.models import ViolationView
from palyra_fleet.wire.policy_models import (
    ExplainAnswer,
    ExplainRequest,
    ProxyPolicy,
    ProxyRules,
    Replayed,
)

QUERY: Final = ("proxy", "profile", "method", "url")


@dataclass(frozen=True, slots=True)
class Asked:
    """What the explain box holds: as it was sent, cut to what a request may be."""

    profile: str
    method: str
    url: str


async def policies(call: ConsoleCall) -> web.StreamResponse:
    """What one proxy has in force, what changed last, and how it would judge a request."""
    service = call.desk.service
    every = service.policies()
    chosen = _chosen(every, call.query.get("proxy"))
    rules, silent = (None, None) if chosen is None else await _rules_of(call, chosen)
    asked = _asked(call)
    answer, unanswered = (None, None)
    if chosen is not None and asked.url:
        answer, unanswered = await _explained(call, chosen, asked)
    view = service.traffic()
    return render(
        call,
        "policies.html",
        title="Policies",
        every=every,
        chosen=chosen,
        policy=rules,
        silent=silent,
        verdicts=None if rules is None else traffic.of_policy(view, rules.standing.policy_digest),
        proxies=view.proxies,
        asked=asked,
        answer=answer,
        unanswered=unanswered,
    )


async def judged_today(call: ConsoleCall, found: Iterable[ViolationView]) -> dict[str, Replayed]:
    """By evidence, how the proxy that refused it would judge it now."""
    evidence = tuple(found)
    service = call.desk.service
    profiles = await service.profiles_of(one.payload.lease_id for one in evidence)
    return await service.judged_now(evidence, profiles)


def profiles_known(call: ConsoleCall) -> tuple[str, ...]:
    """The profiles of every policy in force."""
    told = (one.standing for one in call.desk.service.policies())
    return tuple(sorted({name for one in told if one is not None for name in one.profiles}))


def _chosen(every: Sequence[ProxyPolicy], wanted: str | None) -> ProxyPolicy | None:
    """The proxy that is named, else one that speaks, else any."""
    named = [one for one in every if one.proxy_id == wanted]
    fresh = [one for one in every if one.heard == "fresh"]
    return next(iter([*named, *fresh, *every]), None)


async def _rules_of(call: ConsoleCall, chosen: ProxyPolicy) -> tuple[ProxyRules | None, str | None]:
    """The rules, and why they are those that were read before, if they are."""
    service = call.desk.service
    try:
        return await service.policy_rules(chosen.proxy_id), None
    except FleetRefusal as refusal:
        return service.rules_read_last(chosen.proxy_id), refusal.text


async def _explained(
    call: ConsoleCall, chosen: ProxyPolicy, asked: Asked
) -> tuple[ExplainAnswer | None, str | None]:
    request = ExplainRequest(
        proxy_id=chosen.proxy_id, profile=asked.profile, method=asked.method, url=asked.url
    )
    try:
        return await call.desk.service.explain(request), None
    except FleetRefusal as refusal:
        return None, refusal.text


def _asked(call: ConsoleCall) -> Asked:
    given = call.query
    return Asked(
        profile=given.get("profile", "")[:64],
        method=given.get("method", "")[:16] or "GET",
        url=given.get("url", "").strip()[:2000],
    )
