"""A node state that commits as fast as it can and says what it acknowledged, until it is killed.

Run with the state directory and the number of the round. Every line on stdout is written after the
commit returned: `put <hash>`, `gone <hash>`, `node <device>`.
"""

import asyncio
import itertools
import sys
from pathlib import Path

from palyra_fleet.identity.records import CodeMethod, DevicePairingCodeRecord, PairingChange
from palyra_fleet.nodes.records import DeviceCapabilityRecord
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from tests.fakes.ledger_world import ulid


def acknowledge(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def main(state_dir: Path, number: int) -> None:
    state = await NodeRuntimeState.open(state_dir, 0, coalesce_ms=1)
    acknowledge("open")
    for count in itertools.count():
        device_id = ulid(number * 10**6 + count)
        digest = f"{number * 10**6 + count:064x}"
        record = DevicePairingCodeRecord(digest, CodeMethod.QR, "anna", 0, 1)
        await state.commit_pairing(PairingChange(put_codes=(record,)))
        acknowledge("put", digest)
        await state.register_node(device_id, "linux", (DeviceCapabilityRecord("echo", True),), 0)
        acknowledge("node", device_id)
        state.touch_node(device_id, "node.heartbeat", count)
        if count % 2:
            await state.commit_pairing(PairingChange(remove_codes=(digest,)))
            acknowledge("gone", digest)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
