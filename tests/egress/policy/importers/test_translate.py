"""Whatever the other file holds, the output loads, and its comments hold no rules."""

import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from palyra_egress.cli.main import main
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.importers import (
    agent_vault,
    awf,
    iron_proxy,
    sandbox_runtime,
    smokescreen,
)
from palyra_egress.policy.importers.draft import Fate, ImportRefused, KeyFate
from palyra_egress.policy.importers.translate import Source, import_policy
from palyra_egress.policy.load import load_policy

HOSTILE = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "a.example\nrules: [{id: x, hosts: [.evil.example]}]",
            "a.example # \r\nmode: observe",
            "\u2028deny: []",
            '"]\n  - id: x',
            "*.com",
            "*",
            "..",
            "xn--",
            "127.0.0.1",
            "0/0",
            "a.example:443",
            "https://a.example/",
        ]
    ),
)


@given(st.sampled_from(list(Source)), st.lists(HOSTILE, max_size=4), st.lists(HOSTILE, max_size=2))
@example(Source.SMOKESCREEN, ["a.example"], ["\x1f"])
@example(Source.AGENT_VAULT, ["\u202e"], [])
def test_no_text_of_a_stranger_becomes_a_line_of_the_policy(
    source: Source, allowed: list[str], denied: list[str]
) -> None:
    documents = {
        Source.SMOKESCREEN: {
            "version": "v1",
            "services": [
                {"name": name, "project": name, "action": "enforce", "allowed_domains": allowed}
                for name in dict.fromkeys(denied)
            ],
            "global_allow_list": allowed,
        },
        Source.IRON_PROXY: {
            "domains": allowed,
            "rules": [{"host": text, "paths": denied, "methods": denied} for text in allowed],
        },
        Source.AGENT_VAULT: {"services": [{"name": t, "host": t, "path": t} for t in allowed]},
        Source.SANDBOX_RUNTIME: {
            "network": {"allowedDomains": allowed, **dict.fromkeys(denied, 1)},
        },
        Source.AWF: {"network": {"allowDomains": allowed, "blockDomains": denied}},
    }
    try:
        found = import_policy(source, json.dumps(documents[source]).encode(), "theirs", None)
    except ImportRefused:
        return
    policy = load_policy(found.text.encode(), "ours")
    assert not policy.observes
    named = {pattern.text for rule in policy.spec.rules for pattern in rule.hosts}
    assert not any("evil" in name for name in named)


@given(st.sampled_from(list(Source)), st.binary(max_size=200))
def test_any_bytes_are_translated_or_refused(source: Source, data: bytes) -> None:
    try:
        found = import_policy(source, data, "theirs", None)
    except (ImportRefused, PolicyFileError):
        return
    load_policy(found.text.encode(), "ours")


@pytest.mark.parametrize(
    "table",
    [
        smokescreen.TOP_KEYS,
        smokescreen.SERVICE_KEYS,
        iron_proxy.TOP_KEYS,
        iron_proxy.PROXY_KEYS,
        iron_proxy.TLS_KEYS,
        iron_proxy.ALLOWLIST_KEYS,
        iron_proxy.RULE_KEYS,
        agent_vault.TOP_KEYS,
        agent_vault.SERVICE_KEYS,
        sandbox_runtime.TOP_KEYS,
        sandbox_runtime.NETWORK_KEYS,
        awf.TOP_KEYS,
        awf.NETWORK_KEYS,
        awf.RULESET_KEYS,
        awf.RULE_KEYS,
    ],
)
def test_every_key_that_is_not_translated_says_why(table: dict[str, KeyFate]) -> None:
    assert all(row.why for row in table.values() if row.fate is not Fate.TRANSLATED)


@pytest.mark.parametrize(
    ("source", "data"),
    [
        (Source.SANDBOX_RUNTIME, b'{"network": {}, "network": {}}'),
        (Source.IRON_PROXY, b"domains: [a.example]\ndomains: []"),
    ],
)
def test_a_key_that_stands_twice_is_refused(source: Source, data: bytes) -> None:
    with pytest.raises((ImportRefused, PolicyFileError)):
        import_policy(source, data, "theirs", None)


@pytest.fixture
def lossy(tmp_path: Path) -> Path:
    file = tmp_path / "theirs.yaml"
    file.write_text("domains: [a.example, 'b?.example']")
    return file


@pytest.mark.parametrize(("more", "code"), [([], 1), (["--partial"], 0)])
def test_the_command_prints_the_policy_and_answers_no_where_something_is_missing(
    lossy: Path, more: list[str], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["policy", "import", "--from", "iron-proxy", str(lossy), *more]) == code
    printed = capsys.readouterr()
    assert load_policy(printed.out.encode(), "ours").profiles.keys() == {"imported"}
    assert "# not imported: domains[1]: 'b?.example'" in printed.out
    assert "1 not imported" in printed.err


def test_the_command_prints_nothing_of_a_file_it_refuses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "theirs.yaml"
    file.write_text("a: &x [1]\nb: *x")
    assert main(["policy", "import", "--from", "awf", str(file), "--profile", "agents"]) == 2
    assert main(["policy", "import", "--from", "awf", str(tmp_path / "none")]) == 2
    file.write_text("network: {blockDomains: ['*']}")
    assert main(["policy", "import", "--from", "awf", str(file), "--partial"]) == 2
    assert capsys.readouterr().out == ""
