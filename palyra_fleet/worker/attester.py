"""Puts together what a registration needs: a nonce, the proxy's receipt, the launcher's evidence.

The same for the first registration and for each later one of a session; later ones measure anew, so
that no evidence says more than what is there now. The key is the session to the fleet: the session
goes on with another only if the one it has signs for that (`succeeding`). The program's file must
not have changed; whether a changed system or changed code of ours is still acceptable is for the
fleet's reference values to say.
"""

import asyncio
import base64
from dataclasses import dataclass, replace

from palyra_fleet.client import WorkerClient
from palyra_fleet.wire.dsse import SUCCESSION_TYPE, DsseEnvelope, seal
from palyra_fleet.wire.keys import SigningKey
from palyra_fleet.wire.models import RegisterRequest
from palyra_fleet.wire.reattest_models import SuccessionPayload
from palyra_fleet.worker.launcher import (
    EvidenceSource,
    Measurement,
    Statement,
    WorkerIdentity,
    measure_again,
)
from palyra_fleet.worker.receipt import fetch_receipt
from palyra_fleet.worker.timekeeper import Timekeeper


@dataclass(frozen=True, slots=True)
class Attester:
    """One session's way to prove itself."""

    client: WorkerClient
    key: SigningKey
    proxy_address: str
    launcher: EvidenceSource
    identity: WorkerIdentity
    measured: Measurement
    time: Timekeeper
    timeout_ms: int
    egress_enforced: bool = False
    predecessor: SigningKey | None = None
    """The key that the session had before this one."""

    def succeeding(self, client: WorkerClient, key: SigningKey) -> "Attester":
        """The way of the same session to go on with the next key."""
        return replace(self, client=client, key=key, predecessor=self.key)

    async def first(self) -> RegisterRequest:
        """Evidence for a new session. Raises FleetError or ReceiptRefused."""
        return await self._prove(self.measured, continues=False)

    async def again(self) -> RegisterRequest:
        """Evidence that the session is still what it was; besides, raises ArtifactChanged."""
        measured = await asyncio.to_thread(measure_again, self.measured)
        return await self._prove(measured, continues=True)

    async def _prove(self, measured: Measurement, *, continues: bool) -> RegisterRequest:
        nonce = (await self.client.issue_nonce()).nonce
        receipt = await fetch_receipt(
            self.proxy_address, self.key, nonce, timeout_ms=self.timeout_ms
        )
        statement = Statement(
            identity=self.identity,
            measured=measured,
            nonce=nonce,
            key=self.key,
            egress_enforced=self.egress_enforced,
            now_unix_ms=self.time.wall_unix_ms(),
        )
        evidence = await asyncio.to_thread(self.launcher.attest, statement)
        return RegisterRequest(
            public_key=base64.b64encode(self.key.public_key).decode(),
            evidence=evidence.envelope,
            receipt=receipt,
            backing=evidence.backing,
            continues_session=continues,
            succession=self._succession(nonce),
        )

    def _succession(self, nonce: str) -> DsseEnvelope | None:
        if self.predecessor is None:
            return None
        payload = SuccessionPayload(
            worker_id=self.identity.worker_id, nonce=nonce, next_key_sha256=self.key.thumbprint
        )
        return seal(self.predecessor, SUCCESSION_TYPE, payload.model_dump_json().encode())
