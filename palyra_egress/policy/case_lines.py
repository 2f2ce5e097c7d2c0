"""Judges requests that are written as JSON objects: for recorded cases and for other programs.

Input: one object with `id`, `method`, `url` and optionally `profile`, `resolved` (addresses),
`connect` (the `host:port` of the tunnel the request came through), `sni`, `host_header`,
`authority`, `http_version`, `ech` (whether the ClientHello holds an encrypted one) and `facts`.
Output: one flat object with `id`, `effect`, `reason`, `class`, `rule`, `line`, `canonical_host`,
`port`, `pinned`, and `tls`: how the tunnel of an https request is carried. Every input gets an
answer: what cannot be read is a denial with REQUEST_MALFORMED.

What is given must agree: tunnel, SNI, Host, authority and URL name one host and port. `sni` given
as null or empty for an https request is SNI_MISSING unless the rule accepts that. `facts` are what
is known about the worker: `image_digest`, `build_digest`, `artifact_digest` (`sha256:…`),
`capabilities` and `binding_level`.
A fact that is absent or null is not known, and a name that is no fact of ours satisfies nothing.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from palyra_egress.destination.hostname import HostRefused, canonical_host, parse_authority
from palyra_egress.facts import AttestedFacts, FactsRefused, read_facts
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.policy.schema import SCHEME_PORT
from palyra_egress.reasons import REASONS, Reason
from palyra_egress.request import EgressRequest, Requester, RequestKind
from palyra_egress.verdict import INSPECTED, Carriage, Effect, TlsMode, Verdict

type Answer = dict[str, object]
_KEYS: Final = frozenset(
    {"id", "method", "url", "profile", "connect", "sni", "host_header", "authority"}
    | {"http_version", "resolved", "facts", "ech"}
)
_VERSIONS: Final = frozenset({"HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/2.0", "1.0", "1.1", "2"})
MAX_LINE: Final = 1 << 20


class CaseRefused(ValueError):
    """The case itself cannot be judged; `reason` is what a live request would get."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def _malformed(detail: str) -> CaseRefused:
    return CaseRefused(Reason.REQUEST_MALFORMED, detail)


def _text(case: Mapping[str, object], name: str) -> str | None:
    value = case.get(name)
    if value is None:
        return None
    if not isinstance(value, str):
        raise _malformed(f"{name} is not a text")
    return value


def _same_target(text: str, request: EgressRequest) -> None:
    if parse_authority(text, SCHEME_PORT[request.scheme]) != (request.host, request.port):
        raise CaseRefused(Reason.AUTHORITY_MISMATCH, f"{text!r} is not the target")


def _check_agreement(case: Mapping[str, object], request: EgressRequest) -> None:
    """Tunnel, SNI, Host and authority must all name the target of the request."""
    connect = _text(case, "connect")
    if connect is not None and parse_authority(connect, None) != (request.host, request.port):
        raise CaseRefused(Reason.AUTHORITY_MISMATCH, "the tunnel was opened for another target")
    if "sni" in case and request.scheme == "https":
        sni = _text(case, "sni")
        if sni and canonical_host(sni) != request.host:
            raise CaseRefused(Reason.AUTHORITY_MISMATCH, "the SNI is another host")
    for name in ("host_header", "authority"):
        value = _text(case, name)
        if value is not None:
            _same_target(value, request)


def _carriage(
    policy: CompiledPolicy, request: EgressRequest, addresses: Sequence[str], now_unix_ms: int
) -> Carriage:
    """How the tunnel that the request came through is carried; inspected where there is none."""
    if request.kind is not RequestKind.CONNECT:
        request = replace(request, kind=RequestKind.CONNECT, method="CONNECT", path="", query="")
    verdict = precheck(policy, request, now_unix_ms)
    if not isinstance(verdict, Verdict):
        verdict = decide(policy, request, addresses, now_unix_ms)
    return verdict.carriage


