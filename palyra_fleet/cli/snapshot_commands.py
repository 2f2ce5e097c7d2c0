"""`palyra-fleet snapshot …`: copies of the fleet's state, and putting one back.

`take` asks the running fleet, which keeps the copy beside its store; `save` reads the state itself.
What a file holds goes to stdout, what was done and what to do next to stderr; programs get what a
restore did with what the file held, under `source`.
"""

import json
from argparse import Namespace
from dataclasses import asdict
from typing import TYPE_CHECKING

from palyra_fleet.cli.output import put, say, show_many, show_one
from palyra_fleet.cli.trouble import ExitCode
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.store import restore as restoring
from palyra_fleet.store import snapshot

if TYPE_CHECKING:
    from palyra_fleet.client import OperatorClient


def save(arguments: Namespace) -> int:
    """Write a checked copy of the state."""
    summary = snapshot.save(arguments.state_dir, arguments.file)
    say(f"saved and checked: {arguments.file}")
    return _show(summary, arguments.output)


async def take(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    """Have the fleet save one."""
    taken = await client.save_snapshot(arguments.reason)
    say(f"saved and checked: {taken.file}, in the fleet's state directory")
    show_one(taken, arguments.output)
    return ExitCode.DONE


async def list_kept(arguments: Namespace, client: "OperatorClient") -> ExitCode:
    """Those that the fleet keeps."""
    show_many(await client.snapshots(), arguments.output)
    return ExitCode.DONE


def inspect(arguments: Namespace) -> int:
    """Check all of a snapshot."""
    return _show(snapshot.inspect(arguments.file), arguments.output)


def restore(arguments: Namespace) -> int:
    """Put a snapshot in place of the state."""
    done = restoring.restore(
        arguments.state_dir,
        arguments.file,
        now_unix_ms(),
        replace=arguments.replace,
        workers_may_return=arguments.workers_may_return,
    )
    say(f"in place; epoch {done.epoch}, fences go on after {done.highest_fence}")
    if done.before in {"read", "incomplete"}:
        say(f"workers held as in the state that was there: {done.kept_confined}")
    if done.before == "incomplete":
        say("the end of that state is lost: nobody knows whom else it held")
    elif done.before != "read":
        say(f"the state that was there is {done.before}: nobody knows whom it held")
    say(f"workers newly quarantined: {done.newly_quarantined}; leases and approvals are void")
    if done.set_aside is not None:
        say(f"the state that was there: {done.set_aside}")
    if arguments.output == "json":
        set_aside = None if done.set_aside is None else str(done.set_aside)
        put(json.dumps({**asdict(done), "set_aside": set_aside}, indent=2))
        return ExitCode.DONE
    return _show(done.source, arguments.output)


def _show(summary: snapshot.SnapshotSummary, output: str) -> int:
    facts = asdict(summary)
    if output == "json":
        put(json.dumps(facts, indent=2))
    else:
        width = max(map(len, facts))
        put("\n".join(f"{name:{width}}  {value}" for name, value in facts.items()))
    return ExitCode.DONE
