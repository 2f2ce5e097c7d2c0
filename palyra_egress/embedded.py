"""The embedded installation: fleet and proxy in one process, over the same socket as apart.

This is the one module of the egress side that may import the fleet's service. The proxy speaks to
the fleet through its Unix socket with signed requests, exactly as it does as a process of its own,
so there is one path to test. Start order: fleet, its listeners, enrolment of this installation's
own launcher and proxy keys, proxy. Stop order: proxy (delivers its evidence), listeners, store.
"""

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from palyra_egress.audit.segments import DEFAULT_SEGMENT_BYTES
from palyra_egress.credentials.settings import VAULT_ONLY, SecretSettings
from palyra_egress.errors import OperatorMustAct
from palyra_egress.installation import EgressNote, Installation, written
from palyra_egress.proxy.bounds.caps import CAPS, Caps
from palyra_egress.proxy.bounds.deadlines import DEADLINES, Deadlines
from palyra_egress.proxy.channels.settings import NO_CHANNELS, ChannelSettings
from palyra_egress.proxy.egress_proxy import EgressProxy
from palyra_egress.proxy.http.trace_headers import TraceHeaders
from palyra_egress.proxy.settings import ProxySettings
from palyra_egress.proxy.tls.server_tls import NOTHING_NAMED, ServerTlsSettings
from palyra_fleet.exports.running import exporting
from palyra_fleet.exports.settings import NO_EXPORTS, ExportSettings
from palyra_fleet.serve import (
    FleetServer,
    find_operator_token,
    open_principals,
    write_admin_url,
)
from palyra_fleet.service.fleet_service import FleetService
from palyra_fleet.settings.approval_watch import followed
from palyra_fleet.settings.file import settings_file
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.traces.running import FLEET_SERVICE, tracing
from palyra_fleet.traces.settings import NO_TRACES, TraceSettings
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import EnrolKeyRequest

LAUNCHER_NAME = "local"
PROXY_NAME = "proxy-local"
ENROLLED_BY = "installation"
READY_WITHIN_S = 10.0


class NotReady(OperatorMustAct):
    """The proxy did not become ready in time; the message says which check failed."""


@dataclass(frozen=True, slots=True)
class EmbeddedSettings:
    """What the operator chooses. Ports of 0 take a free one."""

    policy_file: Path
    listen_host: str = "127.0.0.1"
    listen_port: int = 0
    listen_socks: tuple[str, int] | None = None
    admin_host: str = "127.0.0.1"
    admin_port: int = 0
    hosts_file: Path | None = None
    extra_roots_file: Path | None = None
    secret_sources: SecretSettings = VAULT_ONLY
    server_tls: ServerTlsSettings = NOTHING_NAMED
    audit_segment_bytes: int = DEFAULT_SEGMENT_BYTES
    trusted_capabilities: frozenset[str] = frozenset()
    fleet_settings_file: Path | None = None
    approval_rules_file: Path | None = None
    two_person_release: bool = False
    approvers_file: Path | None = None
    caps: Caps = CAPS
    deadlines: Deadlines = DEADLINES
    channels: ChannelSettings = NO_CHANNELS
    health_address: tuple[str, int] | None = None
    exports: ExportSettings = NO_EXPORTS
    traces: TraceSettings = NO_TRACES
    trace_headers: TraceHeaders = TraceHeaders.PASS


@dataclass(frozen=True, slots=True)
class Embedded:
    """A running installation."""

    installation: Installation
    fleet: FleetService
    proxy: EgressProxy
    admin_url: str
    note: EgressNote


