"""Judges requests that are written as JSON objects: for recorded cases and for other programs.

Input: one object with `id`, `method`, `url` and optionally `profile`, `resolved` (addresses),
`connect` (the `host:port` of the tunnel the request came through), `sni`, `host_header`,
`authority`, `http_version`, `ech` (whether the ClientHello holds an encrypted one) and `facts`.
Output: one flat object with `id`, `effect`, `reason`, `class`, `rule`, `line`, `canonical_host`,
`port`, `pinned`; then `tls`, how the tunnel of an https request is carried, or `detail`, why the
object could not be judged as it is. Every input gets an answer: what cannot be read is a denial
with REQUEST_MALFORMED. `canonical_host` and `port` are there wherever the URL could be read.

What is given must agree: tunnel, SNI, Host, authority and URL name one host and port. `sni` given
as null or empty for an https request is SNI_MISSING unless the rule accepts that, or the host is an
address, which no handshake names. A tunnel carries TLS, so a plain http URL in one is refused.
`facts` are what is known about the worker: `image_digest`, `build_digest`, `artifact_digest`
(`sha256:…`), `capabilities` and `binding_level`.
A fact that is absent or null is not known, and a name that is no fact of ours satisfies nothing.
Null stands for absent in every other key too, but for `sni`.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO, Final

from palyra_egress.destination.hostname import HostRefused, parse_authority, sni_problem
from palyra_egress.facts import UNATTESTED, AttestedFacts, FactsRefused, read_facts
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
_HTTP_2: Final = frozenset({"HTTP/2", "HTTP/2.0", "2"})
_VERSIONS: Final = frozenset({"HTTP/1.0", "HTTP/1.1", "1.0", "1.1"}) | _HTTP_2
MAX_LINE: Final = 1 << 20
MAX_TOLD: Final = 80
MAX_ID_PARTS: Final = 100


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
    is_connect = request.kind is RequestKind.CONNECT
    default_port = request.port if is_connect else SCHEME_PORT[request.scheme]
    if parse_authority(text, default_port) != (request.host, request.port):
        raise CaseRefused(Reason.AUTHORITY_MISMATCH, f"{text[:MAX_TOLD]!r} is not the target")


def _check_agreement(case: Mapping[str, object], request: EgressRequest) -> None:
    """Tunnel, SNI, Host and authority must all name the target of the request."""
    connect, sni = _text(case, "connect"), _text(case, "sni")
    if connect is not None and parse_authority(connect, None) != (request.host, request.port):
        raise CaseRefused(Reason.AUTHORITY_MISMATCH, "the tunnel was opened for another target")
    if sni and sni_problem(sni, request.host) is not None:
        raise CaseRefused(Reason.AUTHORITY_MISMATCH, "the SNI is not the host of the URL")
    for name in ("host_header", "authority"):
        value = _text(case, name)
        if value is not None:
            _same_target(value, request)
    if connect is not None and request.scheme == "http":
        raise CaseRefused(Reason.NON_HTTP_IN_TUNNEL, "a tunnel carries TLS, not plain http")


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


def _check_hello(case: Mapping[str, object], request: EgressRequest, carriage: Carriage) -> None:
    """What a TLS handshake hides, only the rule that carries the tunnel can accept."""
    hides = case.get("ech")
    if hides is not None and not isinstance(hides, bool):
        raise _malformed("ech is not true or false")
    if hides and carriage.mode is TlsMode.TUNNEL and not carriage.ech:
        raise CaseRefused(Reason.ECH_NOT_ALLOWED, "the TLS handshake may hide another server")
    if "sni" not in case or carriage.missing_sni:
        return
    if sni_problem(_text(case, "sni") or None, request.host) is Reason.SNI_MISSING:
        raise CaseRefused(Reason.SNI_MISSING, "the TLS handshake names no server")


def _read_request(case: Mapping[str, object], requester: Requester) -> EgressRequest:
    method, url = _text(case, "method"), _text(case, "url")
    if method is None or url is None:
        raise _malformed("method and url are needed")
    if method == "CONNECT":
        return connect_from_authority(url, requester)
    return judge_request_from_url(method, url, requester)


def _check_version(case: Mapping[str, object], request: EgressRequest) -> None:
    """HTTP/2 is carried inside an inspected tunnel, so neither as plain http nor for a CONNECT."""
    version = _text(case, "http_version")
    if version is None:
        return
    if version not in _VERSIONS:
        raise CaseRefused(Reason.PROTOCOL_NOT_SUPPORTED, "the HTTP version is not carried")
    is_inside_tls = request.scheme == "https" and request.kind is RequestKind.REQUEST
    if version in _HTTP_2 and not is_inside_tls:
        raise CaseRefused(Reason.PROTOCOL_NOT_SUPPORTED, "HTTP/2 is carried inside TLS alone")


def _facts(case: Mapping[str, object]) -> AttestedFacts:
    given = case.get("facts")
    if given is None:
        return UNATTESTED
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


def _requester(case: Mapping[str, object], default_profile: str) -> Requester:
    profile = _text(case, "profile")
    return Requester(
        "policy-judge",
        "policy-judge",
        default_profile if profile is None else profile,
        facts=_facts(case),
    )


def _refused(
    case_id: object, reason: Reason, detail: str, request: EgressRequest | None = None
) -> Answer:
    return {
        "id": case_id,
        "effect": Effect.DENY.value,
        "reason": reason.value,
        "class": REASONS[reason].reason_class.value,
        "rule": None,
        "line": None,
        "canonical_host": None if request is None else request.host,
        "port": None if request is None else request.port,
        "pinned": [],
        "detail": detail,
    }


def _unreadable(detail: str) -> Answer:
    return _refused(None, Reason.REQUEST_MALFORMED, detail)


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


def _can_be_given_back(value: object) -> bool:
    """Whether an id is something that JSON has (so no NaN), and not nested without end."""
    try:
        text = json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return text.count("[") + text.count("{") <= MAX_ID_PARTS


def judge_case(
    policy: CompiledPolicy, case: object, default_profile: str, now_unix_ms: int
) -> Answer:
    """The answer to one decoded case; total."""
    if not isinstance(case, Mapping):
        return _unreadable("the line is not an object")
    case_id = case.get("id")
    if not _can_be_given_back(case_id):
        return _unreadable("id is not a text or a number")
    request = None
    try:
        unknown = sorted(set(case) - _KEYS)
        if unknown:
            raise _malformed(f"unknown key {unknown[0][:MAX_TOLD]!r}")
        request = _read_request(case, _requester(case, default_profile))
        addresses = _addresses(case)
        _check_version(case, request)
        _check_agreement(case, request)
        carriage = INSPECTED
        if request.scheme == "https":
            carriage = _carriage(policy, request, addresses, now_unix_ms)
            _check_hello(case, request, carriage)
    except (CaseRefused, HostRefused) as error:
        return _refused(case_id, error.reason, error.detail, request)
    verdict = precheck(policy, request, now_unix_ms)
    if not isinstance(verdict, Verdict):
        verdict = decide(policy, request, addresses, now_unix_ms)
    return {**_answer(case_id, request, verdict), "tls": carriage.mode.value}


def _each_key_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Two readers of an object with a repeated key may take different ones."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands twice")
    return found


def judge_line(
    policy: CompiledPolicy, line: bytes, default_profile: str, now_unix_ms: int
) -> Answer:
    """The answer to one line of JSON in UTF-8, with its line end or without; total."""
    line = line.removesuffix(b"\n")
    if len(line) > MAX_LINE:
        return _unreadable(f"the line is longer than {MAX_LINE} bytes")
    try:
        case = json.loads(line.decode("utf-8"), object_pairs_hook=_each_key_once)
    except (ValueError, RecursionError):
        return _unreadable("the line is not JSON in UTF-8 with each key once")
    return judge_case(policy, case, default_profile, now_unix_ms)


def read_lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines that are not blank. What is longer than `judge_line` takes is never held whole."""
    while line := stream.readline(MAX_LINE + 2):
        part = line
        while part and not part.endswith(b"\n"):
            part = stream.readline(MAX_LINE)
        if line.strip():
            yield line
