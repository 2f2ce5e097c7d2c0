"""Mirror of policy/document.py, policy/reader.py, strict_yaml: mistakes are told where they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.policy.document import MAX_BYTES
from palyra_egress.policy.errors import MAX_TOLD, PolicyFileError
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.schema import NOT_SUPPORTED_YET
from tests.egress.policy.policy_text import HEAD, policy

RULE = "rules:\n  - id: r\n    hosts: [a.example]\n"

REFUSED = [
    # text after version and name, line:column, code, a part of what is said
    ("colour: red\n", "3:1: unknown_key", "a policy has no key 'colour'"),
    ("rule: []\n", "3:1: unknown_key", "did you mean 'rules'?"),
    ("mode: enforced\n", "3:7: bad_value", "did you mean 'enforce'?"),
    ("mode: enforce\nmode: observe\n", "4:1: duplicate_key", "first on line 3"),
    ("rules: &x []\n", "3:8: alias", "no anchors"),
    ("rules: []\ndeny: !!seq []\n", "4:7: tag", "no tags"),
    ("rules: {}\n", "3:8: wrong_type", "expected a list of rules"),
    ("rules: [x]\n", "3:9: wrong_type", "a rule is the text 'x'"),
    ("rules: [{id: r}]\n", "3:9: missing_key", "a rule has no 'hosts'"),
    ("rules: [{hosts: [a.example]}]\n", "3:9: missing_key", "a rule has no 'id'"),
    ("rules: [{id: a b, hosts: []}]\n", "3:14: bad_value", "'id' is the text 'a b'"),
    (f"{RULE}    host: x\n", "6:5: unknown_key", "did you mean 'hosts'?"),
    (f"{RULE}    methods: [GTE]\n", "6:15: bad_value", "did you mean 'get'?"),
    (f"{RULE}    methods: [CONNECT]\n", "6:15: bad_value", "cannot be allowed"),
    (f"{RULE}    methods: [TRACE]\n", "6:15: bad_value", "cannot be allowed"),
    (f"{RULE}    methods: GET\n", "6:14: wrong_type", "a list of method names"),
    (f"{RULE}    ports: [0]\n", "6:13: bad_value", "a whole number from 1 to 65535"),
    (f"{RULE}    ports: [65536]\n", "6:13: bad_value", "from 1 to 65535"),
    (f"{RULE}    ports: [080]\n", "6:13: ambiguous_value", "080"),
    (f"{RULE}    ports: ['443']\n", "6:13: bad_value", "the text '443'"),
    (f"{RULE}    ports: [true]\n", "6:13: bad_value", "the boolean true"),
    (f"{RULE}    ports: [1-65535]\n", "6:13: bad_value", "ranges are written out"),
    (f"{RULE}    ports: [22]\n", "6:13: needs_acknowledgement", "port 22 belongs to SSH"),
    (f"{RULE}    schemes: [htps]\n", "6:15: bad_value", "did you mean 'https'?"),
    (f"{RULE}    paths: [v1/*]\n", "6:13: bad_pattern", "did you mean '/v1/*'?"),
    (f"{RULE}    paths: [/a/**/b]\n", "6:13: bad_pattern", "last segment"),
    (f"{RULE}    paths: [/a*]\n", "6:13: bad_pattern", "a whole segment"),
    (f"{RULE}    paths: [/a/../b]\n", "6:13: bad_pattern", "dot segments"),
    (f"{RULE}    private: [8.8.8.0/24]\n", "6:15: never_allowed", "public addresses"),
    (f"{RULE}    private: [169.254.169.254]\n", "6:15: never_allowed", "metadata"),
    (f"{RULE}    private: [0.0.0.0/0]\n", "6:15: never_allowed", "special-purpose"),
    (f"{RULE}    private: [10.0.0.5/24]\n", "6:15: bad_value", "host bits"),
    (f"{RULE}    until: 2027-03-31\n", "6:12: bad_value", "expected a time"),
    (f"{RULE}    until: 2027-03-31T18:00:00\n", "6:12: bad_value", "expected a time"),
    (f"{RULE}    until: 2027-02-30T18:00:00Z\n", "6:12: bad_value", "expected a time"),
    (f"{RULE}    observe: yes\n", "6:14: ambiguous_value", "yes"),
    (f"{RULE}    ports: [-_443]\n", "6:13: ambiguous_value", "-_443"),
    (f"{RULE}    owner: 1_e0\n", "6:12: ambiguous_value", "1_e0"),
    (f"{RULE}    observe: 1\n", "6:14: wrong_type", "true or false"),
    (f"{RULE}    owner: 7\n", "6:12: wrong_type", "a text"),
    (f"{RULE}    tls: tunel\n", "6:10: bad_value", "did you mean 'tunnel'?"),
    ("tls: {default: off}\n", "3:16: ambiguous_value", "off"),
    (f"{RULE}    tls: tunnel\n    methods: [GET]\n", "7:5: bad_value", "'methods' could not be"),
    (f"{RULE}    paths: [/a]\n    tls: tunnel\n", "6:5: bad_value", "`tls: inspect`, or no"),
    (f"tls: {{default: tunnel}}\n{RULE}    methods: [GET]\n", "7:5: bad_value", "not seen"),
    (f"{RULE}    tls: tunnel\n    encoded_slash: true\n", "7:5: bad_value", "'encoded_slash'"),
    (f"{RULE}    tls: tunnel\n    schemes: [http]\n", "4:5: bad_value", "no TLS to pass on"),
    (f"{RULE}    ech: true\n", "4:5: bad_value", "answers the handshake itself"),
    (f"{RULE}    missing_sni: true\n    schemes: [http]\n", "4:5: bad_value", "no https"),
    (f"{RULE}    require_sni: false\n", "6:5: not_supported_yet", "missing_sni: true"),
    (f"{RULE}    limits: {{max_response_bytes: 2GB}}\n", "6:34: bad_value", "did you mean '2GiB'?"),
    (f"{RULE}    limits: {{max_response_bytes: -1}}\n", "6:34: bad_value", "expected a size"),
    (f"{RULE}    acknowledge: [all]\n", "6:19: bad_value", "one of wide_host"),
    ("rules: [{id: r, hosts: ['*']}]\n", "3:25: bad_pattern", "matches everything"),
    ("rules: [{id: r, hosts: [.com]}]\n", "3:25: needs_acknowledgement", "wide_host"),
    ("rules: [{id: r, hosts: [mirror]}]\n", "3:25: needs_acknowledgement", "single_label"),
    ("rules: [{id: r, hosts: [no]}]\n", "3:25: ambiguous_value", "no"),
    ("rules: [{id: r, hosts: [a.b]}, {id: r, hosts: []}]\n", "3:32: duplicate_id", "line 3"),
    ("rules: [{id: r, hosts: [a.b]}]\ndeny: [{id: r, hosts: []}]\n", "4:8: duplicate_id", "line 3"),
    (f"{RULE}profiles: {{p: [rr]}}\n", "6:16: unknown_rule", "did you mean 'r'?"),
    ("profiles: {p: r}\n", "3:15: wrong_type", "a list of rule ids"),
    ("violations: {quarantine: [dns]}\n", "3:27: bad_value", "no reason is called 'dns'"),
    ("violations: {quarantine: [private]}\n", "3:27: bad_value", "'private_target'"),
    (f'{RULE}    owner: "a\\e[31m"\n', "6:12: bad_value", "U+001B"),
    (f'{RULE}    reason: "a\\u202eb"\n', "6:13: bad_value", "U+202E"),
    ("violations: {quarantine: [resolution_failed]}\n", "3:27: no_consequence", "infra"),
    ("violations: {quarantine: [host_malformed]}\n", "3:27: no_consequence", "client"),
    ("violations: {strike: {on: [], limit: 1}}\n", "3:22: missing_key", "'window'"),
    ("violations: {strike: {on: [], limit: 0, window: 1m}}\n", "3:38: bad_value", "from 1"),
    ("violations: {strike: {on: [], limit: 1, window: 1d}}\n", "3:49: bad_value", "10m"),
    ("limits: {requests_per_minute: 0}\n", "3:31: bad_value", "from 1"),
    (
        "tests: [{profile: q, request: GET https://a.b/, expect: allow}]\n",
        "3:9: unknown_profile",
        "'q'",
    ),
    (
        "tests: [{profile: p, request: GET, expect: allow}]\n",
        "3:31: bad_value",
        "CONNECT host:port",
    ),
    (
        "tests: [{profile: p, request: GET https://a.b/, expect: maybe}]\n",
        "3:57: bad_value",
        "deny",
    ),
    (
        "tests: [{profile: p, request: GET https://a.b/, expect: deny hots}]\n",
        "3:57: bad_value",
        "hots",
    ),
    ("a: [\n", "4:1: syntax", "expected YAML 1.2"),
    ("---\n", "3:1: syntax", "a second document"),
]


def _problems(source: bytes) -> list[str]:
    with pytest.raises(PolicyFileError) as refused:
        load_policy(source, "f")
    return str(refused.value).splitlines()


@pytest.mark.parametrize(("text", "place", "words"), REFUSED)
def test_a_mistake_is_told_with_its_place(text: str, place: str, words: str) -> None:
    problems = _problems(f"{HEAD}{text}".encode())
    assert any(line.startswith(f"f:{place}") and words in line for line in problems), problems


@pytest.mark.parametrize("word", sorted(NOT_SUPPORTED_YET["rule"]))
def test_a_field_of_a_rule_that_is_not_enforced_is_refused(word: str) -> None:
    problems = _problems(f"{HEAD}{RULE}    {word}: []\n".encode())
    assert [line.split(": ")[1] for line in problems] == ["not_supported_yet"]


@pytest.mark.parametrize("word", sorted(NOT_SUPPORTED_YET["limits"]))
def test_a_budget_of_a_rule_that_is_not_enforced_is_refused(word: str) -> None:
    problems = _problems(f"{HEAD}{RULE}    limits: {{{word}: 1}}\n".encode())
    assert [line.split(": ")[1] for line in problems] == ["not_supported_yet"]


@pytest.mark.parametrize("word", sorted(NOT_SUPPORTED_YET["top"]))
def test_a_field_of_the_file_that_is_not_enforced_is_refused(word: str) -> None:
    problems = _problems(f"{HEAD}{word}: []\n".encode())
    assert [line.split(": ")[1] for line in problems] == ["not_supported_yet"]


def test_every_mistake_is_told_at_once_in_the_order_of_the_file() -> None:
    problems = _problems(b"version: 2\nname: a b\nmode: x\nrules: [{id: r, hosts: ['*']}]\n")
    assert [line.split(":")[1] for line in problems] == ["1", "2", "3", "4"]


@pytest.mark.parametrize(
    ("source", "code"),
    [
        (b"", "empty"),
        (b"# nothing but a comment\n", "empty"),
        (b"[]\n", "wrong_type"),
        (b"text\n", "wrong_type"),
        (b"\xff\xfe", "not_utf8"),
        (b"name: \x00\n", "syntax"),
        (b"%YAML 1.1\n---\nversion: 1\nname: x\n", "syntax"),
        (b"a: &a [x]\nb: [*a, *a]\n", "alias"),
        (b"[" * 100, "syntax"),
        (b"x" * (MAX_BYTES + 1), "too_large"),
        (b"<<: {version: 1}\nname: x\n", "unknown_key"),
        (b"version: '1'\nname: x\n", "bad_value"),
        (b"version: true\nname: x\n", "bad_value"),
        (b"name: x\n", "missing_key"),
        (b"version: 1\n", "missing_key"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(source: bytes, code: str) -> None:
    assert any(f": {code}: " in line for line in _problems(source))


def test_methods_are_written_in_upper_case_whatever_the_file_says() -> None:
    given_policy = policy(f"{RULE}    methods: [get, Post]\nprofiles: {{p: [r]}}\n")
    assert given_policy.spec.rules[0].methods == ("GET", "POST")


def test_an_acknowledged_danger_is_accepted() -> None:
    given_policy = policy(
        "rules:\n"
        "  - id: r\n"
        "    hosts: [.com, mirror, 0.0.0.0/0]\n"
        "    ports: [22]\n"
        "    acknowledge: [wide_host, single_label, service_port]\n"
    )
    assert len(given_policy.spec.rules[0].hosts) == 3


def test_a_failing_test_refuses_the_file() -> None:
    text = (
        f"{RULE}profiles: {{p: [r]}}\n"
        "tests:\n  - {profile: p, request: GET https://b.example/, expect: allow}\n"
    )
    problems = _problems(f"{HEAD}{text}".encode())
    assert problems == [
        "f:8:5: test_failed: GET https://b.example/ gives deny host_not_allowed; expected allow"
    ]


def test_the_digest_is_that_of_the_bytes() -> None:
    first, second = policy(RULE), policy(f"{RULE}# a comment\n")
    assert first.digest != second.digest and len(first.digest) == 64


@given(st.binary(max_size=300))
def test_no_bytes_break_the_reader(source: bytes) -> None:
    with pytest.raises(PolicyFileError):
        load_policy(source, "f")


@given(st.text(alphabet="abrules:{}[]-'\"#&*!|>%@`,? \n\t1~", max_size=120))
def test_no_yaml_like_text_breaks_the_reader(text: str) -> None:
    try:
        load_policy(f"{HEAD}{text}".encode(), "f")
    except PolicyFileError as error:
        assert error.problems


UNSEEN = ["\r", "\x85", "\u2028", "\u2029", "\u202e", "\u2066", "\u200f", "\ufeff"]


@pytest.mark.parametrize("sign", UNSEEN)
def test_a_comment_holds_no_sign_that_a_reviewer_does_not_see(sign: str) -> None:
    hidden = f"{HEAD}rules:\n  - id: r\n    hosts: [a.example, # ours{sign} b.example,\n      ]\n"
    (problem,) = _problems(hidden.encode())
    assert problem.startswith(f"f:5:30: hidden_sign: the sign U+{ord(sign):04X}")


def test_line_ends_of_other_systems_and_a_mark_in_front_are_no_hidden_signs() -> None:
    text = f"\ufeff{HEAD}rules: []\n".replace("\n", "\r\n")
    assert load_policy(text.encode(), "f").name == "test"


ONE_SLIP = [
    "rules: [{id: r, hsots: [a.example]}]\nprofiles: {p: [r]}\n",
    "rules: [{ids: r, hosts: [a.example]}]\nprofiles: {p: [r]}\n",
    "rule: [{id: r, hosts: [a.example]}]\nprofiles: {p: [r]}\n",
    "profile: {p: []}\ntests: [{profile: p, request: GET https://a.b/, expect: deny}]\n",
    "profiles: {p: []}\ntests: [{profil: p, request: GET https://a.b/, expect: deny}]\n",
    "profiles: {p: []}\ntests: [{profile: p, requst: GET https://a.b/, expect: deny}]\n",
]


@pytest.mark.parametrize("text", ONE_SLIP)
def test_one_misspelt_key_is_one_problem(text: str) -> None:
    (problem,) = _problems(f"{HEAD}{text}".encode())
    assert ": unknown_key: " in problem and "; did you mean " in problem


def test_a_log_gets_the_first_problems_and_how_many_more_there_are() -> None:
    text = f"{HEAD}rules: [{', '.join('7' for _ in range(MAX_TOLD + 5))}]\n"
    lines = _problems(text.encode())
    assert (len(lines), lines[-1]) == (MAX_TOLD + 1, "and 5 more problems")
    with pytest.raises(PolicyFileError) as refused:
        load_policy(text.encode(), "f")
    assert len(refused.value.problems) == MAX_TOLD + 5
