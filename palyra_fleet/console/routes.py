"""THE table of the console: method, path, the role it takes, what handles it, what it takes.

Role None is for what is needed to sign in. Nothing below `/console` is reachable without a row.
"""

from typing import Final

from palyra_fleet.console import (
    auth_calls,
    openapi,
    pages,
    policy_pages,
    qr_calls,
    rendering,
    stream,
    twins,
)
from palyra_fleet.console.gate import ConsoleRow as Row
from palyra_fleet.wire import models as wire
from palyra_fleet.wire import node_models as node_wire
from palyra_fleet.wire.ids import ULID_PATTERN
from palyra_fleet.wire.label_models import LabelRequest
from palyra_fleet.wire.principal_models import Role

_LOOK, _STOP, _LET_IN, _TRUST = Role.VIEWER, Role.OPERATOR, Role.APPROVER, Role.ADMIN
_REASON: Final = wire.ReasonRequest
_WORKER: Final = f"/v1/networked-workers/{{worker_id:{ULID_PATTERN}}}"
_NODE: Final = f"/v1/nodes/{{device_id:{ULID_PATTERN}}}"
_DEVICE: Final = f"/v1/devices/{{device_id:{ULID_PATTERN}}}"
_PAIRING: Final = f"/v1/pairing/requests/{{approval_id:{ULID_PATTERN}}}"
_ASKED: Final = f"/v1/capability-requests/{{request_id:{ULID_PATTERN}}}"
_LEASE: Final = f"/v1/leases/{{lease_id:{ULID_PATTERN}}}"
_RELEASE: Final = f"/v1/release-requests/{{release_id:{ULID_PATTERN}}}"
_GRANT: Final = f"/v1/grants/{{grant_id:{ULID_PATTERN}}}"
_PAGE: Final = ("limit", "cursor")
_APPROVALS: Final = ("cursor", "devices", "asked")
_NARROWER: Final = ("state", "eligibility", "attestor", "capability", "waits", "demanded", "label")
_WORKERS: Final = (*_NARROWER, "cursor")
_CHANGE: Final = twins.change_worker

