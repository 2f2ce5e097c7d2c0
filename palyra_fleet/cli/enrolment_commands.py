"""The operator's commands about launchers, proxies and reference values."""

from argparse import Namespace

from palyra_fleet.cli.output import acknowledge, put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.enrolment_models import WithdrawReferences
from palyra_fleet.wire.models import EnrolKeyRequest, ReferenceValues
from palyra_fleet.worker.launcher import measure


async def enrol(arguments: Namespace, client: OperatorClient) -> ExitCode:
    """By key, good on the fleet's machine; or by paired device, good on that device."""
    kind, name = arguments.noun, arguments.name
    if (arguments.public_key is None) == (arguments.device is None):
        raise Trouble(
            ExitCode.YOURS,
            f"it is not said which {kind} that is",
            "expected a public key, or --device with the id of a paired machine",
            f"`palyra-fleet {kind} enrol {name} KEY`, or `… {name} --device ID`",
        )
    if arguments.device is not None:
        await client.enrol_device(kind, name, arguments.device)
    else:
        await client.enrol(kind, EnrolKeyRequest(name=name, public_key=arguments.public_key))
    acknowledge(arguments, name, f"{kind} {name} is enrolled")
    return ExitCode.DONE


async def list_enrolled(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.enrolments(arguments.noun), arguments.output)
    return ExitCode.DONE


async def revoke(arguments: Namespace, client: OperatorClient) -> ExitCode:
    kind, name = arguments.noun, arguments.name
    await client.take_back(kind, name, arguments.reason)
    sentence = f"{kind} {name} is taken back; who rested on it must attest anew"
    acknowledge(arguments, name, sentence)
    return ExitCode.DONE


async def add_reference(arguments: Namespace, client: OperatorClient) -> ExitCode:
    """Digests as given, and those of a program measured here and now."""
    values = _values(arguments, "add")
    await client.add_reference_values(values)
    _show_values(values, arguments.output)
    return ExitCode.DONE


async def list_references(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.reference_values(), arguments.output)
    return ExitCode.DONE


async def withdraw_reference(arguments: Namespace, client: OperatorClient) -> ExitCode:
    values = _values(arguments, "withdraw")
    await client.withdraw_references(WithdrawReferences(values=values, reason=arguments.reason))
    if arguments.output != "table":
        _show_values(values, arguments.output)
    say("withdrawn; who runs what these describe must attest anew, and will not be admitted")
    return ExitCode.DONE


def _show_values(values: ReferenceValues, form: str) -> None:
    """All of them; as names, each digest on a line of its own."""
    if form != "name":
        show_one(values, form)
        return
    for digests in values.model_dump().values():
        for digest in digests:
            put(digest)


def _values(arguments: Namespace, verb: str) -> ReferenceValues:
    image, build, artifact = arguments.image, arguments.build, arguments.artifact
    if arguments.measure is not None:
        measured = measure(arguments.measure)
        artifact = [*artifact, measured.artifact.digest_sha256]
        if verb == "add":  # system and build are everybody's: they are not withdrawn by the way
            image = [*image, measured.image_digest_sha256]
            build = [*build, measured.build_digest_sha256]
    values = ReferenceValues(
        image_digests_sha256=tuple(image),
        build_digests_sha256=tuple(build),
        artifact_digests_sha256=tuple(artifact),
    )
    if values == ReferenceValues():
        raise Trouble(
            ExitCode.YOURS,
            f"there is nothing to {verb}",
            "no digest was given",
            "pass --image, --build, --artifact or --measure PROGRAM",
        )
    return values
