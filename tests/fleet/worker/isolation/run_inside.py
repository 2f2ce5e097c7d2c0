"""Runs one program as an isolated worker's, with this process's standard streams: no fleet, no
proxy, no lease; proven before, if that is asked for. One argument of JSON: {workspace, directory,
hidden, command, proven}."""

import asyncio
import json
import sys
from pathlib import Path

from palyra_fleet.worker.isolation.proof import prove_isolation
from palyra_fleet.worker.isolation.sandbox import make_view, own_code
from palyra_fleet.worker.isolation.start import IsolationUnavailable, Order, start_isolated


async def main() -> int:
    asked = json.loads(sys.argv[1])
    hidden = [Path(path) for path in asked["hidden"]]
    directory = Path(asked["directory"])
    command = asked["command"]
    try:
        view = make_view(hidden, Path(asked["workspace"]), directory, (Path("/root"),), own_code())
        if asked["proven"]:
            await prove_isolation(view)
        order = Order(Path(command[0]), tuple(command), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        started = await start_isolated(view, order)
    except IsolationUnavailable as error:
        sys.stderr.write(f"unavailable: {error}\n")
        return 99
    code = await started.process.wait()
    started.namespace.let_go()
    started.door.close()
    return code


if __name__ == "__main__":
    raise SystemExit(asyncio.run(main()))
