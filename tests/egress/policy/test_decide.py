"""Mirror of policy/decide.py and policy/match.py: every refusal, and the order between them."""

import pytest

from palyra_egress.policy.decide import decide, precheck
from palyra_egress.policy.fingerprint import fingerprint
from palyra_egress.reasons import Reason
from palyra_egress.request import CanonicalHost, EgressRequest, Requester, RequestKind
from palyra_egress.verdict import Consequence, Effect, Limits, NeedsResolution, Verdict
from tests.egress.policy.policy_text import ASKER, PUBLIC, ask, policy, request, rules, short

API = "hosts: [api.example], methods: [GET, POST], paths: [/v1/**, /health]"

BASIC = [
    ("GET https://api.example/v1/chat", "allow"),
    ("POST https://API.example.:443/v1", "allow"),
    ("GET https://api.example/health?x=1", "allow"),
    ("CONNECT api.example:443", "allow"),
    ("GET https://api.example/v2", "path_not_allowed"),
    ("GET https://api.example/V1/chat", "path_not_allowed"),
    ("DELETE https://api.example/v1/chat", "method_not_allowed"),
    ("get https://api.example/v1/chat", "method_not_allowed"),
    ("GE(T https://api.example/v1/chat", "method_malformed"),
    ("GET https://api.example:8443/v1/chat", "port_not_allowed"),
    ("CONNECT api.example:8443", "port_not_allowed"),
    ("CONNECT api.example:80", "port_not_allowed"),
    ("GET http://api.example/v1/chat", "scheme_not_allowed"),
    ("GET https://other.example/v1/chat", "host_not_allowed"),
    ("GET https://x.api.example/v1/chat", "host_not_allowed"),
    ("CONNECT other.example:443", "host_not_allowed"),
    ("GET https://8.8.8.8/", "host_not_allowed"),
    ("GET https://10.0.0.1/", "private_target"),
    ("CONNECT 127.0.0.1:443", "private_target"),
    ("CONNECT [::1]:443", "private_target"),
    ("GET http://169.254.169.254/latest/meta-data/", "metadata_target"),
    ("CONNECT [::ffff:169.254.169.254]:80", "metadata_target"),
    ("CONNECT [64:ff9b::a9fe:a9fe]:443", "metadata_target"),
    ("GET http://168.63.129.16/", "metadata_target"),
    ("GET http://224.0.0.1/", "private_target"),
    ("GET http://0.0.0.0/", "private_target"),
]

MALFORMED_PATHS = [
    "/v1/../admin",
    "/v1/./x",
    "/v1/..",
    "/..",
    "/v1/%2e%2e/admin",
    "/v1/.%2E/admin",
    "/v1/file%2etxt",
    "/v1/..%2fadmin",
    "/v1/x%2fy",
    "/v1/x%5cy",
    "/v1/%252e%252e/admin",
    "/v1/%25%32%65",
    "/v1/..;/admin",
    "/v1/..%3b/admin",
    "/v1/..;x=1/admin",
    "/v1/..%20/admin",
    "/v1/%20../admin",
    "/v1/%20..%20;x/admin",
    "/v1//x",
    "/v1/%",
    "/v1/%4",
    "/v1/%zz",
    "/v1/%00",
    "/v1/%0a",
    "/v1/%ff",
    "/v1/%c0%ae%c0%ae/admin",
    "/v1/%ef%bc%8e%ef%bc%8e/admin",
    "/v1/%ef%bc%8fadmin",
    "/v1/\u00e9",
    "/v1/ x",
    "/v1/x\\y",
    "/v1/x?y",
    "/v1/x#y",
    "v1",
    "",
    "*",
]


@pytest.mark.parametrize(("asked", "expected"), BASIC)
def test_each_condition_of_a_rule_refuses_on_its_own(asked: str, expected: str) -> None:
    assert short(ask(rules(API), asked)) == expected


@pytest.mark.parametrize("path", MALFORMED_PATHS)
def test_a_path_that_two_servers_may_read_differently_is_malformed(path: str) -> None:
    asked = EgressRequest(
        RequestKind.REQUEST, "GET", "https", CanonicalHost("api.example"), 443, path, "", ASKER
    )
    for given in (rules(API), rules("hosts: [api.example]")):
        assert decide(given, asked, PUBLIC, 0).reason is Reason.PATH_MALFORMED


