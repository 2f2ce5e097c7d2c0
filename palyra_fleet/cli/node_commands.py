"""The operator's commands about nodes. A code goes to stdout alone, so that it can be piped."""

import json
from argparse import Namespace

from palyra_fleet.cli.output import moment, put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.node_models import ApproveDevice, InvokeRequest, PairingCodeRequest

_NODE_COLUMNS = ("device_id", "platform", "connected", "last_seen_at_unix_ms", "last_event_name")
_REQUEST_COLUMNS = (
    "approval_id",
    "state",
    "device_id",
    "client_kind",
    "identity_fingerprint",
    "transcript_hash",
)
_ASKED_COLUMNS = (
    "request_id",
    "state",
    "device_id",
    "capability",
    "requested_by",
    "input_summary",
)


async def mint_code(arguments: Namespace, client: OperatorClient) -> ExitCode:
    ttl_ms = None if arguments.ttl_s is None else arguments.ttl_s * 1000
    minted = await client.mint_pairing_code(
        PairingCodeRequest(method=arguments.method, ttl_ms=ttl_ms)
    )
    if arguments.output in ("json", "yaml"):
        show_one(minted, arguments.output)
    else:
        put(minted.code)
        until = moment(minted.expires_at_unix_ms)
        say(f"good until {until}; then look at `node requests` and approve the device")
    return ExitCode.DONE


async def list_nodes(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.nodes(arguments.limit), arguments.output, _NODE_COLUMNS)
    return ExitCode.DONE


async def show_node(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_one(await client.node(arguments.device_id), arguments.output)
    return ExitCode.DONE


async def list_requests(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.pairing_requests(arguments.limit)
    show_many(found, arguments.output, _REQUEST_COLUMNS)
    return ExitCode.DONE


async def approve(arguments: Namespace, client: OperatorClient) -> ExitCode:
    asked = ApproveDevice(reason=arguments.reason, replace_identity=arguments.replace_identity)
    show_one(await client.approve_device(arguments.approval_id, asked), arguments.output)
    return ExitCode.DONE


async def reject(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.reject_device(arguments.approval_id, arguments.reason)
    show_one(found, arguments.output)
    return ExitCode.DONE


async def invoke(arguments: Namespace, client: OperatorClient) -> ExitCode:
    """The node's output on stdout; exit code 1 if it failed."""
    try:
        given = json.loads(arguments.input)
    except ValueError:
        raise Trouble(
            ExitCode.YOURS, "nothing was asked", "--input is not JSON", "quote it for the shell"
        ) from None
    answer = await client.invoke(
        arguments.device_id, InvokeRequest(capability=arguments.capability, input=given)
    )
    if arguments.output in ("json", "yaml"):
        show_one(answer, arguments.output)
    elif answer.success:
        put(json.dumps(answer.output))
    else:
        say(f"the node failed: {answer.error or 'it did not say why'}")
    return ExitCode.DONE if answer.success else ExitCode.NO


async def list_asked(arguments: Namespace, client: OperatorClient) -> ExitCode:
    found = await client.capability_requests(arguments.limit)
    show_many(found, arguments.output, _ASKED_COLUMNS)
    return ExitCode.DONE


async def decide_asked(arguments: Namespace, client: OperatorClient) -> ExitCode:
    decided = await client.decide_capability(
        arguments.request_id, arguments.reason, approve=arguments.verb == "allow"
    )
    show_one(decided, arguments.output)
    return ExitCode.DONE