def _check_hello(case: Mapping[str, object], carriage: Carriage) -> None:
    """What a TLS handshake hides, only the rule that carries the tunnel can accept."""
    hides = case.get("ech", False)
    if not isinstance(hides, bool):
        raise _malformed("ech is not true or false")
    if hides and carriage.mode is TlsMode.TUNNEL and not carriage.ech:
        raise CaseRefused(Reason.ECH_NOT_ALLOWED, "the TLS handshake may hide another server")
    if "sni" in case and not _text(case, "sni") and not carriage.missing_sni:
        raise CaseRefused(Reason.SNI_MISSING, "the TLS handshake names no server")


def _read_case(case: Mapping[str, object], requester: Requester) -> EgressRequest:
    unknown = sorted(set(case) - _KEYS)
    if unknown:
        raise _malformed(f"unknown key {unknown[0]!r}")
    method, url = _text(case, "method"), _text(case, "url")
    if method is None or url is None:
        raise _malformed("method and url are needed")
    version = _text(case, "http_version")
    if version is not None and version not in _VERSIONS:
        raise CaseRefused(Reason.PROTOCOL_NOT_SUPPORTED, "the HTTP version is not carried")
    if method == "CONNECT":
        request = connect_from_authority(url, requester)
    else:
        request = judge_request_from_url(method, url, requester)
    _check_agreement(case, request)
    return request


def _facts(case: Mapping[str, object]) -> AttestedFacts:
    given = case.get("facts", {})
    if not isinstance(given, Mapping):
        raise _malformed("facts is not an object")
    try:
        return read_facts(given)
    except FactsRefused as error:
        raise _malformed(str(error)) from error


def _addresses(case: Mapping[str, object]) -> Sequence[str]:
    addresses = case.get("resolved")
    if addresses is None:
        return ()
    if not isinstance(addresses, list) or not all(isinstance(a, str) for a in addresses):
        raise _malformed("resolved is not a list of texts")
    return addresses


def _refused(case_id: object, reason: Reason, detail: str) -> Answer:
    return {
        "id": case_id,
        "effect": Effect.DENY.value,
        "reason": reason.value,
        "class": REASONS[reason].reason_class.value,
        "rule": None,
        "line": None,
        "canonical_host": None,
        "port": None,
        "pinned": [],
        "detail": detail,
    }


def _answer(case_id: object, request: EgressRequest, verdict: Verdict) -> Answer:
    return {
        "id": case_id,
        "effect": verdict.effect.value,
        "reason": verdict.reason.value,
        "class": verdict.reason_class.value,
        "rule": verdict.rule_id,
        "line": verdict.line,
        "canonical_host": request.host,
        "port": request.port,
        "pinned": list(verdict.pinned),
    }


def judge_case(
    policy: CompiledPolicy, case: object, default_profile: str, now_unix_ms: int
) -> Answer:
    """The answer to one decoded case; total."""
    if not isinstance(case, Mapping):
        return _refused(None, Reason.REQUEST_MALFORMED, "the line is not an object")
    case_id = case.get("id")
    try:
        profile = _text(case, "profile")
        requester = Requester(
            "policy-judge",
            "policy-judge",
            default_profile if profile is None else profile,
            facts=_facts(case),
        )
        request = _read_case(case, requester)
        addresses = _addresses(case)
        carriage = INSPECTED
        if request.scheme == "https":
            carriage = _carriage(policy, request, addresses, now_unix_ms)
            _check_hello(case, carriage)
    except (CaseRefused, HostRefused) as error:
        return _refused(case_id, error.reason, error.detail)
    verdict = precheck(policy, request, now_unix_ms)
    if not isinstance(verdict, Verdict):
        verdict = decide(policy, request, addresses, now_unix_ms)
    return {**_answer(case_id, request, verdict), "tls": carriage.mode.value}


def judge_line(policy: CompiledPolicy, line: str, default_profile: str, now_unix_ms: int) -> Answer:
    """The answer to one line of JSON; total."""
    try:
        case = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return _refused(None, Reason.REQUEST_MALFORMED, "the line is not JSON")
    return judge_case(policy, case, default_profile, now_unix_ms)
