"""Reads one rule, allow or deny, of a policy file.

Input: a node of the document. Output: a `RuleSpec` or `DenySpec`; mistakes go to the collector and
leave a harmless value behind (an empty list, no permission). Defaults: schemes https; ports of the
schemes (443, and 80 only where the rule says http); methods GET and HEAD; every path. Where a
rule names both schemes and lists ports, 80 belongs to http and 443 to https; other ports to both.
A list that is there and empty allows nothing.
"""

from palyra_egress.destination.address_class import (
    AddressRange,
    parse_range,
    refuse_private_range,
)
from palyra_egress.destination.hostpattern import HostPattern, PatternRefused, parse_pattern
from palyra_egress.policy.carriage import inspected_keys, read_exceptions
from palyra_egress.policy.credential_reader import read_credentials
from palyra_egress.policy.errors import ProblemCode, Problems
from palyra_egress.policy.fields import Fields, describe
from palyra_egress.policy.language import DENY, RULE
from palyra_egress.policy.paths import PathPattern, PathRefused, parse_path_pattern
from palyra_egress.policy.schema import (
    DEFAULT_METHODS,
    DEFAULT_SCHEMES,
    KNOWN_METHODS,
    MAX_RATE,
    SCHEME_PORT,
    SERVICE_PORTS,
    Acknowledgement,
    DenySpec,
    RuleSpec,
)
from palyra_egress.policy.upstream_tls_reader import read_rule_tls, upstream_tls_places
from palyra_egress.request import Scheme
from palyra_egress.verdict import NO_LIMITS, Limits, TlsMode
from palyra_fleet.nearest_word import nearest
from palyra_fleet.strict_yaml.document import Mapping, Node, Position, Scalar


def _read_acknowledgements(fields: Fields) -> frozenset[Acknowledgement]:
    words = [member.value for member in Acknowledgement]
    given = fields.texts("acknowledge", "words") or []
    for text, position in given:
        if text not in words:
            fields.refuse(
                position,
                ProblemCode.BAD_VALUE,
                f"nothing is called {text[:60]!r} here",
                f"one of {', '.join(words)}",
                nearest(text, words),
            )
    return frozenset(Acknowledgement(text) for text, _ in given if text in words)


def _read_pattern(text: str, position: Position, fields: Fields) -> HostPattern | None:
    try:
        return parse_pattern(text)
    except PatternRefused as error:
        fields.refuse(
            position,
            ProblemCode.BAD_PATTERN,
            f"{text[:80]!r}: {error.detail}",
            error.expected,
            error.suggestion,
        )
        return None


def _read_hosts(
    fields: Fields, acknowledged: frozenset[Acknowledgement] | None
) -> tuple[HostPattern, ...]:
    """The patterns; `acknowledged` None for deny rules, which may be as wide as they like."""
    patterns: list[HostPattern] = []
    for text, position in fields.texts("hosts", "host patterns") or []:
        pattern = _read_pattern(text, position, fields)
        if pattern is None:
            continue
        patterns.append(pattern)
        needed = None
        if pattern.is_wide:
            needed = (Acknowledgement.WIDE_HOST, "opens a registry's suffix or a huge network")
        elif pattern.is_single_label:
            needed = (Acknowledgement.SINGLE_LABEL, "is completed by search domains")
        if needed is None or acknowledged is None or needed[0] in acknowledged:
            continue
        fields.refuse(
            position,
            ProblemCode.NEEDS_ACKNOWLEDGEMENT,
            f"{text[:80]!r} {needed[1]}",
            f"a narrower pattern, or `acknowledge: [{needed[0].value}]` in the rule",
        )
    return tuple(patterns)


def _read_schemes(fields: Fields) -> tuple[Scheme, ...]:
    given = fields.texts("schemes", "http or https")
    if given is None:
        return DEFAULT_SCHEMES
    schemes: list[Scheme] = []
    for text, position in given:
        match text:
            case "http":
                schemes.append("http")
            case "https":
                schemes.append("https")
            case _:
                fields.refuse(
                    position,
                    ProblemCode.BAD_VALUE,
                    f"the scheme {text[:40]!r} is not carried",
                    "http or https",
                    nearest(text, SCHEME_PORT),
                )
    return tuple(dict.fromkeys(schemes))


def _read_port(item: Node, fields: Fields, acknowledged: frozenset[Acknowledgement]) -> int | None:
    value = item.value if isinstance(item, Scalar) else None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 65535:
        fields.refuse(
            item.position,
            ProblemCode.BAD_VALUE,
            f"a port is {describe(item)}",
            "a whole number from 1 to 65535; ranges are written out",
        )
        return None
    service = SERVICE_PORTS.get(value)
    if service is not None and Acknowledgement.SERVICE_PORT not in acknowledged:
        fields.refuse(
            item.position,
            ProblemCode.NEEDS_ACKNOWLEDGEMENT,
            f"port {value} belongs to {service}",
            "another port, or `acknowledge: [service_port]` in the rule",
        )
    return value


def _read_endpoints(
    fields: Fields, acknowledged: frozenset[Acknowledgement]
) -> tuple[tuple[Scheme, int], ...]:
    schemes = _read_schemes(fields)
    items = fields.items("ports", "port numbers")
    if items is None:
        return tuple((scheme, SCHEME_PORT[scheme]) for scheme in schemes)
    ports = [_read_port(item, fields, acknowledged) for item in items]
    others: dict[Scheme, int] = {"http": SCHEME_PORT["https"], "https": SCHEME_PORT["http"]}
    return tuple(
        (scheme, port)
        for scheme in schemes
        for port in dict.fromkeys(ports)
        if port is not None and (len(schemes) == 1 or port != others[scheme])
    )


