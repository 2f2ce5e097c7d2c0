"""The operator's commands about devices, certificates and the authority."""

from argparse import Namespace
from typing import Final

from palyra_fleet.cli.output import acknowledge, moment, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.node_models import RotateDeviceRequest

_DEVICE_COLUMNS: Final = (
    "device_id",
    "client_kind",
    "state",
    "certificate_expires_at_unix_ms",
    "identity_fingerprint",
)
_CERTIFICATE_COLUMNS: Final = (
    "fingerprint_sha256",
    "kind",
    "state",
    "ends_at_unix_ms",
    "device_id",
    "client_kind",
    "serial",
)
_AUTHORITY_COLUMNS: Final = (
    "authority_id",
    "signs_devices",
    "signs_servers",
    "good_certificates",
    "last_ends_at_unix_ms",
    "expires_at_unix_ms",
)


async def list_devices(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.devices(arguments.limit, arguments.state, arguments.kind)
    show_many(found, arguments.output, _DEVICE_COLUMNS)
    return ExitCode.DONE


async def show_device(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_one(await client.device(arguments.device_id), arguments.output)
    return ExitCode.DONE


async def rotate_device(arguments: Namespace, client: OperatorClient) -> ExitCode:
    asked = RotateDeviceRequest(reason=arguments.reason, within_ms=arguments.within_s * 1000)
    device = await client.rotate_device(arguments.device_id, asked)
    show_one(device, arguments.output)
    if device.rotation is not None:
        until = moment(device.rotation.due_at_unix_ms)
        say(f"its certificates of now end at {until}, or once it uses the next; see `device show`")
    return ExitCode.DONE


async def end_device(arguments: Namespace, client: OperatorClient) -> ExitCode:
    forget = arguments.verb == "remove"
    await client.end_device(arguments.device_id, arguments.reason, forget=forget)
    acknowledge(arguments, arguments.device_id, "removed" if forget else "revoked")
    return ExitCode.DONE


async def list_certificates(arguments: Namespace, client: OperatorClient) -> ExitCode:
    within = arguments.expires_within_s
    found = await client.certificates(
        arguments.limit,
        arguments.state,
        arguments.kind,
        arguments.device,
        None if within is None else within * 1000,
    )
    show_many(found, arguments.output, _CERTIFICATE_COLUMNS)
    return ExitCode.DONE


async def show_authorities(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.authorities(), arguments.output, _AUTHORITY_COLUMNS)
    return ExitCode.DONE


async def rotate_authority(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.rotate_authority(arguments.reason)
    show_many(found, arguments.output, _AUTHORITY_COLUMNS)
    say("both are trusted until the last certificate of the old one has ended; see `ca show`")
    return ExitCode.DONE
