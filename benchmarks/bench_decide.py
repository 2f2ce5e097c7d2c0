"""CPU nanoseconds per decision (precheck and decide), however many rules there are.

Three requests: one that a rule in the middle allows, one for a host no rule names, one whose host
is named and whose method is not. Beside the judge, in the same rounds: a plain loop over the rules
that takes the first match, and one compiled regular expression of all host patterns (it says
whether the host is named, nothing more). Then a flood of refusals: what one refused request costs
with its audit line written to a file (without the sync, which is done for many lines together).
Every cell is the median of interleaved rounds; a sample is as many calls as fill its share of a
round, at least one. Cells count the CPU time of this thread, so that waiting for a busy core is not
taken for work; the flood counts wall time, because it writes.
"""

import argparse
import json
import os
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

from palyra_egress.audit.chain import AuditFields
from palyra_egress.audit.log import AuditLog
from palyra_egress.destination.hostpattern import HostPattern, parse_pattern
from palyra_egress.policy.compile import CompiledPolicy, compile_policy
from palyra_egress.policy.paths import parse_path_pattern
from palyra_egress.policy.request_text import judge_request_from_url
from palyra_egress.policy.schema import Mode, PolicySpec, ProfileSpec, RuleSpec
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.service import EgressProxyPolicyService
from palyra_egress.verdict import Limits, NeedsResolution, Verdict
from palyra_fleet.strict_yaml.document import Position
from palyra_fleet.wire.keys import SigningKey

SIZES: Final = (10, 1_000, 100_000)
QUICK_SIZES: Final = (10, 100)
JUDGES: Final = ("palyra", "first match", "regex union")
CASES: Final = ("allow", "deny host", "deny method")
ADDRESSES: Final = ("203.0.114.1",)
FLAT_WITHIN: Final = 2.0
NOW_UNIX_MS: Final = 1_795_000_000_000
LISTENERS: Final = frozenset({("127.0.0.1", 8080), ("127.0.0.1", 8081)})
_METHODS: Final = ("GET", "HEAD", "POST")
_PATHS: Final = (parse_path_pattern("/v1/**"),)
_ASKER: Final = Requester("worker-01", "lease-01", "bench", "run-01")


@dataclass(frozen=True, slots=True)
class Cell:
    """One measured number; `ratio` is to our own judge at the same size and case."""

    rules: int
    case: str
    judge: str
    ns: float
    ratio: float


@dataclass(frozen=True, slots=True)
class Result:
    """`growth` is the cost at the largest size over that at the smallest, for each case."""

    cells: list[Cell]
    growth: dict[str, float]
    is_flat: dict[str, bool]
    refusal_ns: float
    refusal_with_audit_ns: float
    audit_line_bytes: float
    load_average: float


def host_pattern(number: int) -> HostPattern:
    """Every tenth rule names all below a name, the others one host."""
    prefix = "*." if number % 10 == 9 else ""
    return parse_pattern(f"{prefix}h{number}.team{number % 97}.example.com")


def make_policy(size: int) -> CompiledPolicy:
    """A policy of `size` rules, made without a file: reading one is not what is measured."""
    rules = tuple(
        RuleSpec(
            rule_id=f"r{number}",
            position=Position(number + 1),
            hosts=(host_pattern(number),),
            endpoints=(("https", 443),),
            methods=_METHODS,
            paths=_PATHS,
            private=(),
            until_unix_ms=None,
            limits=Limits(),
            observe=False,
            encoded_slash=False,
            owner=None,
            reason=None,
        )
        for number in range(size)
    )
    everything = tuple((rule.rule_id, rule.position) for rule in rules)
    spec = PolicySpec(
        file="bench.yaml",
        name="bench",
        mode=Mode.ENFORCE,
        limits=Limits(),
        rules=rules,
        deny=(),
        quarantine=(),
        strike=None,
        profiles=(ProfileSpec("bench", Position(), everything),),
        tests=(),
    )
    return compile_policy(spec, "0" * 64)


def requests_for(size: int) -> dict[str, EgressRequest]:
    middle = size // 2 - (size // 2) % 10
    known = f"https://h{middle}.team{middle % 97}.example.com/v1/items/42"
    unknown = "https://h1.team1.example.org/v1/items/42"
    return {
        "allow": judge_request_from_url("GET", known, _ASKER),
        "deny host": judge_request_from_url("GET", unknown, _ASKER),
        "deny method": judge_request_from_url("DELETE", known, _ASKER),
    }


def whole_decision(service: EgressProxyPolicyService, request: EgressRequest) -> Verdict:
    first = service.precheck(request, NOW_UNIX_MS)
    if isinstance(first, NeedsResolution):
        return service.decide(request, ADDRESSES, NOW_UNIX_MS, first)
    return first


def first_match(rules: Sequence[tuple[str, str]], request: EgressRequest) -> bool:
    """The loop that most proxies have: patterns in order, then the method."""
    host = request.host
    for exact, suffix in rules:
        if host == exact or (suffix and host.endswith(suffix)):
            return request.method in _METHODS
    return False


def loop_rules(policy: CompiledPolicy) -> list[tuple[str, str]]:
    patterns = [rule.hosts[0] for rule in policy.spec.rules]
    return [("", f".{p.name}") if p.text.startswith("*.") else (p.name, "") for p in patterns]


def union_of(policy: CompiledPolicy) -> re.Pattern[str]:
    names = (rule.hosts[0] for rule in policy.spec.rules)
    parts = [rf".+\.{re.escape(p.name)}" if p.text[0] == "*" else re.escape(p.name) for p in names]
    return re.compile("|".join(parts))


