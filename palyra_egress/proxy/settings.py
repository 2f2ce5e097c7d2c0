"""What an egress proxy needs to be told. Paths, addresses and caps; no secret."""

from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path

from palyra_egress.audit.segments import DEFAULT_SEGMENT_BYTES
from palyra_egress.credentials.settings import VAULT_ONLY, SecretSettings
from palyra_egress.proxy.bounds.caps import CAPS, Caps
from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines
from palyra_egress.proxy.channels.settings import NO_CHANNELS, ChannelSettings
from palyra_egress.proxy.http.trace_headers import TraceHeaders
from palyra_egress.proxy.tls.server_tls import NOTHING_NAMED, ServerTlsSettings
from palyra_fleet.client import FleetAddress
from palyra_fleet.traces.settings import NO_TRACES, TraceSettings
from palyra_fleet.wire.keys import SigningKey


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """Settings of one proxy process.

    `state_dir` holds its key, CA, audit log and spool (0700). `key`, where given, is the one this
    machine paired with, and no key file is used; `join` then takes the proxy's place in the fleet
    before it is heard, and `keep` renews the machine's certificate. `hosts_file` has the form of
    /etc/hosts and is asked before the resolver. `extra_roots_file` (PEM) is trusted upstream beside
    the public roots. `approvers_file`, where given, says who must have signed a policy before it is
    put in force. `forbidden` are (address, port) pairs that no rule may reach: the fleet's
    listeners; the proxy adds its own. `traces` says where spans go, `trace_headers` what becomes of
    a worker's own. `secret_sources` says where bound credentials come from,
    `server_tls` which roots and client certificates rules may name. `listen_socks` is where SOCKS5
    is spoken, None for nowhere. The audit log goes on in a new file after `audit_segment_bytes`, or
    a little later.
    """

    state_dir: Path
    policy_file: Path
    fleet: FleetAddress
    proxy_id: str = "proxy-local"
    listen_host: str = "127.0.0.1"
    listen_port: int = 8080
    listen_socks: tuple[str, int] | None = None
    hosts_file: Path | None = None
    extra_roots_file: Path | None = None
    approvers_file: Path | None = None
    forbidden: frozenset[tuple[str, int]] = frozenset()
    max_view_age_ms: int = 5_000
    drain_s: float = 2.0
    audit_segment_bytes: int = DEFAULT_SEGMENT_BYTES
    secret_sources: SecretSettings = VAULT_ONLY
    caps: Caps = CAPS
    key: SigningKey | None = None
    join: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)
    keep: Callable[[], Coroutine[object, object, None]] | None = field(default=None, repr=False)
    server_tls: ServerTlsSettings = NOTHING_NAMED
    channels: ChannelSettings = NO_CHANNELS
    deadlines: Deadlines = DEADLINES
    health_address: tuple[str, int] | None = None
    traces: TraceSettings = NO_TRACES
    trace_headers: TraceHeaders = TraceHeaders.PASS

    @property
    def admin_socket(self) -> Path:
        return self.state_dir / "admin.sock"

    @property
    def key_file(self) -> Path:
        return self.state_dir / "proxy.key"

    @property
    def audit_file(self) -> Path:
        return self.state_dir / "audit.jsonl"

    @property
    def ca_dir(self) -> Path:
        return self.state_dir / "ca"

    @property
    def spool_dir(self) -> Path:
        return self.state_dir / "spool"
