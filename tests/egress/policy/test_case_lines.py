"""Mirror of policy/case_lines.py: every line gets one answer, and none says more than it knows."""

import io
import json
from typing import Any

import pytest

from palyra_egress.policy.case_lines import MAX_LINE, Answer, judge_line, read_lines
from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.load import load_policy

NOW = 1_795_000_000_000
GOOD: dict[str, Any] = {
    "id": 7,
    "method": "GET",
    "url": "https://a.test/x",
    "resolved": ["203.0.114.1"],
}
ALLOWED = ("egress.allowed", "a.test", 443)
DEEP = {"method": "CONNECT", "url": "b.test:8443"}


@pytest.fixture(scope="module")
def policy() -> CompiledPolicy:
    return load_policy(
        b"version: 1\nname: x\nrules:\n"
        b"  - {id: r, hosts: [a.test], schemes: [http, https]}\n"
        b"  - {id: deep, hosts: [b.test], ports: [8443]}\n"
        b"  - {id: net, hosts: [203.0.114.0/24, '2001:4860::/32']}\n"
        b"profiles: {p: [r, deep, net]}\n",
        "f",
    )


def ask(policy: CompiledPolicy, **changes: Any) -> Answer:
    line = json.dumps({**GOOD, **changes}).encode()
    return judge_line(policy, line, "p", NOW)


def told(answer: Answer) -> tuple[object, object, object]:
    return answer["reason"], answer["canonical_host"], answer["port"]


def test_an_answer_has_what_was_promised_and_nothing_is_left_out(policy: CompiledPolicy) -> None:
    assert ask(policy) == {
        "id": 7,
        "effect": "allow",
        "reason": "egress.allowed",
        "class": "allowed",
        "rule": "r",
        "line": 4,
        "canonical_host": "a.test",
        "port": 443,
        "pinned": ["203.0.114.1"],
        "tls": "inspect",
    }


NOT_CASES = {
    "nothing": b"",
    "no JSON": b"{",
    "no object": b"[]",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8, though only in the id": b'{"id": "\xff", "method": "GET", "url": "https://a.test/"}',
    "a key twice": b'{"method": "GET", "url": "https://b.test/", "url": "https://a.test/"}',
    "a fact twice": b'{"method": "GET", "url": "https://a.test/", "facts": {"x": 1, "x": 2}}',
    "an id that JSON does not have": b'{"id": NaN, "method": "GET", "url": "https://a.test/"}',
    "an id beyond every number": b'{"id": 1e999, "method": "GET", "url": "https://a.test/"}',
    "an id without end": b'{"id": ' + b"[" * 900 + b"]" * 900 + b"}",
    "nesting without end": b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a number of five thousand digits": b'{"id": ' + b"9" * 5000 + b"}",
    "a line that is too long": b'{"url": "' + b"a" * MAX_LINE + b'"}',
}


@pytest.mark.parametrize("name", NOT_CASES)
def test_what_is_no_case_is_refused_without_an_id(policy: CompiledPolicy, name: str) -> None:
    answer = judge_line(policy, NOT_CASES[name], "p", NOW)
    assert (answer["id"], answer["effect"]) == (None, "deny")
    assert told(answer) == ("egress.request_malformed", None, None)
    assert len(json.dumps(answer, allow_nan=False)) < 500


@pytest.mark.parametrize("case_id", [None, 0, -1.5, True, "", "\ud800", ["a", {"b": 1}]])
def test_an_id_comes_back_as_it_was(policy: CompiledPolicy, case_id: object) -> None:
    answer = json.loads(json.dumps(ask(policy, id=case_id), allow_nan=False))
    assert answer["id"] == case_id
    assert told(answer) == ALLOWED


@pytest.mark.parametrize(
    "name", ["method", "url", "profile", "connect", "sni", "host_header", "authority"]
)
@pytest.mark.parametrize("value", [1, True, [], {}])
def test_what_should_be_text_is_text(policy: CompiledPolicy, name: str, value: object) -> None:
    answer = ask(policy, **{name: value})
    assert answer["reason"] == "egress.request_malformed"
    assert answer["detail"] == f"{name} is not a text"


OTHER_TYPES: list[tuple[str, object]] = [
    *(("ech", value) for value in (0, 1, "", "yes", [], {})),
    *(("facts", value) for value in (0, "", [], False)),
    *(("resolved", value) for value in (0, "", "203.0.114.1", {}, [1], [None], [["203.0.114.1"]])),
    ("nobody_knows_this", None),
]


@pytest.mark.parametrize(("name", "value"), OTHER_TYPES)
def test_what_has_another_type_or_name_is_refused(
    policy: CompiledPolicy, name: str, value: object
) -> None:
    assert ask(policy, **{name: value})["reason"] == "egress.request_malformed"


