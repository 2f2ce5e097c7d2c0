"""The shared corpora against the judge: every case is run here or explained in `not_ours.py`.

Each kind has one function that maps a case to ours and asserts. The corpora lie beside the checkout
(`../shared/corpora`, or the folder named by PALYRA_CORPORA); without them the suite says so.
"""

import re
from typing import Any

import pytest
from ruamel.yaml import YAML

from palyra_egress.destination.address_class import classify, parse_ipv4, parse_range
from palyra_egress.destination.hostname import HostRefused, canonical_host, parse_authority
from palyra_egress.destination.hostpattern import PatternRefused, parse_pattern
from palyra_egress.policy.case_lines import judge_case
from palyra_egress.policy.importers.translate import Source, import_policy
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.paths import read_path
from palyra_egress.policy.policy_lint import lint
from palyra_egress.policy.schema import PENALISED_WORDS
from palyra_egress.reasons import REASONS, Reason
from palyra_egress.verdict import Verdict
from tests.conformance.cases import ALL, OURS, RUNNERS, Case, allows, is_refused, runs, wanted
from tests.conformance.not_ours import CASES, KINDS
from tests.conformance.translate import (
    NOW,
    PUBLIC,
    connect,
    glob_paths,
    iron_policy,
    judge,
    load,
    outcome,
    precheck,
    private_of,
    rule,
    smokescreen_policy,
    url,
)


@runs("ip_class")
def _ip_class(case: Case) -> None:
    config, ip, port = case["input"]["config"], case["input"]["ip"], case["input"].get("port", 443)
    private = private_of(config.get("allow_ranges", []))
    if config.get("unsafe_allow_private_ranges"):
        private += ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"]
    given = load([rule(["a.test"], ports=[port], private=private)], config.get("deny_ranges", []))
    forbidden = frozenset((a, config["proxy_port"]) for a in config.get("local_ips", ()))
    found = outcome(judge(given, url(f"https://a.test:{port}/"), [ip], forbidden))
    match wanted(case)[0]:
        case "load_error_or_allow":
            assert found == "allow"
        case "deny_unless_local_optin":  # an explicit `private` range is the opt-in
            without = load([rule(["a.test"])])
            assert outcome(judge(without, url("https://a.test/"), [ip])) == "deny"
        case _:
            assert found in wanted(case)


@runs("ip_literal_parse")
def _ip_literal_parse(case: Case) -> None:
    host, expected = case["input"]["host"], case["expected"]
    everything = load([rule(["0.0.0.0/0", "::/0", ".com"])])
    names_only = load([rule([".com"])])
    if expected["verdict"] == "deny_unless_ip_rule":
        assert allows(lambda: judge(names_only, url(f"https://{host}/"))) == "deny"
        assert allows(lambda: judge(everything, url(f"https://{host}/"))) == "allow"
        return
    assert allows(lambda: judge(everything, url(f"https://{host}/"))) == "deny"
    assert allows(lambda: judge(everything, connect(f"{host}:443"))) == "deny"
    try:
        canonical, _ = parse_authority(host, 443)
    except HostRefused:
        return
    if expected["ip"] is not None:
        wanted = classify(expected["ip"]).parts[0]
        assert wanted.value in {part.value for part in classify(canonical).parts}


@runs("authority_normalize")
def _authority_normalize(case: Case) -> None:
    raw, expected = case["input"]["raw"], case["expected"]
    given = load([rule(case["input"]["allow"])])
    try:
        canonical: str | None = canonical_host(raw)
    except HostRefused:
        canonical = None
    if expected["canonical"] is not None:
        assert canonical == expected["canonical"]
    acceptable = canonical is not None and canonical == case.get("acceptable")
    found = allows(lambda: judge(given, url(f"https://{raw}/")))
    assert found == ("allow" if acceptable else expected["verdict"])


@runs("hostport_parse", "connect_target_parse", "proxy_authority_parse", "authority_bracket")
def _hostport_parse(case: Case) -> None:
    default = {"http": 80, "https": 443}.get(case["input"].get("scheme", ""))
    try:
        host, port = parse_authority(case["input"]["authority"], default)
    except HostRefused:
        assert case["expected"] in ("error", "deny")
        return
    assert {"host": host, "port": port} == {
        "host": case["expected"]["host"].removesuffix("."),
        "port": case["expected"]["port"],
    }


def _pattern_is_valid(text: str) -> bool:
    return not is_refused(lambda: load([{"hosts": [text]}]))


TOKEN = re.compile(r"[A-Za-z0-9_-]{20,}")