type Call = Callable[[], object]
type Clock = Callable[[], int]


def calls_for(size: int) -> dict[tuple[str, str], Call]:
    """What to call for each (case, judge)."""
    policy = make_policy(size)
    service = EgressProxyPolicyService(policy, LISTENERS)
    rules, union = loop_rules(policy), union_of(policy)
    calls: dict[tuple[str, str], Call] = {}
    for case, request in requests_for(size).items():
        verdict = whole_decision(service, request)
        if verdict.allowed is not (case == "allow"):
            raise AssertionError(f"{case}: {verdict.reason}")
        calls[case, "palyra"] = partial(whole_decision, service, request)
        calls[case, "first match"] = partial(first_match, rules, request)
        calls[case, "regex union"] = partial(union.fullmatch, request.host)
    return calls


def sample_ns(call: Call, budget_ns: int, clock: Clock) -> float:
    """Nanoseconds per call, over as many calls as fill the budget, at least one."""
    count = 1
    while True:
        started = clock()
        for _ in range(count):
            call()
        spent = clock() - started
        if spent * 2 >= budget_ns:
            return spent / count
        count = max(count * 2, min(count * budget_ns // max(spent, 1), count * 100))


def measure_cells(sizes: Sequence[int], rounds: int, budget_ns: int) -> list[Cell]:
    calls = {
        (size, case, judge): call
        for size in sizes
        for (case, judge), call in calls_for(size).items()
    }
    samples: dict[tuple[int, str, str], list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            samples[key].append(sample_ns(call, budget_ns, time.thread_time_ns))
    medians = {key: statistics.median(values) for key, values in samples.items()}
    return [
        Cell(size, case, judge, medians[size, case, judge], ns / medians[size, case, "palyra"])
        for (size, case, judge), ns in medians.items()
    ]


def audit_fields(verdict: Verdict, request: EgressRequest) -> AuditFields:
    """The fields of a refusal's audit entry, about as many and as long as the proxy writes."""
    requester = request.requester
    return {
        "kind": "verdict",
        "at_unix_ms": NOW_UNIX_MS,
        "decision_id": "01JD0000000000000000000000",
        "worker_id": requester.worker_id,
        "lease_id": requester.lease_id,
        "run_id": requester.run_id,
        "method": request.method,
        "url": request.url,
        "effect": verdict.effect.value,
        "reason": verdict.reason.value,
        "rule": verdict.rule_id,
        "fingerprint": verdict.fingerprint,
        "policy_digest": verdict.policy_digest,
        "duration_ms": 0,
    }


def measure_flood(size: int, rounds: int, budget_ns: int) -> tuple[float, float, float]:
    """(refusal, refusal with its audit line, bytes of one line), in nanoseconds and bytes."""
    service = EgressProxyPolicyService(make_policy(size), LISTENERS)
    request = requests_for(size)["deny host"]
    plain, audited = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "audit.jsonl"
        log = AuditLog.open(path, SigningKey.generate(), NOW_UNIX_MS)

        def refuse() -> None:
            log.append(audit_fields(whole_decision(service, request), request))

        for _ in range(rounds):
            wall = time.perf_counter_ns
            plain.append(sample_ns(lambda: whole_decision(service, request), budget_ns, wall))
            audited.append(sample_ns(refuse, budget_ns, wall))
        line_bytes = path.stat().st_size / log.head.seq
        log.close()
    return statistics.median(plain), statistics.median(audited), line_bytes


def measure(sizes: Sequence[int], rounds: int, budget_ns: int) -> Result:
    cells = measure_cells(sizes, rounds, budget_ns)
    own = {(cell.rules, cell.case): cell.ns for cell in cells if cell.judge == "palyra"}
    growth = {case: own[sizes[-1], case] / own[sizes[0], case] for case in CASES}
    refusal_ns, audited_ns, line_bytes = measure_flood(sizes[-1], rounds, budget_ns)
    return Result(
        cells,
        growth,
        {case: value <= FLAT_WITHIN for case, value in growth.items()},
        refusal_ns,
        audited_ns,
        line_bytes,
        os.getloadavg()[0],
    )


def print_table(result: Result) -> None:
    print(f"{'rules':>8}  {'case':<12} {'judge':<12} {'ns':>14} {'x palyra':>10}")
    for cell in result.cells:
        print(
            f"{cell.rules:>8}  {cell.case:<12} {cell.judge:<12} {cell.ns:>14,.0f} "
            f"{cell.ratio:>10.2f}"
        )
    for case in CASES:
        word = "flat" if result.is_flat[case] else "NOT flat"
        print(f"{case}: {result.growth[case]:.2f} times from the fewest rules to the most: {word}")
    print(f"deny flood: {result.refusal_ns:,.0f} ns a refusal", end=", ")
    print(f"{result.refusal_with_audit_ns:,.0f} ns with its audit line", end=" ")
    print(f"of {result.audit_line_bytes:.0f} bytes")
    print(f"load average {result.load_average:.2f}")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="nanoseconds per decision")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--quick", action="store_true", help="few rules, few rounds: does it run?")
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args(arguments)
    if args.quick:
        result = measure(QUICK_SIZES, 2, 200_000)
    else:
        result = measure(SIZES, args.rounds, 20_000_000)
    if args.json:
        print(json.dumps(asdict(result)))
    else:
        print_table(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
