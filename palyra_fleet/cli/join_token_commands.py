"""Commands about join tokens. A token that was minted goes to stdout alone, so that it can be piped
into the file that a worker reads it from; what it is for goes to stderr."""

from argparse import ArgumentParser, Namespace, _SubParsersAction
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from palyra_fleet.cli import argument_types as types
from palyra_fleet.cli.later import Command
from palyra_fleet.cli.output import acknowledge, put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.wire.join_models import MintJoinToken

if TYPE_CHECKING:
    from palyra_fleet.client import OperatorClient

COLUMNS: Final = ("token_id", "identity", "minted_by", "expires_at_unix_ms", "revoked")

type _Verbs = _SubParsersAction[ArgumentParser]


def add_join_tokens(
    verbs: _Verbs, make: Callable[[_Verbs, str, str, Command], ArgumentParser]
) -> None:
    """Add the verbs; `make` gives each what operator's verbs have in common."""
    minted = make(verbs, "mint", "let one worker join; prints the token once", mint)
    minted.add_argument("identity", type=types.name, help="what the worker is called for ever")
    minted.add_argument("--ttl-s", type=types.seconds, default=600, help="until when it may join")
    minted.add_argument(
        "--session-s", type=types.seconds, default=12 * 3600, help="how long it may attest with it"
    )
    minted.add_argument(
        "--label",
        type=types.label_given,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="give it this label when it is new to the fleet (may be repeated)",
    )
    make(verbs, "list", "every token, newest first", list_tokens)
    revoked = make(verbs, "revoke", "take a token back, used or not", revoke)
    revoked.add_argument("token_id", type=types.ulid)
    for verb in (minted, revoked):
        verb.add_argument("--reason", type=types.reason, required=True)


async def mint(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    made = await client.mint_join_token(
        MintJoinToken(
            identity=arguments.identity,
            ttl_ms=arguments.ttl_s * 1000,
            session_ms=arguments.session_s * 1000,
            labels=dict(arguments.label),
            reason=arguments.reason,
        )
    )
    if arguments.output in ("json", "yaml"):
        show_one(made, arguments.output)
        return ExitCode.DONE
    about = made.join_token
    put(made.token)
    say(f"a join token for {about.identity} ({about.token_id}); it is not shown again")
    return ExitCode.DONE


async def list_tokens(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    show_many(await client.join_tokens(), arguments.output, COLUMNS)
    return ExitCode.DONE


async def revoke(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    await client.revoke_join_token(arguments.token_id, arguments.reason)
    acknowledge(arguments, arguments.token_id, "the token lets nobody join any more")
    return ExitCode.DONE