@pytest.mark.parametrize(
    "name", ["profile", "connect", "host_header", "authority", "http_version", "facts", "ech"]
)
def test_null_is_as_good_as_absent(policy: CompiledPolicy, name: str) -> None:
    assert told(ask(policy, **{name: None})) == ALLOWED


AGREEMENT: list[tuple[dict[str, Any], str]] = [
    ({"connect": "A.TEST.:443", "sni": "a.test", "host_header": "a.test"}, "allowed"),
    ({"authority": "a.test:443", "http_version": "HTTP/2"}, "allowed"),
    ({"connect": "b.test:443"}, "authority_mismatch"),
    ({"connect": "a.test:8443"}, "authority_mismatch"),
    ({"connect": "a.test"}, "port_missing"),
    ({"connect": ""}, "host_missing"),
    ({"sni": "b.test"}, "authority_mismatch"),
    ({"sni": "a.test:443"}, "authority_mismatch"),
    ({"sni": ""}, "sni_missing"),
    ({"sni": None}, "sni_missing"),
    ({"host_header": "b.test"}, "authority_mismatch"),
    ({"host_header": "a.test:80"}, "authority_mismatch"),
    ({"host_header": "a.test, b.test"}, "host_malformed"),
    ({"authority": "a.test@b.test"}, "url_credentials"),
    ({"http_version": "HTTP/3"}, "protocol_not_supported"),
    ({"http_version": ""}, "protocol_not_supported"),
    ({"url": "http://a.test/", "http_version": "HTTP/2"}, "protocol_not_supported"),
    ({**DEEP, "http_version": "2"}, "protocol_not_supported"),
    # plain http: no tunnel and no handshake
    ({"url": "http://a.test/", "sni": None}, "allowed"),
    ({"url": "http://a.test/", "sni": "b.test"}, "authority_mismatch"),
    ({"url": "http://a.test/", "connect": "a.test:80"}, "non_http_in_tunnel"),
    # an address is named in no handshake
    ({"url": "https://203.0.114.9/", "sni": None}, "allowed"),
    ({"url": "https://203.0.114.9/", "sni": ""}, "allowed"),
    ({"url": "https://203.0.114.9/", "sni": "203.0.114.9"}, "authority_mismatch"),
    ({"url": "https://[2001:4860::1]/", "sni": None, "host_header": "[2001:4860::1]"}, "allowed"),
    # CONNECT: a Host without a port is the port that was asked for
    ({"method": "CONNECT", "url": "b.test:8443", "host_header": "b.test"}, "allowed"),
    (
        {"method": "CONNECT", "url": "b.test:8443", "host_header": "b.test:443"},
        "authority_mismatch",
    ),
]


@pytest.mark.parametrize(("changes", "reason"), AGREEMENT)
def test_everything_that_is_given_must_agree(
    policy: CompiledPolicy, changes: dict[str, Any], reason: str
) -> None:
    answer = ask(policy, **changes)
    assert answer["reason"] == f"egress.{reason}"
    assert answer["canonical_host"] is not None, "the URL could be read"


ANSWERS: list[tuple[list[str], str, list[str]]] = [
    (["203.0.114.1", "203.0.114.1"], "allowed", ["203.0.114.1"]),
    (["2001:4860:0::1"], "allowed", ["2001:4860::1"]),
    (["::ffff:203.0.114.1"], "allowed", ["::ffff:203.0.114.1"]),
    (["64:ff9b::cb00:7201"], "allowed", ["64:ff9b::cb00:7201"]),
    (["203.0.114.1", "10.0.0.1"], "mixed_answer", []),
    (["203.0.114.1", "::ffff:10.0.0.1"], "mixed_answer", []),
    (["203.0.114.1", "64:ff9b::a00:1"], "mixed_answer", []),
    (["203.0.114.1", "169.254.169.254"], "metadata_target", []),
    (["::ffff:169.254.169.254"], "metadata_target", []),
    (["10.0.0.1"], "private_target", []),
    (["::1"], "private_target", []),
    (["203.0.114.1%eth0"], "resolution_failed", []),
    (["203.0.114.001"], "resolution_failed", []),
    (["203.0.114.1", ""], "resolution_failed", []),
    ([], "resolution_empty", []),
]


@pytest.mark.parametrize(("resolved", "reason", "pinned"), ANSWERS)
def test_every_address_of_an_answer_must_pass(
    policy: CompiledPolicy, resolved: list[str], reason: str, pinned: list[str]
) -> None:
    answer = ask(policy, resolved=resolved)
    assert (answer["reason"], answer["pinned"]) == (f"egress.{reason}", pinned)


def test_lines_are_read_without_holding_one_that_has_no_end() -> None:
    long = b"x" * (3 * MAX_LINE)
    lines = list(read_lines(io.BytesIO(b"a\r\n\n  \n" + long + b"\nb\n" + long)))
    assert [line[:2] for line in lines] == [b"a\r", b"xx", b"b\n", b"xx"]
    assert max(map(len, lines)) == MAX_LINE + 2