@pytest.mark.parametrize(
    "path",
    [
        "/v1/a.b",
        "/v1/..a",
        "/v1/.hidden",
        "/v1/%c3%a9",
        "/%76%31/x",
        "/v1/a;b=c",
        "/v1/50%25",
        "/v1/",
    ],
)
def test_an_unambiguous_path_is_compared_in_its_one_form(path: str) -> None:
    assert short(ask(rules(API), f"GET https://api.example{path}")) == "allow"


@pytest.mark.parametrize(
    ("paths", "path", "expected"),
    [
        ("/o/**", "/o/dir%2Fsub%2Ffile", "allow"),
        ("/o/*", "/o/dir%2Fsub", "path_not_allowed"),  # two segments to a server that decodes
        ("/o/*/*", "/o/dir%2Fsub", "path_not_allowed"),  # one segment to a server that does not
        ("/o/**", "/o/..%2Fsecret", "path_malformed"),
        ("/o/**", "/o%2F..%2Fsecret", "path_malformed"),
        ("/o/**", "/o%2Fx", "path_not_allowed"),
    ],
)
def test_an_encoded_slash_must_match_in_both_readings(paths: str, path: str, expected: str) -> None:
    given = rules(f"hosts: [api.example], encoded_slash: true, paths: [{paths}]")
    assert short(ask(given, f"GET https://api.example{path}")) == expected


@pytest.mark.parametrize(
    "field",
    [
        "hosts: []",
        "hosts: [a.example], methods: []",
        "hosts: [a.example], paths: []",
        "hosts: [a.example], ports: []",
        "hosts: [a.example], schemes: []",
    ],
)
def test_an_empty_list_allows_nothing(field: str) -> None:
    for asked in ("GET https://a.example/", "CONNECT a.example:443", "GET http://a.example/"):
        assert short(ask(rules(field), asked)) != "allow"


@pytest.mark.parametrize("text", ["", "rules: []\n", "profiles: {p: []}\n", "profiles: {}\n"])
def test_a_policy_without_rules_allows_nothing(text: str) -> None:
    assert ask(policy(text), "GET https://a.example/").effect is Effect.DENY


def test_a_rule_without_methods_allows_reading_only() -> None:
    given = rules("hosts: [a.example]")
    assert short(ask(given, "GET https://a.example/")) == "allow"
    assert short(ask(given, "HEAD https://a.example/")) == "allow"
    assert short(ask(given, "OPTIONS https://a.example/")) == "method_not_allowed"
    assert short(ask(given, "POST https://a.example/")) == "method_not_allowed"


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ("schemes: [http]", {"http:80"}),
        ("schemes: [http, https]", {"http:80", "https:443"}),
        ("ports: [8443]", {"https:8443"}),
        (
            "schemes: [http, https], ports: [80, 443, 8080]",
            {"http:80", "https:443"} | {"http:8080", "https:8080"},
        ),
        ("ports: [80]", {"https:80"}),
    ],
)
def test_ports_and_schemes_open_exactly_these_endpoints(fields: str, allowed: set[str]) -> None:
    given = rules(f"hosts: [a.example], {fields}")
    for scheme in ("http", "https"):
        for port in (80, 443, 8080, 8443):
            verdict = ask(given, f"GET {scheme}://a.example:{port}/")
            assert verdict.allowed is (f"{scheme}:{port}" in allowed)
            tunnel = ask(given, f"CONNECT a.example:{port}")
            assert tunnel.allowed is (f"https:{port}" in allowed)


def test_the_order_of_the_file_plays_no_part() -> None:
    wide = "hosts: [.t.example], limits: {max_response_bytes: 1}"
    narrow = "hosts: [a.t.example], limits: {max_response_bytes: 2}"
    for given in (rules(wide, narrow), rules(narrow, wide)):
        assert ask(given, "GET https://a.t.example/").limits.max_response_bytes == 2
        assert ask(given, "GET https://b.t.example/").limits.max_response_bytes == 1


