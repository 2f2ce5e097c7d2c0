"""Every word of the policy language is enforced over a real proxy, or is shown where we say.

A row of `ROWS` has two policies that differ in one word: under the first the request is refused
with the row's reason and nothing reaches the server, under the second it is carried. So neither a
field that is read and forgotten passes, nor a test that refuses for another reason. `ELSEWHERE`
names the tests of words that need more than that; a word in neither table fails.
"""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import pytest

from palyra_egress.policy.language import POLICY, Section
from palyra_egress.policy.load import load_policy
from tests.fakes.proxy_harness import Harness, basic, proxy_harness
from tests.fakes.upstream import RecordingUpstream, recording_upstream

TESTS: Final = Path(__file__).resolve().parents[3]
HOSTS: Final = "127.0.0.1 a.example b.example\n"
DECOY: Final = "AKIADECOY4QX7RZM2WTP"


@dataclass(frozen=True)
class Row:
    """`refuses` and `carries` are what the two policies say beside what all of them say. `before`
    is asked first; both are method, path and body of a request to a.example."""

    word: str
    refuses: dict[str, Any]
    carries: dict[str, Any]
    reason: str
    asked: tuple[str, str, str] = ("GET", "/", "")
    before: tuple[tuple[str, str], ...] = ()
    top: bool = field(default=False)


PLAIN: Final = ("GET", "/", "")
FIVE: Final = ("POST", "/", "12345")
GET: Final = (("GET", "a.example"),)
STRANGE: Final = (("GET", "nobody.example"),)
IN_RULE: Final = (
    Row("rules.hosts", {"hosts": ["b.example"]}, {}, "host_not_allowed"),
    Row("rules.schemes", {"schemes": ["https"]}, {}, "scheme_not_allowed"),
    Row("rules.ports", {"ports": [8444]}, {}, "port_not_allowed"),
    Row("rules.methods", {"methods": ["POST"]}, {}, "method_not_allowed"),
    Row("rules.paths", {"paths": ["/b/**"]}, {"paths": ["/"]}, "path_not_allowed"),
    Row(
        "rules.encoded_slash",
        {"encoded_slash": False},
        {"encoded_slash": True},
        "path_malformed",
        ("GET", "/a%2Fb", ""),
    ),
    Row("rules.private", {"private": ["10.0.0.0/8"]}, {}, "private_target"),
    Row(
        "rules.until",
        {"until": "2020-01-01T00:00:00Z"},
        {"until": "2999-01-01T00:00:00Z"},
        "rule_expired",
    ),
    Row(
        "rules.observe",
        {"methods": ["POST"], "observe": False},
        {"methods": ["POST"], "observe": True},
        "method_not_allowed",
    ),
)
NO_RULES: Final = {"test": {"rules": []}}
OWN: Final = {"binding_level": "claimed", "capabilities": ["x"]}
AT_TOP: Final = (
    Row(
        "deny.hosts",
        {"deny": [{"id": "d", "hosts": [".a.example"]}]},
        {"deny": [{"id": "d", "hosts": ["*.a.example"]}]},
        "host_denied",
    ),
    Row(
        "mode",
        {"mode": "enforce"},
        {"mode": "observe"},
        "method_not_allowed",
        ("DELETE", "/", ""),
    ),
    Row("profiles.rules", {"profiles": NO_RULES}, {}, "host_not_allowed"),
    *(
        Row(
            f"profiles.requires.{name}",
            {"profiles": {"test": {"rules": ["r"], "requires": {name: value}}}},
            {},
            "profile_requirements",
        )
        for name, value in OWN.items()
    ),
    Row(
        "canaries.value",
        {"canaries": [{"id": "c", "value": DECOY}]},
        {},
        "canary",
        ("GET", f"/?k={DECOY.lower()}", ""),
    ),
    Row(
        "violations.quarantine",
        {"violations": {"quarantine": ["host_not_allowed"]}},
        {"violations": {"quarantine": ["host_denied"]}},
        "quarantined",
        before=STRANGE,
    ),
)
LIMITS: Final = (
    ("max_request_bytes", 4, 5, "request_too_large", FIVE, ()),
    ("max_response_bytes", 0, 5, "budget_zero", PLAIN, ()),
    ("requests_per_minute", 1, 2, "rate_limited", PLAIN, GET),
    ("bytes_per_hour", 9, 15, "budget_spent", FIVE, GET),
    ("request_bytes_per_hour", 4, 5, "budget_spent", FIVE, ()),
    ("response_bytes_per_hour", 5, 10, "budget_spent", PLAIN, GET),
)
"""The key, what is too little and what is just enough for the request."""


