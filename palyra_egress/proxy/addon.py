"""The same enforcement under `mitmdump -s`, for people who live in mitmproxy.

Loading the script rebinds the connection handler that mitmproxy's listeners make, and this stays
so for the life of the process: editing, breaking or deleting the script, removing the addon, or
another addon that raises changes nothing about it. Before the enforcement is open, every
connection is reset; once it is closed, every request is refused. Foreign addons run before the
guard and cannot change what it decided. Options that would open a hole are locked.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

from mitmproxy import ctx, exceptions
from mitmproxy.addonmanager import Loader
from mitmproxy.proxy import mode_servers
from mitmproxy.proxy.mode_servers import ProxyConnectionHandler

from palyra_egress.credentials.settings import KvChoices, secret_settings
from palyra_egress.destination.listener import listener_of
from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.errors import PolicyFileError
from palyra_egress.proxy.bounds.deadline_options import DEADLINE_OPTIONS, deadlines_with
from palyra_egress.proxy.egress_proxy import Enforcement, guard_factory
from palyra_egress.proxy.handler import EnforcingHandler
from palyra_egress.proxy.master import LOCKED_OPTIONS
from palyra_egress.proxy.settings import ProxySettings
from palyra_egress.proxy.tls.server_tls import server_tls_settings
from palyra_fleet.core_files import CoreFilesAllowed, forbid_core_files
from palyra_fleet.logs.faults import fault_of
from palyra_fleet.tasks import spawn
from palyra_fleet.trusted_files import UntrustedFile
from palyra_fleet.wire.keys import KeyFileError

OPTIONS: Final = {
    "palyra_state_dir": "Directory of the proxy's key, CA, audit log and spool.",
    "palyra_policy": "The policy file.",
    "palyra_fleet_socket": "The fleet's Unix socket.",
    "palyra_proxy_id": "The name this proxy is enrolled under.",
    "palyra_hosts_file": "Names to resolve first, as in /etc/hosts; empty for none.",
    "palyra_forbid": "IP:PORT pairs (commas between) that are never a target, as the admin API.",
    "palyra_approvers": "Who must have signed the policy, outside its folder; empty for nobody.",
    "palyra_extra_roots": "CAs (PEM) to trust upstream beside the public ones; empty for none.",
    "palyra_upstream_roots": "NAME=PEM (commas between) that rules may name; empty for none.",
    "palyra_client_certificates": "NAME=CERT,KEY (semicolons between), likewise.",
    "palyra_master_key_file": "The vault's master key; empty for the one in the state directory.",
    "palyra_secrets_dir": "Mounted files that policies name as file:NAME; empty for none.",
    "palyra_secret_env": "Variables (commas between) that policies may name as env:NAME.",
    "palyra_kv_url": "HashiCorp Vault, for kv: references; empty for none.",
    "palyra_kv_token_file": "The token for it, read again on change.",
    "palyra_kv_ca": "CAs (PEM) to trust for it; empty for the public ones.",
    "palyra_kv_namespace": "Its namespace; empty for none.",
    "palyra_kv_v1_mounts": "Its mounts (commas between) that are KV version 1.",
    **{f"palyra_{one.name}": f"Seconds: {one.help}." for one in DEADLINE_OPTIONS},
}
_REQUIRED: Final = ("palyra_state_dir", "palyra_policy", "palyra_fleet_socket", "palyra_proxy_id")
_ALSO_LOCKED: Final[dict[str, object]] = {
    "flow_detail": 0,
    "onboarding": False,
    "client_certs": None,
}

_TOLD_IN_FULL: Final = (
    OperatorMustAct,
    PolicyFileError,
    KeyFileError,
    CoreFilesAllowed,
    UntrustedFile,
    OSError,
)
"""Errors whose text is for the operator; of every other one only the type and the place is told."""

_log = logging.getLogger(__name__)


class OptionRefused(OperatorMustAct):
    """An option is missing or is none; the text says which and what was expected."""


class _Installed:
    """The one enforcement of this process, None until it is open, and the options it goes by."""

    enforcement: Enforcement | None = None
    options: dict[str, str] | None = None
    ending: asyncio.Task[None] | None = None


class ScriptedHandler(EnforcingHandler):
    """The enforcing handler as mitmproxy's own listeners construct it.

    It cannot refuse by raising: mitmdump ends when an error is logged while it starts.
    """

    def __init__(self, master: Any, reader: Any, writer: Any, options: Any, mode: Any) -> None:
        enforcement = _Installed.enforcement
        self._open = enforcement is not None and isinstance(writer, asyncio.StreamWriter)
        if enforcement is not None and self._open:
            super().__init__(
                master,
                reader,
                writer,
                options,
                mode,
                make_guard=guard_factory(enforcement.parts),
                chain=master.addons.handle_lifecycle,
            )
            return
        ProxyConnectionHandler.__init__(self, master, reader, writer, options, mode)  # type: ignore[no-untyped-call]
        if isinstance(writer, asyncio.StreamWriter):
            writer.transport.abort()
        else:
            writer.close()

    async def handle_client(self) -> None:
        """Nothing at all while the enforcement is not open, or on anything but TCP."""
        if self._open:
            await super().handle_client()


class PalyraEgressAddon:
    """Installs the enforcement. What it does afterwards is only to lock options."""

    name = "palyra_egress"

    def load(self, loader: Loader) -> None:
        mode_servers.ProxyConnectionHandler = ScriptedHandler  # type: ignore[misc]
        for option, text in OPTIONS.items():
            loader.add_option(option, str, "", text)
        ctx.options.update(**_locked())  # type: ignore[no-untyped-call]

    def configure(self, updated: set[str]) -> None:
        for option, value in _locked().items():
            if option in updated and getattr(ctx.options, option) != value:
                raise exceptions.OptionsError(  # type: ignore[no-untyped-call]
                    f"{option} is locked to {value!r} by Palyra"
                )
        if "mode" in updated and not all(
            mode.partition("@")[0] == "regular" for mode in ctx.options.mode
        ):
            raise exceptions.OptionsError(  # type: ignore[no-untyped-call]
                "only the mode 'regular' is enforced by Palyra"
            )
        for option, value in (_Installed.options or {}).items():
            if option in updated and getattr(ctx.options, option) != value:
                raise exceptions.OptionsError(  # type: ignore[no-untyped-call]
                    f"{option} is read when mitmproxy starts; start it anew with another value"
                )

    def running(self) -> None:
        if _Installed.enforcement is not None:
            return  # the script was loaded again; the enforcement never went away
        try:
            forbid_core_files()
            enforcement = Enforcement.open(_settings())
        except Exception as error:  # noqa: BLE001 whatever is wrong, nothing may be forwarded
            what = str(error) if isinstance(error, _TOLD_IN_FULL) else fault_of(error)
            _log.error("the enforcement cannot be opened, so mitmproxy stops: %s", what)
            ctx.master.shutdown()  # type: ignore[no-untyped-call]
            return
        proxyserver = ctx.master.addons.get("proxyserver")  # type: ignore[no-untyped-call]
        listening = frozenset((str(a[0]), int(a[1])) for a in proxyserver.listen_addrs())
        enforcement.begin(listening)
        _Installed.enforcement, _Installed.options = enforcement, _values()

    def done(self) -> None:
        """Close only when the whole process ends; an unloaded script changes nothing."""
        enforcement = _Installed.enforcement
        if enforcement is None or not ctx.master.should_exit.is_set():
            return
        enforcement.refuse_everything()
        _Installed.ending = spawn(enforcement.end(), "end the enforcement")


def _locked() -> dict[str, object]:
    return {**LOCKED_OPTIONS, **_ALSO_LOCKED}


def _values() -> dict[str, str]:
    return {name: str(getattr(ctx.options, name)) for name in OPTIONS}


def _settings() -> ProxySettings:
    values = _values()
    missing = [name for name in _REQUIRED if not values[name]]
    if missing:
        raise OptionRefused(f"set {', '.join(missing)} with --set NAME=VALUE")
    return ProxySettings(
        state_dir=Path(values["palyra_state_dir"]),
        policy_file=Path(values["palyra_policy"]),
        fleet=Path(values["palyra_fleet_socket"]),
        proxy_id=values["palyra_proxy_id"],
        hosts_file=_path(values["palyra_hosts_file"]),
        extra_roots_file=_path(values["palyra_extra_roots"]),
        approvers_file=_path(values["palyra_approvers"]),
        forbidden=frozenset(_pair(text) for text in _words(values["palyra_forbid"])),
        server_tls=server_tls_settings(
            _words(values["palyra_upstream_roots"]),
            _words(values["palyra_client_certificates"], ";"),
        ),
        secret_sources=secret_settings(
            _path(values["palyra_master_key_file"]),
            _path(values["palyra_secrets_dir"]),
            _words(values["palyra_secret_env"]),
            KvChoices(
                values["palyra_kv_url"] or None,
                _path(values["palyra_kv_token_file"]),
                _path(values["palyra_kv_ca"]),
                values["palyra_kv_namespace"] or None,
                frozenset(_words(values["palyra_kv_v1_mounts"])),
            ),
        ),
        deadlines=deadlines_with(values, "palyra_"),
    )


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _words(text: str, between: str = ",") -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(between) if word.strip()]


def _pair(text: str) -> tuple[str, int]:
    try:
        return listener_of(text)
    except ValueError as error:
        raise OptionRefused(f"palyra_forbid: {text!r}; {error}") from None