@runs("url_scan")
def _url_scan(case: Case) -> None:
    """The peer goes by the shape of a token, we go by its value: all are planted as decoys."""
    urls = [one["input"]["url"] for one in ALL if one["kind"] == "url_scan"]
    tokens = {token for text in urls for token in TOKEN.findall(text)}
    canaries = [{"id": f"c{number}", "value": token} for number, token in enumerate(tokens)]
    verdict = judge(load([rule([".com"])], canaries=canaries), url(case["input"]["url"]))
    blocked = verdict.reason is Reason.CANARY
    assert ("block" if blocked else outcome(verdict)) == case["expected"]


@runs("pattern_validate")
def _pattern_validate(case: Case) -> None:
    pattern = case["input"]["pattern"]
    assert ("valid" if _pattern_is_valid(pattern) else "invalid") in wanted(case)
    if "suggest " in case["note"]:
        with pytest.raises(PatternRefused) as refused:
            parse_pattern(pattern)
        assert refused.value.suggestion == case["note"].partition("suggest ")[2]


@runs("domain_entry_parse")
def _domain_entry_parse(case: Case) -> None:
    """What is the peer's own grammar, the importer of the peer's policies reads."""
    expected = case["expected"]
    found = import_policy(Source.AWF, case["input"]["entry"].encode(), "theirs", None)
    (imported,) = load_policy(found.text.encode(), "imported").spec.rules
    domain, protocol = expected["domain"], expected["protocol"]
    wanted = ["http", "https"] if protocol == "both" else [protocol]
    assert sorted({scheme for scheme, _ in imported.endpoints}) == wanted
    (host,) = imported.hosts  # a plain name has everything below it there
    assert host.text == (domain if domain.startswith("*.") else f".{domain}")


@runs("host_match")
def _host_match(case: Case) -> None:
    pattern, host = case["input"]["pattern"], case["input"]["host"]
    if case["input"].get("wildcard_matches_apex") and pattern.startswith("*."):
        pattern = pattern[1:]
    if "invalid_pattern" in wanted(case):
        assert not _pattern_is_valid(pattern)
        return
    try:
        parse_pattern(pattern)
    except PatternRefused as error:
        assert error.suggestion is not None  # the A-label spelling of the same name
        pattern = error.suggestion
    if case["input"].get("list") == "deny":
        given = load([rule([".com"])], [pattern])
        matched = allows(lambda: judge(given, url(f"https://{host}/"))) == "deny"
    else:
        given = load([rule([pattern])])
        matched = allows(lambda: judge(given, url(f"https://{host}/"))) == "allow"
    assert ("match" if matched else "nomatch") in wanted(case)


@runs("path_rule")
def _path_rule(case: Case) -> None:
    given_rule, asked = case["input"]["rule"], case["input"]["request"]
    given = load(
        [
            rule(
                [given_rule["host"]],
                methods=given_rule["methods"],
                paths=glob_paths(given_rule["paths"]),
                encoded_slash=True,  # the case takes `%2F` inside a segment for granted
            )
        ]
    )
    target = f"https://{given_rule['host']}{asked['target']}"
    found = allows(lambda: judge(given, url(target, asked["method"])))
    assert case["expected"] == "allow_or_deny" or found in wanted(case)


@runs("path_match")
def _path_match(case: Case) -> None:
    given = load([rule(["a.test"], paths=glob_paths([case["input"]["pattern"]]))])
    found = allows(lambda: judge(given, url(f"https://a.test{case['input']['path']}")))
    assert ("match" if found == "allow" else "nomatch") == case["expected"]


@runs("path_dot_segments")
def _path_dot_segments(case: Case) -> None:
    found = "reject" if read_path(case["input"]["path"]) is None else "ok"
    assert found == case["expected"]


@runs("url_pattern_match")
def _url_pattern_match(case: Case) -> None:
    host, _, path = case["input"]["pattern"].removeprefix("https://").partition("/")
    found = "nomatch"
    if _pattern_is_valid(host):
        given = load([rule([host], paths=glob_paths([f"/{path}"]))])
        allowed = allows(lambda: judge(given, url(case["input"]["url"]))) == "allow"
        found = "match" if allowed else "nomatch"
    assert found == case["expected"]


def _plain_policy(policy: Case) -> tuple[list[str], list[str]]:
    """Allow and deny lists; a plain name may stand for everything below it."""
    allow, deny = policy.get("allow") or [], policy.get("deny") or policy.get("block") or []
    if policy.get("plain_domain_implies_subdomains"):
        allow = [name if name.startswith("*.") else f".{name}" for name in allow]
    return allow, deny


