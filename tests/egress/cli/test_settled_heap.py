"""What a program made at its start is in no later collection of garbage.

In a process of its own, since it holds for the rest of it.
"""

import subprocess
import sys

_TRY = """
import gc
import palyra_egress.proxy.egress_proxy
from palyra_egress.cli.settled_heap import settle_heap

class Loop:
    pass

garbage = Loop()
garbage.itself = garbage
del garbage
before = len(gc.get_objects())
settle_heap()
kept = [one for one in gc.get_objects() if isinstance(one, Loop)]
later = Loop()
later.itself = later
del later
print(before > 50_000, len(gc.get_objects()) < 1_000, gc.get_freeze_count() > 50_000)
print(kept, gc.collect() >= 1)
"""


def test_what_there_is_at_the_start_is_not_looked_at_again_and_later_garbage_goes() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _TRY], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == ["True True True", "[] True"]
