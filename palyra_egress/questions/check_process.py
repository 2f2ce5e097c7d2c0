"""A check of files that somebody sent, in a process of its own with bounds of its own.

A few hundred bytes can describe a policy that takes minutes to read or to compare (every host with
every path, method and profile), and anybody who may look may ask. So it takes neither the proxy's
processor nor its memory: the process is given a few seconds of the processor, and `WITHIN_S` on a
busy machine, and then ended, and what it wrote goes with it.
`python -m palyra_egress.questions.check_process` reads from stdin what this proxy wrote:
the policy in force, the question and the time (Unix ms), pickled; it prints a `Checked` as JSON.
"""

import asyncio
import contextlib
import os
import pickle
import resource
import sys
import tempfile
from typing import Final

from pydantic import ValidationError

from palyra_egress.policy.compile import CompiledPolicy
from palyra_egress.questions.bundle import checked
from palyra_fleet.wire.policy_models import AskCheck, Checked, PolicyProblem

WITHIN_S: Final = 9.0
"""Shorter than the fleet waits for an answer, and than it takes a proxy that says nothing for."""
_CPU_S: Final = 4
"""What a check may cost, and the end of one that outlives its proxy. The soft bound is the hard
one: it ends without a core file."""
_MEMORY_BYTES: Final = 1024 * 1024 * 1024
_NICENESS: Final = 10
_NOT_HERE: Final = "look at them with `palyra-egress policy check` and `policy diff`"


async def checked_apart(in_force: CompiledPolicy, asked: AskCheck, now_unix_ms: int) -> Checked:
    """`checked`, or that it cannot be told here. Raises OSError where no process can be started."""
    given = pickle.dumps((in_force, asked.model_dump_json(), now_unix_ms))
    with tempfile.TemporaryDirectory(prefix="palyra-check-") as folder:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "palyra_egress.questions.check_process"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=os.environ | {"TMPDIR": folder},
        )
        try:
            async with asyncio.timeout(WITHIN_S):
                out, _ = await process.communicate(given)
        except TimeoutError:
            return _untold(f"checking these files takes longer than {WITHIN_S:.0f} s")
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
    try:
        return Checked.model_validate_json(out)
    except ValidationError:
        return _untold("checking these files takes more than there is for it")


def _untold(why: str) -> Checked:
    return Checked(good=False, problems=(PolicyProblem(message=f"{why}; {_NOT_HERE}"),))


def main() -> int:
    with contextlib.suppress(OSError, ValueError):  # a unit may forbid it
        os.nice(_NICENESS)
    for bound, most in ((resource.RLIMIT_CPU, _CPU_S), (resource.RLIMIT_AS, _MEMORY_BYTES)):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(bound, (most, most))
    in_force, asked, now_unix_ms = pickle.load(sys.stdin.buffer)  # noqa: S301 (our parent wrote it)
    found = checked(in_force, AskCheck.model_validate_json(asked), now_unix_ms)
    sys.stdout.write(found.model_dump_json())
    return 0


if __name__ == "__main__":
    sys.exit(main())