@runs("request_decision", "protocol_restriction")
def _request_decision(case: Case) -> None:
    given = case["input"]
    if case["source"] == "iron-proxy":
        asked = given["request"]
        _, port = parse_authority(asked["host"], 443)
        policy = iron_policy(given["policy"], port)
        target = f"https://{asked['host'].partition(':')[0]}:{port}{asked['path']}"
        found = allows(lambda: judge(policy, url(target, asked["method"])))
    elif case["kind"] == "protocol_restriction":
        policy = load([rule([given["pattern"]], schemes=[given["rule_protocol"]])])
        found = allows(lambda: judge(policy, url(f"{given['request_scheme']}://{given['host']}/")))
    else:
        allow, deny = _plain_policy(given["policy"])
        policy = load([rule(allow, schemes=["http", "https"])], deny)
        target = given.get("url") or f"https://{given['host']}:{given['port']}/"
        found = allows(lambda: judge(policy, url(target)))
    assert found in wanted(case)


@runs("acl_decision")
def _acl_decision(case: Case) -> None:
    given = case["input"]
    policy = smokescreen_policy(given["policy"], given["role"])
    if given.get("via_connect", True):
        asked = connect(f"{given['host']}:443")
    else:
        asked = url(f"http://{given['host']}/")
    assert outcome(judge(policy, asked)) in wanted(case)


@runs("policy_load")
def _policy_load(case: Case) -> None:
    given = case["input"]
    if "policy" in given:
        refused = is_refused(lambda: iron_policy(given["policy"], 443))
    else:
        policy = YAML(typ="safe", pure=True).load(given["policy_yaml"])
        refused = is_refused(lambda: smokescreen_policy(policy, None))
    assert ("invalid" if refused else "valid") == case["expected"]


@runs("connect")
def _connect(case: Case) -> None:
    given = load([rule(case["input"]["allow"])])
    found = allows(lambda: judge(given, connect(case["input"]["target"])))
    assert {"allow": "tunnel"}.get(found, found) in wanted(case)


@runs("inner_host_mismatch")
def _inner_host_mismatch(case: Case) -> None:
    given = case["input"]
    head = given.get("inner_request", "")
    inner = given.get("inner_host") or head.partition("Host: ")[2].partition("\r\n")[0]
    policy = load([rule(["allowed.com", "allowed2.com", "evil.com"])])
    answer = judge_case(
        policy,
        {
            "method": "GET",
            "url": "https://allowed.com/",
            "connect": given["connect"],
            "sni": given.get("sni", "allowed.com"),
            "host_header": inner,
            "resolved": list(PUBLIC),
        },
        "p",
        NOW,
    )
    assert answer["effect"] == case["expected"]
    assert answer["reason"] == "egress.authority_mismatch"


def _status_of_a_fault(reason: Reason) -> dict[str, object]:
    return {"status": REASONS[reason].http_status, "violation": reason.short in PENALISED_WORDS}


@runs("dns_resolution")
def _dns_resolution(case: Case) -> None:
    """Which fault has which reason is shown by the resolver's own tests, `test_resolver`."""
    given = case["input"]
    if "rcode" in given:
        assert _status_of_a_fault(Reason.RESOLUTION_FAILED) == case["expected"]
        return
    if "timeout" in given:
        assert _status_of_a_fault(Reason.RESOLUTION_TIMEOUT) == case["expected"]
        return
    name = given.get("name", "a.test")
    if "answers" not in given:
        policy = load([rule(["a.test"])])
        assert isinstance(precheck(policy, url(f"https://{name}/"), NOW), Verdict)
        return
    verdict = judge(load([rule([name])]), url(f"https://{name}/"), given["answers"][0])
    if isinstance(case["expected"], dict):
        assert verdict.pinned == (case["expected"]["dial"],)
    else:
        assert outcome(verdict) == case["expected"]


@runs("resolved_set_select", "resolved_addresses")
def _resolved_set(case: Case) -> None:
    given = case["input"]
    resolved = [text.removesuffix(":443") for text in given["resolved"]]
    private = private_of(given.get("allow_ranges", []))
    policy = load([rule(["a.test"], private=private)], given.get("deny_ranges", []))
    verdict = judge(policy, url("https://a.test/"), resolved)
    if not isinstance(case["expected"], dict):
        assert outcome(verdict) == "deny" and case["expected"] in ("deny", "private_target_blocked")
    elif given.get("deny_ranges"):  # the note calls the stricter answer right: deny the whole
        assert verdict.reason.short == "host_denied"
    else:
        assert verdict.pinned[0] == case["expected"]["dial"]


@runs("dial_guard")
def _dial_guard(case: Case) -> None:
    try:
        address, port = parse_authority(case["input"]["addr"], 443)
    except HostRefused:
        assert case["expected"] == "deny"
        return
    policy = load([rule(["a.test"], ports=[port])], case["input"]["deny_ranges"])
    found = outcome(judge(policy, connect(f"a.test:{port}"), [address]))
    assert found == case["expected"]