CONSOLE_ROUTES: Final = (
    # signing in and out
    Row("GET", "/login", None, pages.login, query=("next",), page=True),
    Row("GET", "/static/{version}/{name}", None, rendering.static_file),
    Row("POST", "/v1/auth/login", None, auth_calls.sign_in, auth_calls.SignIn),
    Row("GET", "/v1/auth/session", _LOOK, auth_calls.who_is_signed_in),
    Row("GET", "/v1/openapi.json", _LOOK, openapi.describe),
    Row("POST", "/v1/auth/logout", _LOOK, auth_calls.sign_out),
    # pages
    Row("GET", "", _LOOK, pages.overview, page=True),
    Row("GET", "/workers", _LOOK, pages.workers, query=_WORKERS, page=True),
    Row("GET", f"/workers/{{worker_id:{ULID_PATTERN}}}", _LOOK, pages.worker, page=True),
    Row("GET", "/leases", _LOOK, pages.leases, query=("state", "q", "cursor"), page=True),
    Row("GET", "/violations", _LOOK, pages.violations, query=("cursor",), page=True),
    Row("GET", "/approvals", _LOOK, pages.approvals, query=_APPROVALS, page=True),
    Row("GET", "/nodes", _LOOK, pages.nodes, query=("cursor", "devices", "asked"), page=True),
    Row("GET", "/policies", _LOOK, policy_pages.policies, query=policy_pages.QUERY, page=True),
    Row("GET", "/audit", _LOOK, pages.audit, query=("q", "cursor"), page=True),
    Row("GET", "/events", _LOOK, stream.events),
    # their twins: nodes and devices
    Row("GET", "/v1/nodes", _LOOK, twins.console_nodes_list_handler, query=_PAGE),
    Row("GET", "/v1/nodes/pending", _LOOK, twins.list_pending, query=_PAGE),
    Row("GET", _NODE, _LOOK, twins.show_node),
    Row("POST", f"{_NODE}/invoke", _STOP, twins.invoke, node_wire.InvokeRequest),
    Row("GET", "/v1/pairing/requests", _LOOK, twins.list_pairing_requests, query=_PAGE),
    Row("POST", "/v1/pairing/requests/code", _STOP, twins.mint_code, node_wire.PairingCodeRequest),
    Row("POST", "/v1/pairing/qr", _STOP, qr_calls.draw, qr_calls.QrText, draws=True),
    Row("POST", f"{_PAIRING}/approve", _LET_IN, twins.approve_pairing, node_wire.ApproveDevice),
    Row("POST", f"{_PAIRING}/reject", _LET_IN, twins.reject_pairing, _REASON),
    Row("GET", "/v1/devices", _LOOK, twins.list_devices, query=_PAGE),
    Row("GET", _DEVICE, _LOOK, twins.show_device),
    Row("POST", f"{_DEVICE}/rotate", _STOP, twins.rotate_device, node_wire.RotateDeviceRequest),
    Row("POST", f"{_DEVICE}/revoke", _STOP, twins.revoke_device, _REASON),
    Row("POST", f"{_DEVICE}/remove", _TRUST, twins.remove_device, _REASON),
    Row("POST", f"{_ASKED}/approve", _LET_IN, twins.decide_capability(approve=True), _REASON),
    Row("POST", f"{_ASKED}/reject", _LET_IN, twins.decide_capability(approve=False), _REASON),
    # their twins: workers, leases, grants
    Row("POST", f"{_WORKER}/quarantine", _STOP, _CHANGE(lambda f: f.quarantine), _REASON),
    Row("POST", f"{_WORKER}/release", _LET_IN, _CHANGE(lambda f: f.release), _REASON),
    Row("POST", f"{_WORKER}/request-release", _STOP, twins.request_release, _REASON),
    Row("POST", f"{_RELEASE}/approve", _LET_IN, twins.approve_release, _REASON),
    Row("POST", f"{_RELEASE}/withdraw", _STOP, twins.withdraw_release, _REASON),
    Row("POST", f"{_WORKER}/reverify", _LET_IN, _CHANGE(lambda f: f.reverify), _REASON),
    Row("POST", f"{_WORKER}/reattest", _STOP, twins.reattest(new_key=False), _REASON),
    Row("POST", f"{_WORKER}/rotate-key", _STOP, twins.reattest(new_key=True), _REASON),
    Row("POST", f"{_WORKER}/cordon", _STOP, _CHANGE(lambda f: f.cordon), _REASON),
    Row("POST", f"{_WORKER}/uncordon", _STOP, _CHANGE(lambda f: f.uncordon), _REASON),
    Row("POST", f"{_WORKER}/ban", _TRUST, _CHANGE(lambda f: f.ban), _REASON),
    Row("POST", f"{_WORKER}/force-cleanup", _TRUST, _CHANGE(lambda f: f.evict), _REASON),
    Row("POST", f"{_WORKER}/label", _STOP, twins.label_worker, LabelRequest),
    Row("POST", f"{_WORKER}/drain", _STOP, twins.drain_worker, wire.DrainRequest),
    Row("POST", "/v1/networked-workers/drain", _STOP, twins.drain_one, wire.DrainOneRequest),
    Row("POST", "/v1/networked-workers/reap-expired", _STOP, twins.reap_expired),
    Row("POST", f"{_LEASE}/revoke", _STOP, twins.revoke_lease, _REASON),
    Row("POST", "/v1/fleet/freeze-leases", _STOP, twins.freeze(egress=False), _REASON),
    Row("POST", "/v1/fleet/freeze-egress", _STOP, twins.freeze(egress=True), _REASON),
    Row("POST", "/v1/fleet/unfreeze-egress", _LET_IN, twins.unfreeze(egress_only=True), _REASON),
    Row("POST", "/v1/fleet/unfreeze", _LET_IN, twins.unfreeze(egress_only=False), _REASON),
    Row("POST", "/v1/grants", _LET_IN, twins.create_grant, wire.GrantRequest),
    Row("POST", f"{_GRANT}/withdraw", _LET_IN, twins.withdraw_grant, _REASON),
    Row("POST", "/v1/events/verify", _LOOK, twins.verify_events),
)
