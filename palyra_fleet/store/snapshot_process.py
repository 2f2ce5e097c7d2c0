"""A snapshot made by a process of its own: `python -m palyra_fleet.store.snapshot_process`.

Checking all of a snapshot takes a while of the processor and as much memory as the state does; the
fleet goes on meanwhile. Arguments: the state directory and the file to write. Prints what the file
holds as JSON, or on stderr, with exit code 1, why there is none.
"""

import asyncio
import contextlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from palyra_fleet.store import snapshot
from palyra_fleet.store.protocol import StateUnusable, StoreFailed
from palyra_fleet.store.snapshot import SnapshotSummary

WITHIN_S: Final = 600
_S_PER_MIB: Final = 2
"""And so much more for what the store has: all of it is written, read and checked, at the lowest
pace that a busy machine leaves to a process that is nice."""
_NICENESS: Final = 10
_MAX_TOLD: Final = 500
_SUMMARY: Final = TypeAdapter(SnapshotSummary)


def within_s(store_bytes: int) -> int:
    """How long a snapshot of a store of this size may take, in seconds."""
    return WITHIN_S + _S_PER_MIB * (store_bytes // 2**20)


async def save_apart(state_dir: Path, target: Path, store_bytes: int) -> SnapshotSummary:
    """`snapshot.save` in a process of its own, which ends with the caller, and in the time that a
    store of this size may take. Raises StoreFailed."""
    allowed_s = within_s(store_bytes)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "palyra_fleet.store.snapshot_process"),
        *(str(state_dir), str(target)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(allowed_s):
            out, err = await process.communicate()
    except TimeoutError:
        raise StoreFailed(f"no snapshot within {allowed_s} s", ambiguous=False) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode != 0:
        why = err.decode(errors="replace").strip()[-_MAX_TOLD:] or f"ended: {process.returncode}"
        raise StoreFailed(why, ambiguous=False)
    try:
        return _SUMMARY.validate_json(out, strict=True, extra="forbid")
    except ValidationError:
        raise StoreFailed("what saved it did not say what it holds", ambiguous=False) from None


def main(arguments: list[str]) -> int:
    state_dir, target = map(Path, arguments)
    with contextlib.suppress(OSError):  # a unit may forbid it
        os.nice(_NICENESS)
    try:
        summary = snapshot.save(state_dir, target)
    except (StateUnusable, StoreFailed) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(json.dumps(asdict(summary)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
