"""The one visible table of corpus cases that this suite does not run, and why.

`KINDS` explains whole kinds, `CASES` single cases. A case that is neither run nor explained here
fails, and so does a row that explains nothing.
"""

from typing import Final

SOCKETS: Final = "needs real sockets: the enforcement core's socket suite"
FLEET: Final = "about the fleet's ledger and attestation: the fleet's own suites"

LEDGER_CASES: Final = (
    "dv-life-005",
    "dv-life-007",
    "dv-life-011",
    "dv-life-023",
    "dv-life-026",
)
LIFECYCLE: Final = dict.fromkeys(
    LEDGER_CASES, "played on the real manager: tests/fleet/ledger/test_lifecycle_corpus"
) | {
    "dv-life-002": "cut at another proxy, over processes: tests/e2e/test_other_machines",
    "dv-life-003": "every open connection is reset before the refusal is answered, whatever it "
    "carries: tests/egress/proxy/test_first_light, test_sweep",
    "dv-life-004": "no upstream connection serves two workers, so none is left to be reused: "
    "tests/egress/proxy/test_credentials, two workers never share an upstream connection",
    "dv-life-009": "no worker is known by an address: a credential, a certificate, an account or "
    "a listener of its lease says who speaks, and without one nobody does: test_channels",
    "dv-life-015": "tests/egress/audit/test_full_disk, and over sockets test_chaos; observing is "
    "no exception here: what cannot be written down does not pass (stricter)",
    "dv-life-016": "a chain that does not fit stops the start: tests/egress/audit/test_checkpoint",
    "dv-life-022": "proxy and fleet killed in turn: tests/e2e/test_quarantine_survives",
}

KINDS: Final = {
    "raw_request": SOCKETS,
    "streaming": SOCKETS,
    "h2_stream": SOCKETS,
    "tls_check": SOCKETS,
    "sni_check": SOCKETS,
    "sni_host": SOCKETS,
    "h2_host_vs_authority": SOCKETS,
    "duplicate_host": SOCKETS,
    "obs_fold": SOCKETS,
    "header_size": SOCKETS,
    "upgrade_101_other": SOCKETS,
    "leaf_cache": SOCKETS,
    "ws_upgrade_response": SOCKETS,
    "is_websocket_upgrade": SOCKETS,
    "host_consistency": SOCKETS,
    "request_header_strip": SOCKETS,
    "response_header_strip": SOCKETS,
    "header_allowlist": "which headers pass is not a policy's choice; those that may carry a "
    "credential are a fixed list: test_header_names",
    "upstream_proxy_header": "we chain no proxies, and no request header can choose one",
    "socks5_greeting": "the peer asks for no authentication, ours for user and password only: "
    "test_socks",
    "dns_steer": "we run no DNS server",
    "worker_bypass_attempt": "the worker's network namespace and bypass canary: end-to-end suite",
    "audit_completeness": "every verdict has one audit entry: the audit and socket suites",
    "ledger_scenario": FLEET,
    "worker_attestation": FLEET,
    "credential_injection": SOCKETS,
    "credential_swap": SOCKETS,
    "rule_engine_output": "rules are data; there is no rule program whose output could be read",
}

CASES: Final = LIFECYCLE | {
    # patterns
    "gh-pv-036": "a scheme in a pattern; ours says `schemes`, and the refusal suggests the host",
    "srt-pv-014": "`.example.com` is our spelling for a name and everything below it",
    "ip-hm-009": "`*` alone is no pattern here, and an empty host is HOST_MISSING",
    # observe mode
    "ss-int-report-auth-connect": "a private literal is a threat; observe mode lets no threat pass",
    # other ways of writing an authority
    "ss-hp-05": "a name in brackets (the CVE-2022-29188 shape); brackets hold IPv6 only",
    "ss-hp-15": "a port with leading zeros; the note allows a strict parser",
    "ss-hps-14": "a port with leading zeros; the note allows a strict parser",
    "ss-hps-13": "an emoji is no IDNA 2008 label",
    # ports
    "gh-port-007": "port ranges are not in the language; ports are written out",
    # URL patterns
    "gh-up-005": "a wildcard inside a label is refused; see the strict answer of gh-pv-005",
    # rule programs
    "hj-rl-002": "a program as policy; ours is data",
    "hj-rq-002": "a program as policy; ours is data",
    "hj-rq-005": "a program as policy; ours is data",
    # the peer's own policy files
    "ss-load-10": "the peer's action `open` does not exist here: nothing allows everything",
    "ss-load-11": "the peer's switch that disables actions",
    "ss-load-14": "the peer's switch that disables actions",
    "ss-load-15": "we chain no proxies",
    "ss-load-04": "the peer's per-domain header rules",
    "ss-int-open-unauth-connect": "the peer's action `open` does not exist here",
    "ss-acl-13": "the peer's allow list overrides its deny list; ours never does",
    "ss-acl-proxy-2": "we chain no proxies",
    # connects that are about bytes on a connection
    "dv-con-021": SOCKETS,
    "dv-con-022": SOCKETS,
    "dv-con-025": SOCKETS,
}