def _in_profile(limits: dict[str, int]) -> dict[str, Any]:
    return {"profiles": {"test": {"rules": ["r"], "limits": limits}}}


def _limit_rows() -> Iterator[Row]:
    for key, little, enough, reason, asked, before in LIMITS:
        low, high = {"limits": {key: little}}, {"limits": {key: enough}}
        yield Row(f"rules.limits.{key}", low, high, reason, asked, before)
        yield Row(f"limits.{key}", low, high, reason, asked, before, top=True)
        yield Row(
            f"profiles.limits.{key}",
            _in_profile({key: little}),
            _in_profile({key: enough}),
            reason,
            asked,
            before,
            top=True,
        )


ROWS: Final = (*IN_RULE, *(replace(row, top=True) for row in AT_TOP), *_limit_rows())

_STRIKES: Final = (
    "fleet/violations/test_evidence_intake.py",
    "test_strikes_quarantine_at_the_limit_within_the_window",
)
_FACTS: Final = (
    "egress/proxy/guard/test_attested_facts.py",
    "test_a_worker_gets_its_profile_only_with_the_facts_that_it_demands",
)
_TUNNEL: Final = (
    "egress/proxy/tunnels/test_tunnels.py",
    "test_the_worker_sees_the_servers_own_certificate_and_the_proxy_counts",
)
_HELLO: Final = (
    "egress/proxy/tunnels/test_tunnels.py",
    "test_a_hello_that_the_rule_accepts_is_passed_on_as_it_came",
)
_BOUND: Final = (
    "egress/proxy/guard/test_credentials.py",
    "test_an_allowed_request_leaves_with_its_rules_credentials",
)
ELSEWHERE: Final = {
    "rules.tls": _TUNNEL,
    "tls.default": _TUNNEL,
    "rules.missing_sni": _HELLO,
    "rules.ech": _HELLO,
    "rules.credentials.header": _BOUND,
    "rules.credentials.secret": _BOUND,
    "rules.credentials.format": _BOUND,
    "rules.credentials.basic_user": (
        "egress/proxy/guard/test_credentials.py",
        "test_basic_is_made_of_the_policys_user_and_the_secret",
    ),
    "rules.credentials.placeholder": (
        "egress/proxy/guard/test_credentials.py",
        "test_a_header_of_the_workers_own_where_a_placeholder_belongs_is_refused",
    ),
    "rules.upstream_tls.roots": (
        "egress/proxy/tls/test_upstream_tls.py",
        "test_a_rules_roots_take_the_place_of_the_bundle",
    ),
    "rules.upstream_tls.client_certificate": (
        "egress/proxy/tls/test_upstream_tls.py",
        "test_a_server_that_demands_a_certificate_sees_the_rules",
    ),
    "rules.log_query": (
        "egress/proxy/test_logged_queries.py",
        "test_a_query_is_written_down_only_where_the_deciding_rule_says_so",
    ),
    "rules.websocket": (
        "egress/proxy/websocket/test_websocket.py",
        "test_an_upgrade_that_is_not_allowed_reaches_nobody",
    ),
    "profiles.requires.image_digests": _FACTS,
    "profiles.requires.build_digests": _FACTS,
    "profiles.requires.artifact_digests": _FACTS,
    "violations.strike.on": _STRIKES,
    "violations.strike.limit": _STRIKES,
    "violations.strike.window": _STRIKES,
    "canaries.secret": (
        "egress/proxy/guard/test_leaks.py",
        "test_a_canary_whose_secret_is_missing_refuses_everything",
    ),
    "include": (
        "egress/proxy/test_policy_reload.py",
        "test_included_files_are_swapped_together_as_a_mounted_folder_does_it",
    ),
}
SAYS_NOTHING_TO_THE_JUDGE: Final = frozenset(
    {"version", "name", "rules.id", "rules.owner", "rules.reason", "rules.acknowledge"}
    | {"deny.id", "deny.reason", "canaries.id", "canaries.owner", "canaries.reason"}
    | {"lint.ignore.code", "lint.ignore.rule", "lint.ignore.profile", "lint.ignore.reason"}
    | {"lint.ignore.until"}
    | {"tests.profile", "tests.request", "tests.resolved", "tests.at", "tests.expect"}
    | {"tests.upstream_tls.roots", "tests.upstream_tls.client_certificate"}
    | {f"tests.facts.{name}" for name in ("image_digest", "build_digest", "artifact_digest")}
    | {"tests.facts.capabilities", "tests.facts.binding_level"}
)
"""Names, papers, what the linter leaves out, tests that are run when the file is loaded, and words
without which a file is refused."""


