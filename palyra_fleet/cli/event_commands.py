"""`palyra-fleet event …`: the event log, as it was and as it goes on.

`tail --follow` asks for what comes after the last entry it showed, each time, so an entry is shown
once whatever happens to the fleet meanwhile. When the fleet is away it says so and comes again,
also where the fleet then listens elsewhere. Entries are a chain: one that does not follow the last
that was shown means that an older state was restored, which is said.
"""

import asyncio
from argparse import Namespace
from collections import deque
from typing import Final

from pydantic import BaseModel

from palyra_fleet.cli.away import Told, fresh_client, passes
from palyra_fleet.cli.output import put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.client import FleetProblem, FleetUnavailable, OperatorClient
from palyra_fleet.wire.models import EventView

_PAGE: Final = 1000
_WAIT_S: Final = 30
_PAUSE_S: Final = 1.0
_LONGEST_PAUSE_S: Final = 10.0


class Verified(BaseModel):
    """A log that is whole: so many entries, each chained to the one before."""

    entries: int


async def tail_events(arguments: Namespace, client: OperatorClient) -> ExitCode:
    """The last lines of the log; with --follow, whatever comes after them."""
    seen: int = arguments.after_seq
    last: deque[EventView] = deque(maxlen=arguments.lines)
    newest: EventView | None = None
    while page := await client.events(seen, _PAGE):
        last.extend(page)
        newest = page[-1]
        seen = newest.seq
    show_many(tuple(last), arguments.output)
    if arguments.follow:
        await _follow(arguments, client, seen, newest)
    return ExitCode.DONE


async def _follow(
    arguments: Namespace, client: OperatorClient, seen: int, newest: EventView | None
) -> None:
    """Show what comes after entry `seen` until somebody ends it, or the fleet refuses."""
    while True:
        try:
            page = await client.events(seen, _PAGE, wait_s=_WAIT_S)
        except (FleetUnavailable, FleetProblem) as error:
            if not passes(error):
                raise
            say(f"the fleet is away ({error}); this goes on after entry {seen} once it is back")
            page = await _once_back(arguments, seen)
            say("the fleet is back")
        if page:
            _look_at_seam(page[0], seen, newest)
            show_many(page, arguments.output)
            newest = page[-1]
            seen = newest.seq


async def _once_back(arguments: Namespace, seen: int) -> tuple[EventView, ...]:
    """What comes after entry `seen`, from the fleet where it is by then."""
    pause_s, told = _PAUSE_S, Told()
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        try:
            async with fresh_client(arguments) as client:
                return await client.events(seen, _PAGE)
        except Trouble as trouble:
            told.tell(trouble)
        except (FleetUnavailable, FleetProblem) as error:
            if not passes(error):
                raise


def _look_at_seam(first: EventView, seen: int, newest: EventView | None) -> None:
    """Say what is not as it should be between what was shown and what comes now."""
    if first.seq != seen + 1:
        say(f"entries {seen + 1} to {first.seq - 1} are not here; old ones are in event-archive/")
    elif newest is not None and first.previous_sha256 != newest.sha256:
        say(f"entry {seen} is another one by now: an older state was restored")


async def verify_events(arguments: Namespace, client: OperatorClient) -> ExitCode:
    entries = await client.verify_events()
    if arguments.output in ("json", "yaml"):
        show_one(Verified(entries=entries), arguments.output)
    else:
        put(f"{entries} entries, whole")
    return ExitCode.DONE
