"""Commands about principals. A token that was made goes to stdout alone, so that it can be piped
into the file it is kept in; what it is for goes to stderr."""

from argparse import Namespace

from palyra_fleet.cli.output import acknowledge, put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.principal_models import CreatePrincipal, PrincipalToken, Role

COLUMNS = ("name", "roles", "created_at_unix_ms", "expires_at_unix_ms")


async def show_self(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_one(await client.who_am_i(), arguments.output)
    return ExitCode.DONE


async def list_principals(arguments: Namespace, client: OperatorClient) -> ExitCode:
    show_many(await client.principals(), arguments.output, COLUMNS)
    return ExitCode.DONE


async def create(arguments: Namespace, client: OperatorClient) -> ExitCode:
    request = CreatePrincipal(
        name=arguments.name,
        roles=tuple(Role(role) for role in dict.fromkeys(arguments.role)),
        ttl_ms=None if arguments.ttl_s is None else arguments.ttl_s * 1000,
        reason=arguments.reason,
    )
    return _hand_over(await client.create_principal(request), arguments.output)


async def revoke(arguments: Namespace, client: OperatorClient) -> ExitCode:
    await client.revoke_principal(arguments.name, arguments.reason)
    sentence = f"the token of {arguments.name} is worth nothing any more"
    acknowledge(arguments, arguments.name, sentence)
    return ExitCode.DONE


async def rotate(arguments: Namespace, client: OperatorClient) -> ExitCode:
    made = await client.rotate_principal(arguments.name, arguments.reason)
    return _hand_over(made, arguments.output)


def _hand_over(made: PrincipalToken, form: str) -> ExitCode:
    if form in ("json", "yaml"):
        show_one(made, form)
        return ExitCode.DONE
    put(made.token)
    say(f"the token of {made.principal.name}; it is not shown again")
    return ExitCode.DONE