def _words(section: Section, prefix: str = "") -> Iterator[str]:
    for key in section.keys:
        if isinstance(key.holds, Section):
            yield from _words(key.holds, f"{prefix}{key.name}.")
        else:
            yield prefix + key.name


def test_every_word_of_the_language_is_in_one_of_the_tables() -> None:
    tables = [{row.word for row in ROWS}, set(ELSEWHERE), SAYS_NOTHING_TO_THE_JUDGE]
    named = [word for table in tables for word in table]
    assert sorted(named) == sorted(_words(POLICY))


@pytest.mark.parametrize(("file", "name"), sorted(set(ELSEWHERE.values())))
def test_what_is_shown_elsewhere_is_shown_there(file: str, name: str) -> None:
    assert f"def {name}(" in (TESTS / file).read_text()


def _policy(said: dict[str, Any], *, top: bool, port: int) -> str:
    rule: dict[str, Any] = {
        "id": "r",
        "hosts": ["a.example"],
        "schemes": ["http"],
        "ports": [port],
        "methods": ["GET", "POST"],
        "private": ["127.0.0.0/8"],
    }
    document: dict[str, Any] = {"version": 1, "name": "test", "profiles": {"test": ["r"]}}
    (document if top else rule).update(said)
    return json.dumps({**document, "rules": [rule]})


@pytest.fixture
async def upstream() -> AsyncIterator[RecordingUpstream]:
    async with recording_upstream() as server:
        yield server


async def _ask(
    harness: Harness, port: int, method: str, path: str, body: str = "", host: str = "a.example"
) -> str:
    """200, or the short reason of the refusal."""
    head = f"{method} http://{host}:{port}{path} HTTP/1.1\r\nHost: {host}:{port}\r\n"
    head += f"Proxy-Authorization: {basic()}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n{body}" if body else "\r\n"
    reply = await harness.send(head.encode())
    assert reply is not None
    return "200" if reply.status == 200 else reply.reason.removeprefix("egress.")


async def _answer(directory: Path, policy: str, row: Row, server: RecordingUpstream) -> str:
    async with proxy_harness(directory, policy, HOSTS) as harness:
        for method, host in row.before:
            await _ask(harness, server.port, method, "/", host=host)
        server.received.clear()
        return await _ask(harness, server.port, *row.asked)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.word)
async def test_a_word_is_enforced(tmp_path: Path, row: Row, upstream: RecordingUpstream) -> None:
    port = upstream.port
    refuses = _policy(row.refuses, top=row.top, port=port)
    assert await _answer(tmp_path / "refuses", refuses, row, upstream) == row.reason
    assert not upstream.received
    carries = _policy(row.carries, top=row.top, port=port)
    assert await _answer(tmp_path / "carries", carries, row, upstream) == "200"
    assert len(upstream.heads) == 1


def test_a_widening_word_refuses_the_file_where_it_is_not_acknowledged() -> None:
    said = {"hosts": ["*.com"]}
    with pytest.raises(Exception, match="needs_acknowledgement"):
        load_policy(_policy(said, top=False, port=443).encode(), "f")
    said["acknowledge"] = ["wide_host"]
    assert load_policy(_policy(said, top=False, port=443).encode(), "f").rules
