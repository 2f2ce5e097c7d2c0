"""Queries in the audit log, over real sockets: only where the deciding rule says so, and never of
what is refused."""

from pathlib import Path

import pytest

from palyra_egress.audit.entries import MAX_TARGET
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.policy_diff import diff_policies
from palyra_egress.policy.policy_lint import lint
from tests.fakes.proxy_harness import basic, proxy_harness
from tests.fakes.upstream import recording_upstream

DECOY = "AKIADECOY4QX7RZM2WTP"
RULE = (
    "  - {{id: {id}, hosts: [a.example], schemes: [http], ports: [{port}], private: [127.0.0.0/8], "
    "{more}}}\n"
)
NOW = 1_795_000_000_000


def policy(port: int, loud: str, *, mode: str = "enforce") -> str:
    rules = RULE.format(id="quiet", port=port, more="methods: [GET]")
    rules += RULE.format(id="loud", port=port, more=f"paths: [/loud/**]{loud}")
    return (
        f"version: 1\nname: test\nmode: {mode}\nrules:\n{rules}"
        f"canaries: [{{id: decoy, value: {DECOY}}}]\n"
        "profiles: {test: [quiet, loud]}\n"
    )


ASKED = [
    ("GET", "/loud/x?a=1&b=%20", "a=1&b=%20"),
    ("GET", "/loud/x", None),
    ("GET", "/loud/x?", None),
    ("GET", "/other?secret-of-mine=1", None),  # another rule decides
    ("DELETE", "/loud/x?secret-of-mine=1", None),  # refused: nothing of it is written
    ("GET", f"/loud/x?secret-of-mine={DECOY}", None),
    ("GET", "/loud/x?q=" + "y" * 3000, "q=" + "y" * (MAX_TARGET - 2)),
]


@pytest.mark.parametrize(("method", "target", "written"), ASKED)
async def test_a_query_is_written_down_only_where_the_deciding_rule_says_so(
    tmp_path: Path, method: str, target: str, written: str | None
) -> None:
    async with recording_upstream() as upstream:
        text = policy(upstream.port, ", log_query: true")
        async with proxy_harness(tmp_path, text, "127.0.0.1 a.example\n") as harness:
            await harness.send(_request(method, target, upstream.port))
            (entry,) = harness.verdicts()
            assert entry.get("query") == written
            log = harness.proxy.enforcement.settings.audit_file.read_text()
    assert "secret-of-mine" not in log
    assert DECOY not in log


@pytest.mark.parametrize("mode", ["enforce", "observe"])
async def test_without_the_word_no_query_is_written_down(tmp_path: Path, mode: str) -> None:
    async with recording_upstream() as upstream:
        text = policy(upstream.port, "", mode=mode)
        async with proxy_harness(tmp_path, text, "127.0.0.1 a.example\n") as harness:
            for method in ("GET", "DELETE"):
                await harness.send(_request(method, "/loud/x?secret-of-mine=1", upstream.port))
            assert len(harness.verdicts()) == 2
            log = harness.proxy.enforcement.settings.audit_file.read_text()
    assert "secret-of-mine" not in log


async def test_what_only_observing_lets_pass_is_written_down_without_its_query(
    tmp_path: Path,
) -> None:
    async with recording_upstream() as upstream:
        text = policy(upstream.port, ", log_query: true", mode="observe")
        async with proxy_harness(tmp_path, text, "127.0.0.1 a.example\n") as harness:
            reply = await harness.send(
                _request("DELETE", "/loud/x?secret-of-mine=1", upstream.port)
            )
            assert reply is not None and reply.status == 200
            (entry,) = harness.verdicts()
    assert (entry["would_deny"], entry.get("query")) == ("egress.method_not_allowed", None)


def _request(method: str, target: str, port: int) -> bytes:
    return (
        f"{method} http://a.example:{port}{target} HTTP/1.1\r\nHost: a.example:{port}\r\n"
        f"Proxy-Authorization: {basic()}\r\n\r\n"
    ).encode()


def test_writing_more_down_is_a_looser_policy_and_the_linter_notes_it() -> None:
    quiet = load_policy(policy(8080, "").encode(), "f")
    loud = load_policy(policy(8080, ", log_query: true").encode(), "f")
    (change,) = diff_policies(quiet.spec, loud.spec)
    assert change.widens and "queries are now written down" in change.what
    (change,) = diff_policies(loud.spec, quiet.spec)
    assert not change.widens
    noted = {finding.code for finding in lint(loud, NOW)} - {f.code for f in lint(quiet, NOW)}
    assert noted == {"query_logged"}


def test_a_tunnel_that_is_passed_on_has_no_query_to_write_down() -> None:
    text = (
        "version: 1\nname: x\nrules:\n"
        "  - {id: r, hosts: [a.example], tls: tunnel, log_query: true}\nprofiles: {p: [r]}\n"
    )
    with pytest.raises(Exception, match="'log_query' could not be enforced"):
        load_policy(text.encode(), "f")
