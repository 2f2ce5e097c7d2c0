"""The tests inside a policy file: read with it, run when it is loaded.

A test says who asks for what and what the answer must be:
`{profile: p, request: GET https://host/path, expect: deny method_not_allowed}`. Optional keys are
`upstream_tls` (how the server of what is allowed must be met, all of it; without it, anyhow),
`facts` (what is known about the worker; without it, nothing), `resolved` (the addresses of the
name; without it, one public address) and `at` (the time; without it, a moment before every
`until`). `expect` is `allow`, `deny`, `observe`, and after the last two
optionally a short reason code. A failing test refuses the file. The time is never the clock's, so
a file that loads today loads tomorrow.
"""

from typing import Final

from palyra_egress.destination.hostname import HostRefused
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.errors import Problem, ProblemCode, Problems
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.language import EXPECTED_ANSWER, EXPECTED_REQUEST, TEST
from palyra_egress.policy.profile_reader import read_test_facts
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.policy.schema import EmbeddedRequest, EmbeddedTest
from palyra_egress.policy.upstream_tls_reader import read_upstream_tls
from palyra_egress.reasons import Reason
from palyra_egress.request import EgressRequest, Requester, RequestKind
from palyra_egress.verdict import USUAL_TLS, Effect, Verdict
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Mapping, Node

STAND_IN_ADDRESS: Final = "203.0.114.1"
"""A public address, one beyond a documentation range, for tests that name none."""

_SHORT: Final = {reason.short: reason for reason in Reason}
_TEST_WORKER: Final = "policy-test"


def _read_request(fields: Fields, profile: str) -> EmbeddedRequest:
    facts = read_test_facts(fields.sub("facts"))
    requester = Requester(_TEST_WORKER, _TEST_WORKER, profile, facts=facts)
    method, space, target = (fields.text("request") or "").partition(" ")
    node = fields.node("request")
    if node is not None and (not space or not target or target != target.strip()):
        fields.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"'request' is {describe(node)}",
            EXPECTED_REQUEST,
        )
    kind = RequestKind.CONNECT if method == "CONNECT" else RequestKind.REQUEST
    return EmbeddedRequest(kind, method, target, requester)


def _read_expectation(fields: Fields) -> tuple[str, Reason | None]:
    node = fields.node("expect")
    effect, space, short = (fields.text("expect") or "").partition(" ")
    reason = _SHORT.get(short)
    if node is None:
        return "deny", None
    if effect not in {"allow", "deny", "observe"} or (effect == "allow" and space):
        fields.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"'expect' is {describe(node)}",
            EXPECTED_ANSWER,
            nearest(effect, ("allow", "deny", "observe")),
        )
    elif space and reason is None:
        fields.refuse(
            node.position,
            ProblemCode.BAD_VALUE,
            f"no reason is called {short[:60]!r}",
            "the short code of a reason",
            nearest(short, _SHORT),
        )
    return effect, reason


def read_test(node: Node, problems: Problems) -> EmbeddedTest | None:
    """One test; None if it is not a mapping."""
    if not isinstance(node, Mapping):
        problems.add(
            node.position,
            ProblemCode.WRONG_TYPE,
            f"a test is {describe(node)}",
            expected="a mapping with profile, request and expect",
        )
        return None
    fields = Fields(node, TEST, problems)
    resolved = fields.texts("resolved", "IP addresses")
    effect, reason = _read_expectation(fields)
    return EmbeddedTest(
        position=node.position,
        request=_read_request(fields, fields.text("profile") or ""),
        resolved=None if resolved is None else tuple(text for text, _ in resolved),
        at_unix_ms=fields.moment("at") or 0,
        expect=effect,
        expected_reason=reason,
        file=problems.file,
        expected_tls=read_upstream_tls(fields),
    )


def _canonical(asked: EmbeddedRequest) -> EgressRequest:
    if asked.kind is RequestKind.CONNECT:
        return connect_from_authority(asked.target, asked.requester)
    return judge_request_from_url(asked.method, asked.target, asked.requester)


def test_request(test: EmbeddedTest) -> EgressRequest | None:
    """What a test asks, or None if that is no request."""
    try:
        return _canonical(test.request)
    except HostRefused:
        return None


def judge_test(policy: CompiledPolicy, test: EmbeddedTest) -> Verdict | Reason:
    """The answer to a test: a verdict, or the reason why the request is none."""
    try:
        request = _canonical(test.request)
    except HostRefused as error:
        return error.reason
    first = precheck(policy, request, test.at_unix_ms)
    if isinstance(first, Verdict):
        return first
    resolved = (STAND_IN_ADDRESS,) if test.resolved is None else test.resolved
    return decide(policy, request, resolved, test.at_unix_ms)


def _outcome(answer: Verdict | Reason) -> tuple[str, Reason]:
    if isinstance(answer, Reason):
        return "deny", answer
    if answer.would_deny is not None:
        return "observe", answer.would_deny
    return ("allow" if answer.effect is Effect.ALLOW else "deny"), answer.reason


def run_test(policy: CompiledPolicy, test: EmbeddedTest) -> Problem | None:
    """None if the test passes, else the problem at its place in the file."""
    answer = judge_test(policy, test)
    effect, reason = _outcome(answer)
    tls = answer.upstream_tls if isinstance(answer, Verdict) else USUAL_TLS
    is_met = test.expected_tls in (None, tls)
    if effect == test.expect and test.expected_reason in (None, reason) and is_met:
        return None
    got = effect if effect == "allow" else f"{effect} {reason.short}"
    line = answer.line if isinstance(answer, Verdict) else None
    wanted = test.expect
    if not is_met:
        got, wanted = f"{got}, a server {tls}", f"{wanted}, a server {test.expected_tls}"
    if test.expected_reason is not None:
        wanted += f" {test.expected_reason.short}"
    by = ""
    if isinstance(answer, Verdict) and line is not None:
        elsewhere = "" if answer.policy_file == test.file else f" of {answer.policy_file}"
        by = f" (by the rule on line {line}{elsewhere})"
    return Problem(
        test.file,
        test.position,
        ProblemCode.TEST_FAILED,
        f"{test.request.method} {test.request.target} gives {got}{by}",
        wanted,
    )


def run_tests(policy: CompiledPolicy) -> list[Problem]:
    """The failures of every test of the policy's file."""
    results = [run_test(policy, test) for test in policy.spec.tests]
    return [problem for problem in results if problem is not None]
