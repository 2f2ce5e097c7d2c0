"""Audit entries as events of the Open Cybersecurity Schema Framework, version 1.3.0. Pure.

A verdict becomes an HTTP Activity (4002) with the Security Control profile, the end of an exchange
a Network Activity (4001, traffic). The log's own entries (receipts, checkpoints, recovery, counts)
have no class there and become None. Nothing is added that the log does not say, and
`metadata.sequence` and `metadata.uid` lead back to it. Source: the framework's schema, classes
http_activity and network_activity, profile security_control, 1.3.0.
"""

from typing import Final
from urllib.parse import urlsplit

from palyra_egress.audit.chain import AuditFields, AuditValue
from palyra_egress.reasons import REASONS, Reason, ReasonClass

OCSF_VERSION: Final = "1.3.0"
_CATEGORY_NETWORK: Final = 4
_NETWORK, _HTTP = 4001, 4002
_TRAFFIC: Final = 6
_OTHER: Final = 99
_ACTIVITIES: Final = {
    "CONNECT": (1, "Connect"),
    "DELETE": (2, "Delete"),
    "GET": (3, "Get"),
    "HEAD": (4, "Head"),
    "OPTIONS": (5, "Options"),
    "POST": (6, "Post"),
    "PUT": (7, "Put"),
    "TRACE": (8, "Trace"),
}
_ALLOWED, _DENIED = (1, "Allowed"), (2, "Denied")
_DISPOSITION_ALLOWED, _DISPOSITION_BLOCKED, _DISPOSITION_QUARANTINED = (
    (1, "Allowed"),
    (2, "Blocked"),
    (3, "Quarantined"),
)
_SEVERITY: Final = {
    ReasonClass.ALLOWED: (1, "Informational"),
    ReasonClass.CLIENT: (2, "Low"),
    ReasonClass.INFRA: (2, "Low"),
    ReasonClass.POLICY: (3, "Medium"),
    ReasonClass.THREAT: (4, "High"),
}

type OcsfEvent = dict[str, object]


def ocsf_event(entry: AuditFields, product_version: str) -> OcsfEvent | None:
    """The event of one entry, or None for a kind that has none."""
    match entry.get("kind"):
        case "verdict":
            return _http_activity(entry, product_version)
        case "transfer":
            return _traffic(entry, product_version)
        case _:
            return None


def _base(entry: AuditFields, class_uid: int, activity: tuple[int, str], version: str) -> OcsfEvent:
    return {
        "category_uid": _CATEGORY_NETWORK,
        "category_name": "Network Activity",
        "class_uid": class_uid,
        "class_name": "HTTP Activity" if class_uid == _HTTP else "Network Activity",
        "activity_id": activity[0],
        "activity_name": activity[1],
        "type_uid": class_uid * 100 + activity[0],
        "time": entry["at_unix_ms"],
        "metadata": {
            "version": OCSF_VERSION,
            "uid": entry["sha256"],
            "correlation_uid": entry["decision_id"],
            "sequence": entry["seq"],
            "log_name": "palyra-egress audit",
            "profiles": ["security_control"] if class_uid == _HTTP else [],
            "product": {
                "name": "Palyra Egress",
                "vendor_name": "Palyra",
                "version": version,
            },
        },
    }


def _http_activity(entry: AuditFields, version: str) -> OcsfEvent:
    reason = Reason(str(entry["reason"]))
    method = str(entry.get("method") or "")
    activity = _ACTIVITIES.get(method, (_OTHER, method or "Other"))
    allowed = entry["effect"] == "allow"
    severity = _SEVERITY[REASONS[reason].reason_class]
    action = _ALLOWED if allowed else _DENIED
    event = _base(entry, _HTTP, activity, version)
    event |= {
        "severity_id": severity[0],
        "severity": severity[1],
        "status_id": 1 if allowed else 2,
        "status": "Success" if allowed else "Failure",
        "status_code": reason.value,
        "status_detail": REASONS[reason].title,
        "action_id": action[0],
        "action": action[1],
        **_disposition(entry, allowed),
        "src_endpoint": _without_none(
            uid=entry.get("worker_id"), instance_uid=entry.get("lease_id"), type="Worker"
        ),
        "actor": {"session": _without_none(uid=entry.get("run_id"))},
        "policy": _without_none(uid=entry["policy_digest"], name=entry.get("policy_file")),
    }
    if entry.get("rule_id") is not None:
        event["firewall_rule"] = _without_none(
            uid=entry["rule_id"], name=entry.get("policy_file"), sequence=entry.get("policy_line")
        )
    if entry.get("host") is not None:
        event |= _destination(entry, method)
    return event


def _disposition(entry: AuditFields, allowed: bool) -> OcsfEvent:
    if allowed:
        found = _DISPOSITION_ALLOWED
    elif entry.get("consequence") == "quarantine":
        found = _DISPOSITION_QUARANTINED
    else:
        found = _DISPOSITION_BLOCKED
    return {"disposition_id": found[0], "disposition": found[1]}


def _destination(entry: AuditFields, method: str) -> OcsfEvent:
    target = str(entry["target"])
    parts = urlsplit(target if "://" in target else f"//{target}")
    addresses = entry.get("addresses")
    first = addresses[0] if isinstance(addresses, list) and addresses else None
    return {
        "http_request": {
            "http_method": method,
            "uid": entry["decision_id"],
            "url": _without_none(
                scheme=parts.scheme or None,
                hostname=entry["host"],
                port=entry["port"],
                path=parts.path or None,
                query_string=entry.get("query"),
                url_string=target,
            ),
        },
        "dst_endpoint": _without_none(hostname=entry["host"], port=entry["port"], ip=first),
    }


def _traffic(entry: AuditFields, version: str) -> OcsfEvent:
    complete = entry["outcome"] == "complete"
    duration = _whole(entry["duration_ms"])
    sent, received = _whole(entry["request_bytes"]), _whole(entry["response_bytes"])
    return {
        **_base(entry, _NETWORK, (_TRAFFIC, "Traffic"), version),
        "severity_id": 1,
        "severity": "Informational",
        "status_id": 1 if complete else 2,
        "status": "Success" if complete else "Failure",
        "status_detail": entry["outcome"],
        "duration": duration,
        "start_time": _whole(entry["at_unix_ms"]) - duration,
        "end_time": entry["at_unix_ms"],
        "traffic": {"bytes_out": sent, "bytes_in": received, "bytes": sent + received},
    }


def _whole(value: AuditValue) -> int:
    if not isinstance(value, int):
        raise TypeError(f"expected a number, found {type(value).__name__}")
    return value


def _without_none(**fields: AuditValue) -> OcsfEvent:
    return {name: value for name, value in fields.items() if value is not None}