def test_the_more_specific_path_decides() -> None:
    items = [
        f"hosts: [a.example], paths: [{path}], limits: {{max_response_bytes: {size}}}"
        for size, path in enumerate(["/a/b", "/a/*", "/a/**", "/**"], start=1)
    ]
    items.append("hosts: [a.example], limits: {max_response_bytes: 5}")
    for given in (rules(*items), rules(*reversed(items))):
        for size, path in enumerate(["/a/b", "/a/c", "/a/c/d", "/x"], start=1):
            limits = ask(given, f"GET https://a.example{path}").limits
            assert limits.max_response_bytes == size


def test_a_less_specific_rule_allows_what_a_more_specific_one_does_not() -> None:
    given = rules("hosts: [.t.example]", "hosts: [a.t.example], methods: [POST], paths: [/x]")
    assert ask(given, "GET https://a.t.example/y").rule_id == "r0"
    assert ask(given, "POST https://a.t.example/x").rule_id == "r1"
    assert short(ask(given, "POST https://a.t.example/y")) == "path_not_allowed"


def test_deny_beats_allow() -> None:
    more = "deny: [{id: d, hosts: [.b.example, 203.0.114.0/24], reason: exfiltration}]\n"
    given = rules("hosts: [a.b.example, c.example, 203.0.114.9]", more=more)
    for asked in (
        "GET https://a.b.example/",
        "CONNECT a.b.example:443",
        "GET https://203.0.114.9/",
    ):
        verdict = ask(given, asked)
        assert (short(verdict), verdict.rule_id, verdict.line) == ("host_denied", "d", 6)
    assert short(ask(given, "GET https://c.example/", ["198.41.0.4"])) == "allow"
    assert short(ask(given, "GET https://c.example/", ["203.0.114.7"])) == "host_denied"
    assert short(ask(given, "GET https://c.example/", ["64:ff9b::203.0.114.7"])) == "host_denied"


ANSWERS = [
    (["198.41.0.4", "2606:4700::1"], "allow"),
    (["10.20.0.1"], "allow"),
    (["10.20.0.1", "198.41.0.4"], "allow"),
    (["::ffff:10.20.0.1"], "allow"),
    ([], "resolution_empty"),
    (["10.21.0.1"], "private_target"),
    (["10.20.0.1", "10.21.0.1"], "private_target"),
    (["198.41.0.4", "10.21.0.1"], "mixed_answer"),
    (["198.41.0.4", "127.0.0.1"], "mixed_answer"),
    (["198.41.0.4", "169.254.169.254"], "metadata_target"),
    (["64:ff9b::a9fe:a9fe"], "metadata_target"),
    (["fd00:ec2::254"], "metadata_target"),
    (["2002:a14:1::"], "private_target"),  # 6to4 of 10.20.0.1: the tunnel itself is not covered
    (["224.0.0.1"], "private_target"),
    (["not an address"], "resolution_failed"),
    (["fe80::1%eth0"], "resolution_failed"),
    (["not an address", "169.254.169.254"], "metadata_target"),
]


@pytest.mark.parametrize(("addresses", "expected"), ANSWERS)
def test_every_address_of_an_answer_must_pass(addresses: list[str], expected: str) -> None:
    given = rules("hosts: [a.example], private: [10.20.0.0/16]")
    verdict = ask(given, "GET https://a.example/", addresses)
    assert short(verdict) == expected
    assert verdict.pinned == (tuple(addresses) if expected == "allow" else ())


def test_private_ranges_hold_for_their_own_rule_only() -> None:
    given = rules("hosts: [a.example], private: [10.20.0.0/16]", "hosts: [b.example]")
    assert short(ask(given, "GET https://b.example/", ["10.20.0.1"])) == "private_target"


def test_a_less_specific_rule_may_cover_the_private_address() -> None:
    given = rules("hosts: [a.t.example]", "hosts: [.t.example], private: [10.20.0.0/16]")
    verdict = ask(given, "GET https://a.t.example/", ["10.20.0.1"])
    assert (short(verdict), verdict.rule_id) == ("allow", "r1")


