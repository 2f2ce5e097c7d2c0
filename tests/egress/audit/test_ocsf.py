"""Entries as OCSF events: what a SIEM is told is what the log says, and leads back to it."""

import pytest

from palyra_egress.audit.ocsf import OCSF_VERSION, ocsf_event

WHO = {"worker_id": "01W", "lease_id": "01L", "run_id": "run-1", "profile": "coding"}
LINK = {"seq": 12, "sha256": "ab" * 32, "previous_sha256": "cd" * 32, "at_unix_ms": 1_700}
DENIED = {
    **LINK,
    **WHO,
    "kind": "verdict",
    "decision_id": "01D",
    "effect": "deny",
    "reason": "egress.metadata_target",
    "class": "threat",
    "method": "GET",
    "target": "http://169.254.169.254:80/latest",
    "host": "169.254.169.254",
    "port": 80,
    "rule_id": "api",
    "policy_file": "p.yaml",
    "policy_line": 7,
    "policy_digest": "ef" * 32,
    "addresses": ["169.254.169.254"],
    "consequence": "quarantine",
}
ALLOWED = {
    **DENIED,
    "effect": "allow",
    "reason": "egress.allowed",
    "class": "allow",
    "consequence": "none",
    "method": "CONNECT",
    "target": "api.example:443",
    "host": "api.example",
    "port": 443,
    "addresses": ["2001:db8::1"],
}


def test_a_refusal_is_a_denied_http_activity_with_its_rule():
    event = ocsf_event(DENIED, "1.2.3")
    assert event is not None
    assert (event["class_uid"], event["type_uid"]) == (4002, 400203)
    assert (event["action"], event["disposition"]) == ("Denied", "Quarantined")
    assert (event["severity"], event["status"]) == ("High", "Failure")
    assert event["status_code"] == "egress.metadata_target"
    assert event["firewall_rule"] == {"uid": "api", "name": "p.yaml", "sequence": 7}
    assert event["http_request"]["url"]["path"] == "/latest"
    assert event["dst_endpoint"]["ip"] == "169.254.169.254"
    assert event["src_endpoint"] == {"uid": "01W", "instance_uid": "01L", "type": "Worker"}


def test_it_leads_back_to_the_line_of_the_log():
    event = ocsf_event(DENIED, "1.2.3")
    assert event is not None
    metadata = event["metadata"]
    assert (metadata["uid"], metadata["sequence"]) == ("ab" * 32, 12)
    assert (metadata["correlation_uid"], metadata["version"]) == ("01D", OCSF_VERSION)
    assert metadata["product"]["version"] == "1.2.3"


def test_an_allowed_tunnel_is_an_allowed_connect():
    event = ocsf_event(ALLOWED, "1")
    assert event is not None
    assert (event["activity_name"], event["type_uid"]) == ("Connect", 400201)
    assert (event["action"], event["disposition"]) == ("Allowed", "Allowed")
    assert (event["severity_id"], event["status_id"]) == (1, 1)
    url = event["http_request"]["url"]
    assert url == {"hostname": "api.example", "port": 443, "url_string": "api.example:443"}


@pytest.mark.parametrize(("method", "uid"), [("POST", 6), ("PATCH", 99), ("PROPFIND", 99)])
def test_methods_the_schema_does_not_know_are_named_in_words(method, uid):
    event = ocsf_event({**ALLOWED, "method": method, "target": "https://a.example:443/x"}, "1")
    assert event is not None
    assert event["activity_id"] == uid
    assert event["activity_name"] in (method, method.capitalize())


def test_a_refusal_before_there_was_a_request_has_no_destination():
    early = {**LINK, "kind": "verdict", "decision_id": "01D", "effect": "deny", "early": True}
    early |= {"reason": "egress.no_identity", "policy_digest": "", "worker_id": None}
    event = ocsf_event(early, "1")
    assert event is not None
    assert (event["activity_id"], event["disposition"]) == (99, "Blocked")
    assert "dst_endpoint" not in event
    assert "http_request" not in event


@pytest.mark.parametrize(("outcome", "status"), [("complete", 1), ("egress.quarantined", 2)])
def test_the_end_of_an_exchange_is_traffic_with_its_bytes(outcome, status):
    entry = {**LINK, "kind": "transfer", "decision_id": "01D", "outcome": outcome}
    entry |= {"request_bytes": 10, "response_bytes": 30, "duration_ms": 700}
    event = ocsf_event(entry, "1")
    assert event is not None
    assert (event["class_uid"], event["activity_id"], event["status_id"]) == (4001, 6, status)
    assert event["traffic"] == {"bytes_out": 10, "bytes_in": 30, "bytes": 40}
    assert (event["start_time"], event["end_time"]) == (1_000, 1_700)
    assert event["status_detail"] == outcome


@pytest.mark.parametrize("kind", ["receipt", "checkpoint", "recovered", "unanswered", "other"])
def test_the_logs_own_entries_have_no_event(kind):
    assert ocsf_event({**LINK, "kind": kind}, "1") is None
