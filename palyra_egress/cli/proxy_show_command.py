"""`palyra-egress proxy show`: what each worker does right now, from the proxy's own socket."""

import asyncio
import json
from argparse import Namespace
from pathlib import Path
from typing import Any, Final

import aiohttp

from palyra_egress.installation import Installation
from palyra_fleet.cli.output import put, say
from palyra_fleet.cli.trouble import ExitCode, Trouble, reason_of

WITHIN_S: Final = 5.0
_COLUMNS: Final = ("WORKER", "CONNECTIONS", "OUT", "IN", "ALLOWED", "REFUSED", "LAST VERDICT")


def show(arguments: Namespace) -> int:
    """Print the live view; 1 if the proxy says that it is not ready."""
    state = arguments.state_dir or Installation.of_environment().egress_state
    live, checks = asyncio.run(_ask(state / "admin.sock"))
    if arguments.output == "json":
        put(json.dumps({**live, "checks": checks}, indent=2))
    else:
        _table(live)
    failing = {name: text for name, text in checks.items() if text != "ok"}
    for name, text in failing.items():
        say(f"not ready: {name}: {text}")
    return ExitCode.NO if failing else ExitCode.DONE


async def _ask(socket_path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """The live view, and what readiness says check by check."""
    timeout = aiohttp.ClientTimeout(total=WITHIN_S)
    connector = aiohttp.UnixConnector(str(socket_path))
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            async with session.get("http://proxy/live") as answer:
                live = await answer.json()
            async with session.get("http://proxy/readyz") as answer:
                checks = (await answer.json())["checks"]
    except (OSError, aiohttp.ClientError, TimeoutError) as error:
        raise Trouble(
            ExitCode.UNREACHABLE,
            "no proxy answers here",
            f"{socket_path}: {reason_of(error)}",
            "start it, or name its state directory with --state-dir",
        ) from error
    return live, checks


def _table(live: dict[str, Any]) -> None:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    for worker in live["workers"]:
        last = worker["last_verdicts"][-1] if worker["last_verdicts"] else None
        allowed = sum(
            count
            for reason, count in worker["verdicts_by_reason"].items()
            if reason in ("egress.allowed", "egress.observed")
        )
        total = sum(worker["verdicts_by_reason"].values())
        rows.append(
            (
                worker["worker_id"] + (" (blocked)" if worker["blocked"] else ""),
                str(worker["connections"]),
                str(worker["bytes_out"]),
                str(worker["bytes_in"]),
                str(allowed),
                str(total - allowed),
                "" if last is None else f"{last['reason']} {last['method']} {last['target']}",
            )
        )
    widths = [max(len(row[index]) for row in rows) for index in range(len(_COLUMNS))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        put("  ".join(cells).rstrip())
    say(f"{live['connections']} connections, {live['phase']}, policy {live['policy_digest']}")
