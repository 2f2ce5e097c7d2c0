"""Commands that serve: the whole installation in one process, or the proxy alone."""

import asyncio
import base64
import signal
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from palyra_egress.cli.channel_arguments import channels_of
from palyra_egress.cli.deadline_arguments import deadlines_of
from palyra_egress.cli.fleet_place import place_of
from palyra_egress.cli.secret_arguments import secrets_of
from palyra_egress.cli.settled_heap import settle_heap
from palyra_egress.embedded import EmbeddedSettings, embedded
from palyra_egress.installation import Installation, written
from palyra_egress.policy.load import load_policy_file
from palyra_egress.proxy.bounds.caps import CAPS, Caps
from palyra_egress.proxy.egress_proxy import EgressProxy
from palyra_egress.proxy.http.trace_headers import TraceHeaders
from palyra_egress.proxy.settings import ProxySettings
from palyra_egress.proxy.tls.server_tls import server_tls_settings
from palyra_fleet.cli.export_arguments import exports_of
from palyra_fleet.cli.output import announce, put, say
from palyra_fleet.cli.trace_arguments import traces_of
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.core_files import forbid_core_files
from palyra_fleet.supervised import serving_notice
from palyra_fleet.wire.keys import SigningKey


def up(arguments: Namespace) -> int:
    """Fleet, proxy and admin API in one process, until Ctrl-C or SIGTERM."""
    forbid_core_files()
    return asyncio.run(_up(arguments))


def serve_proxy(arguments: Namespace) -> int:
    """The proxy as a process of its own, beside a fleet on this machine or on another one."""
    forbid_core_files()
    return asyncio.run(_serve_proxy(arguments))


def proxy_key(arguments: Namespace) -> int:
    """Print the proxy's public key, base64, as `palyra-fleet proxy enrol` takes it."""
    key = SigningKey.load_or_create(arguments.state_dir / "proxy.key")
    put(base64.b64encode(key.public_key).decode())
    return ExitCode.DONE


async def _up(arguments: Namespace) -> int:
    installation = Installation.of_environment()
    host, port = arguments.listen
    admin_host, admin_port = arguments.admin
    settings = EmbeddedSettings(
        policy_file=arguments.policy,
        listen_host=host,
        listen_port=port,
        listen_socks=arguments.listen_socks,
        admin_host=admin_host,
        admin_port=admin_port,
        hosts_file=arguments.hosts_file,
        extra_roots_file=arguments.extra_roots,
        secret_sources=secrets_of(arguments),
        server_tls=server_tls_settings(arguments.upstream_roots, arguments.client_certificate),
        audit_segment_bytes=arguments.audit_segment_bytes,
        trusted_capabilities=frozenset(arguments.trust_capability),
        fleet_settings_file=arguments.settings,
        approval_rules_file=arguments.approval_rules,
        two_person_release=arguments.two_person_release,
        approvers_file=arguments.approvers,
        caps=_caps(arguments),
        deadlines=deadlines_of(arguments),
        channels=channels_of(arguments),
        health_address=arguments.health,
        exports=exports_of(arguments),
        traces=traces_of(arguments),
        trace_headers=TraceHeaders(arguments.trace_context),
    )
    profiles = " | ".join(sorted(load_policy_file(arguments.policy).profiles))
    ended = _until_told_to_end()
    async with embedded(installation, settings) as running:
        announce(f"proxy           http://{running.note.proxy}")
        if running.note.socks:
            announce(f"SOCKS5          socks5h://{running.note.socks}")
        announce(f"admin API       {running.admin_url}")
        announce(f"console         {running.admin_url}/console")
        announce(f"operator token  {installation.home.token_file.absolute()}")
        announce(f"policy          {running.note.policy_file} (changes are picked up)")
        announce(f"profiles        {profiles}")
        announce(f"state           {installation.directory.absolute()}")
        announce("")
        announce("run any program as a worker:")
        announce(f"  {_command()} run --profile PROFILE -- CMD")
        announce("")
        announce("Ctrl-C stops everything in order.")
        settle_heap()
        with serving_notice():
            await ended.wait()
        say("stopping")
    say("stopped")
    return ExitCode.DONE


async def _serve_proxy(arguments: Namespace) -> int:
    host, port = arguments.listen
    ended = _until_told_to_end()
    place = place_of(arguments)
    proxy = await EgressProxy.start(
        ProxySettings(
            state_dir=arguments.state_dir,
            policy_file=arguments.policy,
            fleet=place.fleet,
            key=place.key,
            join=place.join,
            keep=place.keep,
            proxy_id=place.proxy_id,
            listen_host=host,
            listen_port=port,
            listen_socks=arguments.listen_socks,
            hosts_file=arguments.hosts_file,
            extra_roots_file=arguments.extra_roots,
            secret_sources=secrets_of(arguments),
            server_tls=server_tls_settings(arguments.upstream_roots, arguments.client_certificate),
            approvers_file=arguments.approvers,
            caps=_caps(arguments),
            deadlines=deadlines_of(arguments),
            channels=channels_of(arguments),
            health_address=arguments.health,
            forbidden=frozenset(arguments.forbid) | place.forbidden,
            audit_segment_bytes=arguments.audit_segment_bytes,
            traces=traces_of(arguments),
            trace_headers=TraceHeaders(arguments.trace_context),
        )
    )
    try:
        announce(f"proxy           http://{written(proxy.address)}")
        if proxy.socks_address is not None:
            announce(f"SOCKS5          socks5h://{written(proxy.socks_address)}")
        announce(f"worker CA       {proxy.enforcement.authority.root_path.absolute()}")
        announce(f"worker bundle   {proxy.enforcement.authority.bundle_path.absolute()}")
        settle_heap()
        with serving_notice():
            await ended.wait()
        say("stopping")
    finally:
        await proxy.stop()
    say("stopped")
    return ExitCode.DONE


def _caps(arguments: Namespace) -> Caps:
    return Caps(
        connections=arguments.max_connections,
        connections_per_worker=arguments.max_connections_per_worker,
        openings_per_worker=arguments.max_openings_per_worker,
        new_leaves_per_minute=arguments.max_new_leaves,
        further_upstreams=arguments.max_further_upstreams,
        lookups=replace(
            CAPS.lookups,
            at_once=arguments.max_lookups,
            per_asker=arguments.max_lookups_per_worker,
        ),
    )


def _until_told_to_end() -> asyncio.Event:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    return ended


def _command() -> str:
    """How the console script of this environment is called from here."""
    script = Path(".venv/bin/palyra-egress")
    return str(script) if script.exists() else "palyra-egress"
