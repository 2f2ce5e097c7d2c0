"""Turns the peers' policies of the corpora into ours, with the semantics each case assumes.

Plain values in, policy text out. Every translation spells out what the peer took for granted: all
methods where a rule names none, both schemes, the apex under a wildcard, any port.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from palyra_egress.destination.address_class import refuse_private_range
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import NOTHING_FORBIDDEN, Forbidden, decide, precheck
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import NeedsResolution, Verdict

ASKER = Requester("worker", "lease", "p")
PUBLIC = ("203.0.114.1",)
ALL_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
ANYTHING = ["wide_host", "single_label", "service_port"]
NOW = 1_795_000_000_000  # November 2026


def _moment(value: datetime) -> str:
    """A time that a YAML reader has already turned into a moment, written out again."""
    return value.strftime("%Y-%m-%dT%H:%M:%SZ")


def load(
    rules: Iterable[Mapping[str, Any]],
    deny: Sequence[str] = (),
    **top: Any,
) -> CompiledPolicy:
    """Our policy with these rules in profile `p`; JSON is YAML, so no text is assembled by hand."""
    items = [{"id": f"r{number}", **rule} for number, rule in enumerate(rules)]
    document = {
        "version": 1,
        "name": "case",
        "rules": items,
        "deny": [{"id": "d", "hosts": list(deny)}] if deny else [],
        "profiles": {"p": [item["id"] for item in items]},
        **top,
    }
    return load_policy(json.dumps(document, default=_moment).encode(), "case.json")


def rule(hosts: Sequence[str], **fields: Any) -> dict[str, Any]:
    return {"hosts": list(hosts), "methods": ALL_METHODS, "acknowledge": ANYTHING, **fields}


def glob_paths(paths: Sequence[str]) -> list[str]:
    """The peer's `/v1/*` means `/v1` and everything below it."""
    return [f"{path}*" if path.endswith("/*") else path for path in paths]


def judge(
    policy: CompiledPolicy,
    asked: EgressRequest,
    resolved: Sequence[str] = PUBLIC,
    forbidden: Forbidden = NOTHING_FORBIDDEN,
) -> Verdict:
    first = precheck(policy, asked, NOW, forbidden)
    if isinstance(first, NeedsResolution):
        return decide(policy, asked, resolved, NOW, forbidden)
    return first


def url(text: str, method: str = "GET") -> EgressRequest:
    return judge_request_from_url(method, text, ASKER)


def connect(authority: str) -> EgressRequest:
    return connect_from_authority(authority, ASKER)


def outcome(verdict: Verdict) -> str:
    """`allow`, `report` (observe mode let it pass) or `deny`."""
    if not verdict.allowed:
        return "deny"
    return "allow" if verdict.would_deny is None else "report"


def private_of(ranges: Sequence[str]) -> list[str]:
    """Only what needs permission: a peer's list may hold public ranges too."""
    return [text for text in ranges if refuse_private_range(text) is None]


def iron_policy(policy: Mapping[str, Any], port: int) -> CompiledPolicy:
    """iron-proxy: apex under wildcards, any port, all methods unless named, `warn` reports."""

    def hosts(name: str) -> list[str]:
        return [name[1:] if name.startswith("*.") else name]

    ports = {"ports": [port]}
    rules = [rule(hosts(name), **ports) for name in policy.get("domains", [])]
    rules += [rule([c], private=private_of([c]), **ports) for c in policy.get("cidrs", [])]
    for given in policy.get("rules", []):
        fields: dict[str, Any] = dict(ports)
        if "methods" in given:
            fields["methods"] = ALL_METHODS if given["methods"] == ["*"] else given["methods"]
        if "paths" in given:
            fields["paths"] = glob_paths(given["paths"])
        named = {"hosts": hosts(given["host"])} if "host" in given else {}
        rules.append({"methods": ALL_METHODS, "acknowledge": ANYTHING, **named, **fields})
    return load(rules, mode="observe" if policy.get("warn") else "enforce")


def smokescreen_policy(policy: Mapping[str, Any], role: str | None) -> CompiledPolicy:
    """smokescreen: one service is one profile; the default serves unknown roles; plain http too."""
    default = policy.get("default") or {"action": "enforce"}
    services = policy.get("services", [])
    service = next((s for s in services if s["name"] == role), default)
    if role is None:  # load the whole file: every service must be good
        modes = [s["action"] for s in (*services, default)]
        mode = next((m for m in modes if m not in ("enforce", "report", "open")), "enforce")
        names = [d for s in (*services, default) for d in s.get("allowed_domains", [])]
    else:
        mode = "observe" if service["action"] == "report" else "enforce"
        names = list(service.get("allowed_domains", []))
    names += policy.get("global_allow_list", [])
    rules = [rule([n], schemes=["http", "https"], private=private_of([n])) for n in names]
    return load(rules, policy.get("global_deny_list", []), mode=mode)
