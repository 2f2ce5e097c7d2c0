"""`policy explain` and `policy judge`: single requests held against a policy."""

import argparse
import json
import sys
from dataclasses import asdict

from palyra_egress.cli.policy_answers import (
    ANSWER_IS_NO,
    DONE,
    fail,
    moment,
    put,
    put_json,
    put_lines,
    read_named,
)
from palyra_egress.destination.hostname import HostRefused
from palyra_egress.policy.case_lines import judge_line, read_lines
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.explain import Explanation, explain
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.reasons import REASONS
from palyra_egress.request import EgressRequest, Requester

_EXPLAINER = "policy-explain"


def _only_profile(policy: CompiledPolicy) -> str:
    """The profile of a policy that has one; otherwise none, which the judge refuses."""
    names = list(policy.profiles)
    return names[0] if len(names) == 1 else ""


def _request_of(args: argparse.Namespace, policy: CompiledPolicy) -> EgressRequest:
    profile = _only_profile(policy) if args.profile is None else args.profile
    requester = Requester(_EXPLAINER, _EXPLAINER, profile, facts=args.facts)
    if args.method == "CONNECT":
        return connect_from_authority(args.url, requester)
    return judge_request_from_url(args.method, args.url, requester)


def _explanation_row(found: Explanation) -> dict[str, object]:
    verdict = found.verdict
    return {
        "steps": [{"name": step.name, "finding": step.finding} for step in found.steps],
        "effect": None if verdict is None else verdict.effect.value,
        "reason": None if verdict is None else verdict.reason.value,
        "rule": None if verdict is None else verdict.rule_id,
        "line": None if verdict is None else verdict.line,
        "owner": None if found.rule is None else found.rule.owner,
        "unmet": [one._asdict() for one in found.unmet],
        "edit": None if found.edit is None else asdict(found.edit),
        "pinned": [] if verdict is None else list(verdict.pinned),
    }


def explain_url(args: argparse.Namespace) -> int:
    """`policy explain URL`: every step of the judgement, and who owns the rule."""
    try:
        policy = read_named(args.policy)
    except PolicyFileError as error:
        return fail(args.output, error)
    try:
        request = _request_of(args, policy)
    except HostRefused as error:
        row = REASONS[error.reason]
        if args.output == "json":
            put_json({"effect": "deny", "reason": error.reason.value, "detail": error.detail})
        else:
            put(f"verdict    deny: {error.reason.value} ({row.title}): {error.detail}")
        return ANSWER_IS_NO
    found = explain(policy, request, args.resolved, moment(args))
    if args.output == "json":
        put_json(_explanation_row(found))
    else:
        put_lines(found.lines)
    return DONE if found.allowed else ANSWER_IS_NO


def judge(args: argparse.Namespace) -> int:
    """`policy judge`: JSON lines in and out, one answer for every line that is not blank."""
    try:
        policy = read_named(args.policy)
    except PolicyFileError as error:
        return fail(args.output, error)
    profile = _only_profile(policy) if args.profile is None else args.profile
    now = moment(args)
    for line in read_lines(sys.stdin.buffer):
        sys.stdout.write(f"{json.dumps(judge_line(policy, line, profile, now))}\n")
        sys.stdout.flush()
    return DONE
