"""Small policies as text, and questions to them, for the tests of the judge."""

from collections.abc import Sequence
from pathlib import Path

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.policy.decide import NOTHING_FORBIDDEN, Forbidden, decide, precheck
from palyra_egress.policy.load import load_policy
from palyra_egress.policy.request_text import connect_from_authority, judge_request_from_url
from palyra_egress.request import EgressRequest, Requester
from palyra_egress.verdict import NeedsResolution, Verdict

PUBLIC = ("203.0.114.1",)
ASKER = Requester("worker-1", "lease-1", "p")
HEAD = "version: 1\nname: test\n"


def policy(text: str) -> CompiledPolicy:
    """The policy that `text` spells after version and name."""
    return load_policy(f"{HEAD}{text}".encode(), "test.yaml")


def rules(*items: str, more: str = "") -> CompiledPolicy:
    """A policy with these rules (flow mappings without their braces and ids) in profile `p`."""
    lines = "".join(f"  - {{id: r{i}, {item}}}\n" for i, item in enumerate(items))
    ids = ", ".join(f"r{i}" for i in range(len(items)))
    head = f"rules:\n{lines}" if items else "rules: []\n"
    return policy(f"{head}profiles: {{p: [{ids}]}}\n{more}")


def request(text: str, asker: Requester = ASKER) -> EgressRequest:
    """`METHOD url` or `CONNECT host:port` as a canonical request."""
    method, _, target = text.partition(" ")
    if method == "CONNECT":
        return connect_from_authority(target, asker)
    return judge_request_from_url(method, target, asker)


def ask(
    given: CompiledPolicy,
    text: str,
    resolved: Sequence[str] = PUBLIC,
    *,
    now: int = 0,
    forbidden: Forbidden = NOTHING_FORBIDDEN,
) -> Verdict:
    """The final verdict, through both phases as the proxy asks."""
    asked = request(text)
    first = precheck(given, asked, now, forbidden)
    if isinstance(first, NeedsResolution):
        return decide(given, asked, resolved, now, forbidden)
    return first


def short(verdict: Verdict) -> str:
    """`allow`, or the short reason."""
    return "allow" if verdict.would_deny is None and verdict.allowed else verdict.reason.short


POLICIES = Path(__file__).resolve().parents[3] / "policies"
PIPELINE = POLICIES / "data-pipeline" / "pipeline.yaml"
SAMPLES = (*sorted(POLICIES.glob("*.yaml")), PIPELINE)
"""The sample policies, each by its outermost file."""
SAMPLE_FILES = tuple(sorted(POLICIES.rglob("*.yaml")))
"""Every file of every sample."""
COMPLETE = """\
version: 1
name: complete
include: []
mode: enforce
tls: {default: inspect}
limits:
  max_request_bytes: 1MiB
  max_response_bytes: 32MiB
  requests_per_minute: 600
  bytes_per_hour: 8GiB
  request_bytes_per_hour: 1GiB
  response_bytes_per_hour: 8GiB
rules:
  - id: r
    hosts: [a.example]
    schemes: [https]
    ports: [8443]
    methods: [GET, POST]
    paths: [/v1/**]
    encoded_slash: true
    log_query: true
    websocket: true
    private: [10.20.0.0/16]
    tls: inspect
    missing_sni: true
    ech: false
    credentials:
      - header: authorization
        secret: vault:global/a_token
        format: Bearer {secret}
        basic_user: a-user
        placeholder: a-token-goes-here
    upstream_tls:
      roots: corp
      client_certificate: build-agent
    until: 2027-03-31T18:00:00Z
    observe: false
    acknowledge: [service_port]
    owner: team
    reason: a ticket
    limits:
      max_request_bytes: 2MiB
      max_response_bytes: 64MiB
      requests_per_minute: 30
      bytes_per_hour: 1GiB
      request_bytes_per_hour: 16MiB
      response_bytes_per_hour: 1GiB
deny:
  - {id: d, hosts: [.bad.example], reason: exfiltration}
violations:
  quarantine: [metadata_target]
  strike: {on: [host_not_allowed], limit: 5, window: 10m}
canaries:
  - {id: c, value: AKIADECOY0000000QQ, owner: team, reason: planted}
  - {id: held, secret: vault:canary/token}
profiles:
  p:
    rules: [r]
    limits:
      max_request_bytes: 1MiB
      max_response_bytes: 16MiB
      requests_per_minute: 20
      bytes_per_hour: 512MiB
      request_bytes_per_hour: 8MiB
      response_bytes_per_hour: 512MiB
    requires:
      binding_level: observed
      image_digests: ['sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa']
      build_digests: ['sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb']
      artifact_digests: ['sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc']
      capabilities: [net.write]
  q: []
lint:
  ignore:
    - {code: private_range, rule: r, profile: p, reason: the mirror, until: 2027-03-31T18:00:00Z}
tests:
  - profile: p
    request: GET https://a.example:8443/v1/x
    facts:
      binding_level: enforced
      image_digest: sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
      build_digest: sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb
      artifact_digest: sha256:cccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccccc
      capabilities: [net.write, net.read]
    resolved: [10.20.3.4]
    at: 2027-01-01T00:00:00Z
    expect: allow
    upstream_tls:
      roots: corp
      client_certificate: build-agent
"""
"""A policy that says something under every key of the language."""
