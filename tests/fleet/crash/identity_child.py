"""An identity that pairs, rotates and revokes as fast as it can, until it is killed.

Run with the state directory and the number of the round. Every line on stdout is one
acknowledgement, written only after the manager answered: `paired <fingerprint> <pem, base64>`,
`used <old fingerprint> <new fingerprint>`, `revoked <device> <fingerprint>`.
"""

import asyncio
import base64
import itertools
import sys
from pathlib import Path

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.messages import IssuedCertificate, PairedDevice, VerifiedLeaf
from palyra_fleet.identity.records import ClientKind, VerifiedPairing
from tests.fakes.identity_world import MASTER, QUIET, der
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice


def acknowledge(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


async def _admit(identity: IdentityManager, issued: IssuedCertificate) -> PairedDevice:
    leaf = identity.verify([der(issued.certificate_pem)])
    assert isinstance(leaf, VerifiedLeaf), leaf
    found = await identity.admit(leaf, leaf.device_id)
    assert isinstance(found, PairedDevice), found
    return found


async def main(state_dir: Path, number: int) -> None:
    settings = IdentitySettings(overlap_ms=0, reap_every_ms=QUIET)
    identity = await IdentityManager.start(state_dir, MASTER, settings, now_unix_ms)
    for count in itertools.count():
        device = PairingDevice(ulid(number * 10**6 + count))
        verified = VerifiedPairing(
            device.device_id,
            ClientKind.NODE,
            device.fingerprint,
            device.signing_public.hex(),
            "0" * 64,
        )
        first = await identity.issue_for_request(
            verified, ulid(10**9 * number + count), device.csr()
        )
        pem = base64.b64encode(first.certificate_pem.encode()).decode()
        acknowledge("paired", first.fingerprint, pem)
        if count % 3 == 1:
            second = await identity.rotate(await _admit(identity, first), device.csr())
            await _admit(identity, second)
            acknowledge("used", first.fingerprint, second.fingerprint)
        if count % 3 == 2:
            await identity.revoke_device(device.device_id, "test", "anna")
            acknowledge("revoked", device.device_id, first.fingerprint)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