def test_an_ip_literal_is_never_resolved_and_pins_only_itself() -> None:
    given = rules("hosts: [8.8.8.8, 10.20.0.0/16], private: [10.20.0.0/16]")
    for host in ("8.8.8.8", "10.20.3.4"):
        asked = request(f"GET https://{host}/")
        first = precheck(given, asked, 0)
        assert isinstance(first, Verdict) and first.pinned == (host,)
        assert decide(given, asked, ["10.20.9.9", "1.1.1.1"], 0).pinned == (host,)
    assert short(ask(given, "GET https://10.21.0.1/")) == "private_target"
    assert short(ask(given, "POST https://10.20.0.1/")) == "method_not_allowed"


def test_a_private_literal_needs_both_the_host_and_the_permission() -> None:
    assert short(ask(rules("hosts: [10.0.0.1]"), "GET https://10.0.0.1/")) == "private_target"


def test_a_refused_name_is_never_resolved() -> None:
    given = rules(API)
    for asked, expected in BASIC:
        first = precheck(given, request(asked), 0)
        is_name = expected == "allow"
        assert isinstance(first, NeedsResolution) is is_name


def test_our_own_listeners_are_never_targets() -> None:
    given = rules("hosts: [a.example, 127.0.0.1], ports: [8080], private: [127.0.0.0/8]")
    mine = frozenset({("127.0.0.1", 8080), ("203.0.114.5", 8080)})
    asked = "GET https://a.example:8080/"
    for address in ("127.0.0.1", "::ffff:127.0.0.1", "203.0.114.5"):
        assert short(ask(given, asked, [address], forbidden=mine)) == "proxy_target"
    assert short(ask(given, asked, ["127.0.0.2"], forbidden=mine)) == "allow"
    assert short(ask(given, "GET https://127.0.0.1:8080/", forbidden=mine)) == "proxy_target"
    everywhere = frozenset({("0.0.0.0", 8080)})
    assert short(ask(given, asked, ["127.0.0.2"], forbidden=everywhere)) == "proxy_target"


def test_a_rule_is_gone_at_its_until() -> None:
    given = rules("hosts: [a.example], until: 1970-01-01T00:00:10Z")
    assert short(ask(given, "GET https://a.example/", now=9_999)) == "allow"
    assert short(ask(given, "GET https://a.example/", now=10_000)) == "rule_expired"
    assert short(ask(given, "CONNECT a.example:443", now=10_000)) == "rule_expired"


def test_an_expired_rule_steps_aside_for_a_live_one() -> None:
    given = rules("hosts: [a.t.example], until: 1970-01-01T00:00:10Z", "hosts: [.t.example]")
    assert ask(given, "GET https://a.t.example/", now=20_000).rule_id == "r1"


def test_a_zero_budget_allows_nothing() -> None:
    given = rules("hosts: [a.example], limits: {max_response_bytes: 0}")
    assert short(ask(given, "GET https://a.example/")) == "budget_zero"


def test_rates_are_the_rules_own_and_not_the_files() -> None:
    more = "limits: {requests_per_minute: 600}\n"
    own = "limits: {requests_per_minute: 5, bytes_per_hour: 1KiB}"
    given = rules(f"hosts: [a.example], {own}", "hosts: [b.example]", more=more)
    assert ask(given, "GET https://a.example/").limits == Limits(None, None, 5, 1024)
    assert ask(given, "GET https://b.example/").limits == Limits()
    assert [rate.limits.requests_per_minute for rate in given.rates] == [600]


def test_limits_of_a_rule_replace_those_of_the_file_one_by_one() -> None:
    more = "limits: {max_request_bytes: 1KiB, max_response_bytes: 2KiB}\n"
    given = rules("hosts: [a.example], limits: {max_response_bytes: 3KiB}", more=more)
    assert ask(given, "GET https://a.example/").limits == Limits(1024, 3072)
    assert ask(given, "CONNECT a.example:443").limits == Limits()


def test_a_profile_that_nobody_wrote_has_no_rules() -> None:
    asked = request("GET https://api.example/v1/x", Requester("w", "l", "nobody"))
    assert decide(rules(API), asked, PUBLIC, 0).reason is Reason.PROFILE_UNKNOWN
    tempted = request("GET http://169.254.169.254/", Requester("w", "l", "nobody"))
    assert decide(rules(API), tempted, PUBLIC, 0).reason is Reason.METADATA_TARGET