@asynccontextmanager
async def embedded(
    installation: Installation, settings: EmbeddedSettings
) -> AsyncIterator[Embedded]:
    """Run everything until the block ends."""
    installation.create()
    home = installation.home
    principals = open_principals(home.directory, find_operator_token(home.token_file))
    fleet_settings = _fleet_settings(installation, settings)
    fleet = await FleetService.start(fleet_settings)
    try:
        async with (
            exporting(fleet, settings.exports, home.fleet_state),
            tracing(settings.traces, FLEET_SERVICE) as spans,
            FleetServer.start(
                fleet,
                home.socket_path,
                settings.admin_host,
                settings.admin_port,
                principals,
                operators_socket=home.operators_socket,
                issuers=fleet_settings.file.issuers,
                spans=spans,
            ) as server,
        ):
            await _enrol_own_keys(installation, fleet)
            write_admin_url(home.admin_url_file, server.admin_url)
            proxy = await EgressProxy.start(
                _proxy_settings(installation, settings, server.admin_url)
            )
            try:
                await _until_ready(proxy)
                note = _note(installation, settings, proxy)
                note.write(installation.note)
                yield Embedded(installation, fleet, proxy, server.admin_url, note)
            finally:
                await proxy.stop()
    finally:
        await fleet.close()


def _fleet_settings(installation: Installation, settings: EmbeddedSettings) -> FleetSettings:
    """As `palyra-fleet serve` makes them. Raises SettingsFileError, ApprovalFileError."""
    plain = FleetSettings.trusting(installation.home.fleet_state, settings.trusted_capabilities)
    return replace(
        plain,
        policy=replace(plain.policy, two_person_release=settings.two_person_release),
        file=settings_file(settings.fleet_settings_file),
        approvals=followed(settings.approval_rules_file),
    )


async def _enrol_own_keys(installation: Installation, fleet: FleetService) -> None:
    """Enrol the launcher's and the proxy's public keys of this installation (idempotent)."""
    launcher = SigningKey.load_or_create(installation.launcher_key)
    proxy = SigningKey.load_or_create(installation.egress_state / "proxy.key")
    await fleet.enrol_launcher(ENROLLED_BY, _enrolment(LAUNCHER_NAME, launcher))
    await fleet.enrol_proxy(ENROLLED_BY, _enrolment(PROXY_NAME, proxy))


def _enrolment(name: str, key: SigningKey) -> EnrolKeyRequest:
    return EnrolKeyRequest(name=name, public_key=base64.b64encode(key.public_key).decode())


def _proxy_settings(
    installation: Installation, settings: EmbeddedSettings, admin_url: str
) -> ProxySettings:
    admin = urlsplit(admin_url)
    return ProxySettings(
        state_dir=installation.egress_state,
        policy_file=settings.policy_file,
        fleet=installation.home.socket_path,
        proxy_id=PROXY_NAME,
        listen_host=settings.listen_host,
        listen_port=settings.listen_port,
        listen_socks=settings.listen_socks,
        hosts_file=settings.hosts_file,
        extra_roots_file=settings.extra_roots_file,
        secret_sources=settings.secret_sources,
        server_tls=settings.server_tls,
        audit_segment_bytes=settings.audit_segment_bytes,
        approvers_file=settings.approvers_file,
        caps=settings.caps,
        deadlines=settings.deadlines,
        channels=settings.channels,
        health_address=settings.health_address,
        traces=settings.traces,
        trace_headers=settings.trace_headers,
        forbidden=frozenset({(admin.hostname or "", admin.port or 0)}),
    )


def _note(installation: Installation, settings: EmbeddedSettings, proxy: EgressProxy) -> EgressNote:
    authority = proxy.enforcement.authority
    return EgressNote(
        proxy=written(proxy.address),
        socks="" if proxy.socks_address is None else written(proxy.socks_address),
        fleet_socket=str(installation.home.socket_path.absolute()),
        launcher_key=str(installation.launcher_key.absolute()),
        ca_file=str(authority.root_path.absolute()),
        bundle_file=str(authority.bundle_path.absolute()),
        policy_file=str(settings.policy_file.absolute()),
        audit_file=str(proxy.enforcement.settings.audit_file.absolute()),
        secret_directories=tuple(
            str(path.absolute()) for path in settings.secret_sources.directories
        ),
    )


async def _until_ready(proxy: EgressProxy) -> None:
    """Wait until the proxy has heard the fleet, and the fleet the proxy."""
    try:
        async with asyncio.timeout(READY_WITHIN_S):
            await proxy.enforcement.link.heard.wait()
            await proxy.enforcement.talk.heard.wait()
    except TimeoutError as error:
        wrong = {k: v for k, v in proxy.enforcement.problems().items() if v != "ok"}
        raise NotReady(f"the proxy is not ready: {wrong}") from error