def _read_methods(fields: Fields) -> tuple[str, ...]:
    given = fields.texts("methods", "method names")
    if given is None:
        return DEFAULT_METHODS
    methods: list[str] = []
    for text, position in given:
        method = text.upper()
        if method in KNOWN_METHODS:
            methods.append(method)
            continue
        fields.refuse(
            position,
            ProblemCode.BAD_VALUE,
            f"the method {text[:40]!r} cannot be allowed",
            f"one of {', '.join(sorted(KNOWN_METHODS))}",
            nearest(method, (name.lower() for name in KNOWN_METHODS)),
        )
    return tuple(dict.fromkeys(methods))


def _read_paths(fields: Fields) -> tuple[PathPattern, ...] | None:
    given = fields.texts("paths", "path patterns")
    if given is None:
        return () if fields.has("paths") else None
    patterns: list[PathPattern] = []
    for text, position in given:
        try:
            patterns.append(parse_path_pattern(text))
        except PathRefused as error:
            fields.refuse(
                position,
                ProblemCode.BAD_PATTERN,
                f"{text[:80]!r}: {error.detail}",
                "segments, * for one segment, ** at the end for any depth",
                error.suggestion,
            )
    return tuple({pattern.segments: pattern for pattern in patterns}.values())


def _read_websocket(fields: Fields, methods: tuple[str, ...]) -> bool:
    """Whether requests may go on as WebSockets; each begins as a GET (RFC 6455 section 4.1)."""
    allowed = fields.boolean("websocket")
    if allowed and "GET" not in methods:
        fields.refuse(
            fields.mapping.entries["websocket"][0].position,
            ProblemCode.BAD_VALUE,
            "every WebSocket begins with a GET, which the rule does not allow",
            "GET among `methods`, or no 'websocket'",
        )
    return allowed


def _read_private(fields: Fields) -> tuple[AddressRange, ...]:
    ranges: list[AddressRange] = []
    for text, position in fields.texts("private", "address ranges") or []:
        why = refuse_private_range(text)
        found = parse_range(text)
        if why is None and found is not None:
            ranges.append(found)
            continue
        code = ProblemCode.NEVER_ALLOWED if found is not None else ProblemCode.BAD_VALUE
        fields.refuse(
            position, code, f"{text[:80]!r} is {why}", "a private range such as 10.20.0.0/16"
        )
    return tuple(dict.fromkeys(ranges))


def read_limits(fields: Fields | None) -> Limits:
    """The budgets of a file, a profile or a rule."""
    if fields is None:
        return NO_LIMITS
    return Limits(
        max_request_bytes=fields.size("max_request_bytes"),
        max_response_bytes=fields.size("max_response_bytes"),
        requests_per_minute=fields.whole("requests_per_minute", 1, MAX_RATE),
        bytes_per_hour=fields.size("bytes_per_hour"),
        request_bytes_per_hour=fields.size("request_bytes_per_hour"),
        response_bytes_per_hour=fields.size("response_bytes_per_hour"),
    )


def read_rule(node: Node, problems: Problems) -> RuleSpec | None:
    """One allow rule; None if it is not a mapping."""
    if not isinstance(node, Mapping):
        problems.add(
            node.position,
            ProblemCode.WRONG_TYPE,
            f"a rule is {describe(node)}",
            expected="a mapping with id and hosts",
        )
        return None
    fields = Fields(node, RULE, problems)
    acknowledged = _read_acknowledgements(fields)
    endpoints = _read_endpoints(fields, acknowledged)
    methods = _read_methods(fields)
    schemes = {scheme for scheme, _ in endpoints}
    return RuleSpec(
        rule_id=fields.identifier("id"),
        position=node.position,
        hosts=_read_hosts(fields, acknowledged),
        endpoints=endpoints,
        methods=methods,
        paths=_read_paths(fields),
        private=_read_private(fields),
        until_unix_ms=fields.moment("until"),
        limits=read_limits(fields.sub("limits")),
        observe=fields.boolean("observe"),
        encoded_slash=fields.boolean("encoded_slash"),
        owner=fields.text("owner"),
        reason=fields.text("reason"),
        acknowledged=acknowledged,
        file=problems.file,
        credentials=read_credentials(fields, schemes),
        own_tls=fields.choice("tls", TlsMode, TlsMode.INSPECT) if fields.has("tls") else None,
        carriage=read_exceptions(fields),
        inspected_keys=inspected_keys(fields),
        log_query=fields.boolean("log_query"),
        websocket=_read_websocket(fields, methods),
        upstream_tls=read_rule_tls(fields, schemes),
        upstream_tls_places=upstream_tls_places(fields),
    )


def read_deny(node: Node, problems: Problems) -> DenySpec | None:
    """One deny rule; None if it is not a mapping."""
    if not isinstance(node, Mapping):
        problems.add(
            node.position,
            ProblemCode.WRONG_TYPE,
            f"a deny rule is {describe(node)}",
            expected="a mapping with id and hosts",
        )
        return None
    fields = Fields(node, DENY, problems)
    return DenySpec(
        rule_id=fields.identifier("id"),
        position=node.position,
        hosts=_read_hosts(fields, None),
        reason=fields.text("reason"),
        file=problems.file,
    )