OBSERVED = [
    ("GET https://other.example/", "host_not_allowed"),
    ("DELETE https://api.example/v1/x", "method_not_allowed"),
    ("GET https://api.example/x", "path_not_allowed"),
    ("GET https://bad.example/", "host_denied"),
    ("CONNECT api.example:8443", "port_not_allowed"),
]


@pytest.mark.parametrize(("asked", "reason"), OBSERVED)
def test_observe_mode_lets_policy_refusals_pass_and_says_so(asked: str, reason: str) -> None:
    more = "mode: observe\ndeny: [{id: d, hosts: [bad.example]}]\n"
    verdict = ask(rules(API, more=more), asked)
    assert verdict.allowed and verdict.reason is Reason.OBSERVED and verdict.pinned == PUBLIC
    assert verdict.would_deny is not None and verdict.would_deny.short == reason
    assert verdict.consequence is Consequence.NONE


@pytest.mark.parametrize(
    ("asked", "resolved", "reason"),
    [
        ("GET http://169.254.169.254/", PUBLIC, "metadata_target"),
        ("GET http://10.0.0.1/", PUBLIC, "private_target"),
        ("GET https://other.example/", ["10.0.0.1"], "private_target"),
        ("GET https://other.example/", ["10.0.0.1", *PUBLIC], "mixed_answer"),
        ("GET https://api.example/v1/../x", PUBLIC, "path_malformed"),
    ],
)
def test_observe_mode_never_lets_a_threat_pass(
    asked: str, resolved: list[str], reason: str
) -> None:
    assert short(ask(rules(API, more="mode: observe\n"), asked, resolved)) == reason


def test_a_rule_that_observes_lets_its_own_hosts_pass_and_no_others() -> None:
    given = rules("hosts: [a.example], observe: true", "hosts: [b.example]")
    seen = ask(given, "POST https://a.example/")
    assert seen.allowed and seen.would_deny is Reason.METHOD_NOT_ALLOWED and seen.rule_id == "r0"
    assert short(ask(given, "POST https://b.example/")) == "method_not_allowed"
    assert ask(given, "GET https://a.example/").reason is Reason.ALLOWED


def test_violations_say_what_a_refusal_costs() -> None:
    more = (
        "violations:\n  quarantine: [private_target]\n"
        "  strike: {on: [host_not_allowed, private_target], limit: 3, window: 2m}\n"
    )
    given = rules(API, more=more)
    assert ask(given, "GET https://10.0.0.1/").consequence is Consequence.QUARANTINE
    strike = ask(given, "GET https://other.example/")
    assert strike.consequence is Consequence.STRIKE
    assert (strike.strike_limit, strike.strike_window_ms) == (3, 120_000)
    assert ask(given, "GET https://api.example/no").consequence is Consequence.NONE


def test_a_refusal_names_the_nearest_rule_and_its_line() -> None:
    verdict = ask(rules(API), "GET https://api.example/no")
    assert (verdict.rule_id, verdict.line, verdict.policy_file) == ("r0", 4, "test.yaml")


def test_the_fingerprint_changes_with_every_field_and_only_with_them() -> None:
    asked = request("GET https://api.example/v1/x?a=1")
    base = fingerprint(asked, "d")
    others = [
        fingerprint(request("POST https://api.example/v1/x?a=1"), "d"),
        fingerprint(request("GET https://api.example/v1/x?a=2"), "d"),
        fingerprint(request("GET https://api.example/v1/xa=1"), "d"),
        fingerprint(request("GET https://api.example:444/v1/x?a=1"), "d"),
        fingerprint(
            request("GET https://api.example/v1/x?a=1", Requester("w", "lease-1", "p")), "d"
        ),
        fingerprint(
            request("GET https://api.example/v1/x?a=1", Requester("worker-1", "l", "p")), "d"
        ),
        fingerprint(asked, "e"),
    ]
    assert len({base, *others}) == len(others) + 1
    assert base == fingerprint(request("GET https://API.example/v1/x?a=1"), "d")
    assert len(base) == 64 and int(base, 16) >= 0
