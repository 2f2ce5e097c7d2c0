"""The corpora's policies, brought over by `policy import`, must judge as the peer does.

Every `acl_decision`, `request_decision` and `policy_load` case that holds a policy in a peer's own
grammar is written down in that grammar, imported, and asked. What the import answers otherwise
stands in one table with its reason; a row that explains nothing fails.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

import pytest

from palyra_egress.destination.hostname import HostRefused
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.policy.importers.draft import ImportRefused
from palyra_egress.policy.importers.translate import Source, import_policy
from palyra_egress.policy.load import load_policy
from tests.conformance.test_corpora import ALL, Case
from tests.conformance.translate import judge, outcome
from tests.egress.policy.importers.asking import asked

OTHERWISE: Final = {
    # decisions: every one of these is a denial here
    "ss-acl-13": "the service's list overrides the deny list there; here deny always wins",
    "ss-int-enforce-auth-connect": "private addresses are lifted outside smokescreen's ACL",
    "ss-int-enforce-auth-http": "private addresses are lifted outside smokescreen's ACL",
    "ss-int-report-auth-connect": "a private literal is a threat; observe mode lets no threat pass",
    "ss-int-open-unauth-connect": "nothing allows everything here",
    "ip-rq-026": "any port on an allowed address there; 443, and 80 for http, here",
    # files
    "ss-load-10": "a switch of the peer's command line, not of the file",
    "ss-load-11": "a switch of the peer's command line, not of the file",
    "ss-load-14": "a switch of the peer's command line, not of the file",
    "ss-load-15": "we chain no proxies, so their list is left out, with a comment",
    "ss-load-08": "a bad pattern is dropped with a comment, and the rest is imported",
}
NOT_ASKED: Final = {
    "ss-acl-proxy-2": "about a header that names a second proxy; ours reads no such header",
}
_PEERS: Final = ("smokescreen", "iron-proxy", "sandbox-runtime", "gh-aw-firewall")
_KINDS: Final = ("acl_decision", "request_decision", "policy_load")
CASES: Final = [
    case
    for case in ALL
    if case["kind"] in _KINDS and case["source"] in _PEERS and case["id"] not in NOT_ASKED
]


def _with_version(policy: Mapping[str, Any]) -> dict[str, Any]:
    """The smaller cases leave out what the peer's loader insists on."""
    return {"version": "v1", "services": [], **policy}


def _theirs(case: Case) -> tuple[Source, str, str | None, str]:
    """(source, the peer's file, the profile to import, the profile to ask for)."""
    given = case["input"]
    match case["source"]:
        case "smokescreen":
            if "policy_yaml" in given:
                return Source.SMOKESCREEN, given["policy_yaml"], None, ""
            policy = _with_version(given["policy"])
            names = {service["name"] for service in policy["services"]}
            role = given["role"] if given["role"] in names else "default"
            return Source.SMOKESCREEN, json.dumps(policy), role, role
        case "iron-proxy":
            config = {"transforms": [{"name": "allowlist", "config": given["policy"]}]}
            return Source.IRON_PROXY, json.dumps(config), None, "imported"
        case "sandbox-runtime":
            policy = given["policy"]
            network = {"allowedDomains": policy["allow"], "deniedDomains": policy["deny"]}
            return Source.SANDBOX_RUNTIME, json.dumps({"network": network}), None, "imported"
        case _:
            policy = given["policy"]
            assert policy["plain_domain_implies_subdomains"]
            network = {"allowDomains": policy["allow"], "blockDomains": policy.get("block", [])}
            return Source.AWF, json.dumps({"network": network}), None, "imported"


def _question(case: Case) -> tuple[str, str]:
    given = case["input"]
    if case["source"] == "smokescreen":
        if given.get("via_connect", True):
            return "CONNECT", f"{given['host']}:443"
        return "GET", f"http://{given['host']}/"
    if case["source"] == "iron-proxy":
        request = given["request"]
        return request["method"], f"https://{request['host']}{request['path']}"
    return "GET", given.get("url") or f"https://{given['host']}:{given['port']}/"


def _answer(case: Case) -> str:
    source, text, wanted, profile = _theirs(case)
    try:
        found = import_policy(source, text.encode(), "theirs", wanted)
    except (ImportRefused, PolicyFileError):
        return "invalid" if case["kind"] == "policy_load" else "deny"
    policy = load_policy(found.text.encode(), "imported")
    if case["kind"] == "policy_load":
        return "valid"
    method, target = _question(case)
    try:
        return outcome(judge(policy, asked(method, target, profile)))
    except HostRefused:
        return "deny"


@pytest.mark.skipif(not ALL, reason="the shared corpora are not here; set PALYRA_CORPORA")
@pytest.mark.parametrize("case", [pytest.param(c, id=c["id"]) for c in CASES])
def test_an_imported_policy_answers_as_the_original(case: Case) -> None:
    expected = case.get("strict_expected", case["expected"])
    found = _answer(case)
    if case["id"] in OTHERWISE:
        assert found != expected, "the row in OTHERWISE explains nothing any more"
        assert found in ("deny", "valid"), "what differs must refuse, or drop with a comment"
    else:
        assert found == expected


@pytest.mark.skipif(not ALL, reason="the shared corpora are not here; set PALYRA_CORPORA")
def test_every_row_of_the_tables_is_a_case() -> None:
    assert set(OTHERWISE) <= {case["id"] for case in CASES}
    assert set(NOT_ASKED) <= {case["id"] for case in ALL}
