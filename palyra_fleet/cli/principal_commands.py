"""Commands about principals. A token that was made goes to stdout alone, so that it can be piped
into the file it is kept in; what it is for goes to stderr."""

from argparse import Namespace

from palyra_fleet.cli.output import acknowledge, put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import OperatorClient
from palyra_fleet.wire.principal_models import CreatePrincipal, PrincipalToken, Role, Subject

COLUMNS = ("name", "roles", "created_at_unix_ms", "expires_at_unix_ms", "subject")


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
        subject=_subject(arguments),
        reason=arguments.reason,
    )
    return _hand_over(await client.create_principal(request), arguments.output)


def _subject(arguments: Namespace) -> Subject | None:
    if arguments.issuer is None and arguments.subject is None:
        return None
    if arguments.issuer is None or arguments.subject is None:
        raise Trouble(
            ExitCode.YOURS,
            "nobody can be made known so",
            "--issuer and --subject belong together",
            "give both, or neither for a token of the fleet",
        )
    return Subject(issuer=arguments.issuer, subject=arguments.subject)


async def revoke(arguments: Namespace, client: OperatorClient) -> ExitCode:
    await client.revoke_principal(arguments.name, arguments.reason)
    sentence = f"what {arguments.name} was known by is worth nothing any more"
    acknowledge(arguments, arguments.name, sentence)
    return ExitCode.DONE


async def rotate(arguments: Namespace, client: OperatorClient) -> ExitCode:
    made = await client.rotate_principal(arguments.name, arguments.reason)
    return _hand_over(made, arguments.output)


def _hand_over(made: PrincipalToken, form: str) -> ExitCode:
    if form in ("json", "yaml"):
        show_one(made, form)
        return ExitCode.DONE
    if made.token is None:
        put(made.principal.name)
        say("no token was made: the issuer's are believed for this subject")
        return ExitCode.DONE
    put(made.token)
    say(f"the token of {made.principal.name}; it is not shown again")
    return ExitCode.DONE
