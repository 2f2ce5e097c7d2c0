"""`kill -9` against node-runtime.v1.json: never torn, and nothing acknowledged is lost.

Twenty times a real process commits codes and nodes to one state directory and is killed after a
random number of acknowledgements, wherever it is by then.
"""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.nodes.runtime_state import NodeRuntimeState

ROOT = Path(__file__).resolve().parents[3]
ROUNDS = 20


def _killed_after(state_dir: Path, number: int, lines: int) -> list[list[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.crash.node_state_child", str(state_dir), str(number)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child:
        read = [child.stdout.readline() for _ in range(lines)]
        child.kill()
        read += child.stdout.readlines()
    assert child.returncode == -9, read
    return [line.split() for line in read if line.endswith("\n")]


@pytest.mark.crash
async def test_a_killed_fleet_finds_every_code_and_node_it_acknowledged(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    points = random.Random(seed)
    state_dir = tmp_path / "state"
    put: set[str] = set()
    gone: set[str] = set()
    devices: set[str] = set()
    for number in range(1, ROUNDS + 1):
        for words in _killed_after(state_dir, number, points.randint(1, 60)):
            match words:
                case ["put", digest]:
                    put.add(digest)
                case ["gone", digest]:
                    gone.add(digest)
                case ["node", device_id]:
                    devices.add(device_id)
        state = await NodeRuntimeState.open(state_dir, 0)
        there = {code.code_hash for code in state.pairing_snapshot().codes}
        assert not gone & there, "a spent code came back"
        lost = put - gone - there
        assert len(lost) <= number, "an acknowledged code was lost"
        # one removal a round may have reached the disk unacknowledged; it is a spent code
        assert all(int(digest, 16) % 2 for digest in lost)
        assert devices <= set(state.nodes)
        await state.close()
    assert put
