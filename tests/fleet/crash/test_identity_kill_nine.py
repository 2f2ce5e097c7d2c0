"""`kill -9` at any point: identity's store is never torn and forgets no acknowledged revocation.

Fifteen times a real process pairs, rotates and revokes on one state directory and is killed after a
random number of acknowledgements. Afterwards the state opens, every acknowledged certificate is
there, and everything that was acknowledged as ended is refused, now and after all further rounds.
"""

import base64
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.messages import PairedDevice, VerifiedLeaf
from palyra_fleet.identity.refusals import NodeReason
from tests.fakes.identity_world import MASTER, QUIET, der

ROOT = Path(__file__).resolve().parents[3]
ROUNDS = 15


def _killed_after(state_dir: Path, number: int, lines: int) -> list[list[str]]:
    """What a child acknowledged until `kill -9`."""
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.fleet.crash.identity_child", str(state_dir), str(number)],
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


async def _passes(identity: IdentityManager, pem: str) -> PairedDevice | NodeReason:
    leaf = identity.verify([der(pem)])
    assert isinstance(leaf, VerifiedLeaf), leaf
    found = await identity.admit(leaf, None)
    return found if isinstance(found, PairedDevice) else found.reason


async def _check(identity: IdentityManager, said: list[list[str]]) -> int:
    """How many ended certificates were looked at."""
    pems = {w[1]: base64.b64decode(w[2]).decode() for w in said if w[0] == "paired"}
    ended = {words[1 if words[0] == "used" else 2] for words in said if words[0] != "paired"}
    for fingerprint, pem in pems.items():
        found = await _passes(identity, pem)
        if fingerprint in ended:
            assert found is NodeReason.GATE_REVOKED
        else:  # the child may have gone on to end it without having said so
            assert isinstance(found, PairedDevice) or found is NodeReason.GATE_REVOKED
    for words in said:
        if words[0] == "used":
            assert isinstance(identity.check(words[2], now_unix_ms()), PairedDevice)
        if words[0] == "revoked":
            device = identity.device(words[1])
            assert device is not None
            assert device.revoked
    return len(ended)


@pytest.mark.crash
async def test_no_acknowledged_revocation_is_lost_by_kill_nine(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    seed = random.randrange(2**32)
    record_property("seed", seed)
    points = random.Random(seed)
    everything: list[list[str]] = []
    looked_at = 0
    for number in range(1, ROUNDS + 1):
        everything += _killed_after(tmp_path / "state", number, points.randint(0, 30))
        settings = IdentitySettings(overlap_ms=0, reap_every_ms=QUIET)
        identity = await IdentityManager.start(tmp_path / "state", MASTER, settings)
        looked_at = await _check(identity, everything)
        assert await identity.store.verify_events() > 0
        await identity.close()
    assert looked_at > 0