@runs("cidr_validate")
def _cidr_validate(case: Case) -> None:
    found = "invalid" if parse_range(case["input"]["cidr"]) is None else "valid"
    assert found == case["expected"]


@runs("ipv4_literal_validate")
def _ipv4_literal_validate(case: Case) -> None:
    found = "invalid" if parse_ipv4(case["input"]["ip"]) is None else "valid"
    assert found == case["expected"]


@runs("port_spec_validate", "host_access_port_validate")
def _port_spec_validate(case: Case) -> None:
    spec = case["input"]["spec"]
    text = f"version: 1\nname: x\nrules: [{{id: r, hosts: [a.test], ports: [{spec}]}}]"
    refused = is_refused(lambda: load_policy(text.encode(), "f"))
    assert ("invalid" if refused else "valid") == case["expected"]


@runs("dangerous_port")
def _dangerous_port(case: Case) -> None:
    port = case["input"]["port"]
    assert case["expected"] == "deny"
    assert is_refused(lambda: load([{"hosts": ["a.test"], "ports": [port]}]))
    assert allows(lambda: judge(load([rule(["a.test"])]), connect(f"a.test:{port}"))) == "deny"


def _as_ours(document: Case) -> dict[str, Any]:
    """A policy in the lint cases' shorthand, word for word where we have the word."""
    names = {"host": "hosts", "cidr": "hosts"}
    rules: list[dict[str, Any]] = []
    deny: list[str] = []
    for given in document.get("rules", []):
        if given.get("action") == "deny":
            deny.append(given["host"])
            continue
        fields = {names.get(k, k): [v] if k in names else v for k, v in given.items()}
        fields.pop("action", None)
        rules.append(fields)
    tests = [
        {"profile" if k == "worker" else k: v for k, v in t.items()}
        for t in document.get("tests", [])
    ]
    top: dict[str, Any] = {"mode": document["mode"]} if "mode" in document else {}
    if tests:
        top["tests"] = [{**test, "profile": "p"} for test in tests]
    return {"rules": rules, "deny": deny, **top}


@runs("policy_lint")
def _policy_lint(case: Case) -> None:
    text = case["input"]["policy_yaml"]
    if not text.strip():
        assert is_refused(lambda: load_policy(text.encode(), "f"))
        return
    ours = _as_ours(YAML(typ="safe", pure=True).load(text))
    expected = case["expected"]
    if expected in ("error", "error_or_fix"):
        assert is_refused(lambda: load(**ours))
        return
    policy = load(**ours)
    if expected == "fix":
        assert policy.spec.rules[0].methods == ("GET",)
    else:
        assert lint(policy, NOW)
        assert expected == "warn" or outcome(judge(policy, url("https://a.com/"))) == "deny"


@runs("python_primitive_trap")
def _python_primitive_trap(case: Case) -> None:
    primitive, value = case["input"]["primitive"], case["input"]["value"]
    anything = load([rule([".com", "0.0.0.0/0", "::/0"])])
    if primitive.startswith(("ipaddress", "x in ip_network")):
        assert outcome(judge(anything, url("https://a.com/"), [value])) == "deny"
    elif primitive.startswith("socket.getaddrinfo"):
        assert allows(lambda: judge(anything, url(f"https://{value}/"))) == "deny"
    elif primitive.startswith("urllib.parse"):
        assert allows(lambda: judge(anything, url(value))) == "deny"
    elif primitive.startswith("int(x)"):
        assert is_refused(lambda: parse_authority(f"a.com:{value}", None))
    elif primitive.startswith("x.encode"):
        assert is_refused(lambda: canonical_host(value))
    elif primitive.startswith("yaml.safe_load"):
        assert is_refused(lambda: load_policy(value.encode(), "f"))
    else:
        raise AssertionError(f"no mapping for {primitive}")


@pytest.mark.skipif(not ALL, reason="the shared corpora are not here; set PALYRA_CORPORA")
@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in OURS])
def test_a_corpus_case_gets_the_right_answer(case: Case) -> None:
    assert case["kind"] in RUNNERS, f"{case['kind']} is neither run nor explained in not_ours.py"
    RUNNERS[case["kind"]](case)


@pytest.mark.skipif(not ALL, reason="the shared corpora are not here; set PALYRA_CORPORA")
def test_every_row_of_not_ours_explains_a_case() -> None:
    kinds, ids = {c["kind"] for c in ALL}, {c["id"] for c in ALL}
    assert not set(KINDS) - kinds, "rows for kinds that no case has"
    assert not set(CASES) - ids, "rows for cases that do not exist"
    assert not set(KINDS) & set(RUNNERS), "kinds that are both run and explained away"
