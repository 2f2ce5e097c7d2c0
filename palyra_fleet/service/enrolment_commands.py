"""What the fleet trusts besides workers: enrolled launchers and proxies, and reference values.

Mixed into `FleetService`. Given and taken back by operators, or by a paired machine for itself; a
device that is revoked takes its enrolments with it. Effect is at once: a proxy's stream ends with
the decision that takes it back, and workers that rested on what is gone lose their lease in the
same transaction. `actor` goes into the event log. Times: Unix ms.
"""

import base64
from collections import Counter
from collections.abc import Collection
from typing import Literal

from palyra_fleet.attestation.attestor import TrustedKeys
from palyra_fleet.ledger import enrolment
from palyra_fleet.ledger.decision import Decision, EnrolledKey, EventReason, LedgerEvent
from palyra_fleet.ledger.decision import ReferenceValue as Reference
from palyra_fleet.ledger.wire_views import enrolment_view
from palyra_fleet.service.core import FleetCore
from palyra_fleet.wire import enrolment_models as wire
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.models import EnrolKeyRequest, ReferenceValues

type Kind = Literal["launcher", "proxy"]


class EnrolmentCommands(FleetCore):
    """Enrolments and reference values."""

    async def enrol_launcher(self, actor: str, request: EnrolKeyRequest) -> None:
        await self._enrol(actor, _local("launcher", request))

    async def enrol_proxy(self, actor: str, request: EnrolKeyRequest) -> None:
        await self._enrol(actor, _local("proxy", request))

    async def enrol_device(
        self, actor: str, kind: Kind, name: str, device_id: str, public_key: bytes
    ) -> None:
        """Enrol the key that a device paired with; it is good on that device's connections only."""
        await self._enrol(actor, EnrolledKey(kind, name, public_key, device_id=device_id))

    async def _enrol(self, actor: str, key: EnrolledKey) -> None:
        async def act(now: int) -> None:
            await self._settle(enrolment.enrol(self._manager.state, key, actor, now))

        await self._locked(act)

    async def enrolments(self, kind: Kind) -> tuple[wire.EnrolmentView, ...]:
        """Everything of this kind that was ever enrolled, by name."""
        state = self._manager.state
        rests = Counter(
            worker.proof.binding_proxy_id if kind == "proxy" else worker.proof.launcher_sha256
            for worker in state.workers.values()
        )
        found = sorted(
            (key for key in state.enrolled.values() if key.kind == kind), key=lambda key: key.name
        )
        return tuple(
            enrolment_view(
                key,
                rests[key.name if kind == "proxy" else thumbprint_sha256(key.public_key)],
                self._trust_in(key),
            )
            for key in found
        )

    def _trust_in(self, key: EnrolledKey) -> str:
        trouble = self._watch.trouble(key, self._now()) if key.kind == "proxy" else None
        return "trusted" if trouble is None else trouble.value

    async def take_back(self, actor: str, kind: Kind, name: str, reason: str) -> None:
        """Trust this launcher or proxy no more, nor the workers that rest on it."""

        async def act(now: int) -> None:
            state = self._manager.state
            await self._settle(enrolment.take_back(state, kind, name, actor, reason, now))

        await self._locked(act)

    async def device_gone(self, device_id: str, reason: str) -> None:
        """A device was revoked or removed: its enrolments and its workers go with it."""

        async def act(now: int) -> None:
            state, actor = self._manager.state, f"device:{device_id}"
            await self._settle(enrolment.device_gone(state, device_id, actor, reason, now))

        await self._locked(act)

    async def keep_devices(self, paired: Collection[str]) -> None:
        """At a start: what belongs to a device that is paired no more goes, as `device_gone`."""
        for device_id in sorted(enrolment.devices_named(self._manager.state) - set(paired)):
            await self.device_gone(device_id, "the device is not paired any more")

    async def add_reference_values(self, actor: str, values: ReferenceValues) -> None:
        offered = references_of(values)

        async def act(now: int) -> None:
            known = self._manager.state.references
            new = tuple(value for value in dict.fromkeys(offered) if value not in known)
            events = tuple(
                LedgerEvent(
                    EventReason.REFERENCES_ADDED,
                    actor,
                    detail={"field": value.digest_field, "digest_sha256": value.digest_sha256},
                )
                for value in new
            )
            await self._settle(Decision(now, records=new, events=events))

        await self._locked(act)

    async def reference_values(self) -> tuple[wire.ReferenceValueView, ...]:
        """Every digest the verifier accepts, and how many workers run what it describes."""
        state = self._manager.state
        runs = Counter(
            digest
            for worker in state.workers.values()
            for digest in enrolment.digests_of(worker.proof)
        )
        found = sorted(state.references, key=lambda one: (one.digest_field, one.digest_sha256))
        return tuple(
            wire.ReferenceValueView(
                digest_field=one.digest_field,
                digest_sha256=one.digest_sha256,
                workers=runs[one.digest_field, one.digest_sha256],
            )
            for one in found
        )

    async def withdraw_references(self, actor: str, asked: wire.WithdrawReferences) -> None:
        """Accept these digests no more, nor the workers that run what they describe."""
        wanted = references_of(asked.values)

        async def act(now: int) -> None:
            state = self._manager.state
            await self._settle(
                enrolment.withdraw_references(state, wanted, actor, asked.reason, now)
            )

        await self._locked(act)

    def _is_enrolled(self, public_key: bytes) -> bool:
        """Whether this is, or was, a launcher's or a proxy's key."""
        enrolled = self._manager.state.enrolled.values()
        return any(key.public_key == public_key for key in enrolled)

    def _trusted_keys(self, device_id: str | None) -> TrustedKeys:
        """Launchers whose word counts on connections of this device (None: of this machine), and
        every proxy: a worker may be bound to a proxy elsewhere."""
        keys = [key for key in self._manager.state.enrolled.values() if not key.revoked]
        return TrustedKeys(
            launchers={
                thumbprint_sha256(key.public_key): key.public_key
                for key in keys
                if key.kind == "launcher" and key.device_id == device_id
            },
            proxies={
                thumbprint_sha256(key.public_key): (key.name, key.public_key)
                for key in keys
                if key.kind == "proxy"
            },
        )


def references_of(values: ReferenceValues) -> tuple[Reference, ...]:
    return (
        *(Reference("image", digest) for digest in values.image_digests_sha256),
        *(Reference("build", digest) for digest in values.build_digests_sha256),
        *(Reference("artifact", digest) for digest in values.artifact_digests_sha256),
    )


def _local(kind: Kind, request: EnrolKeyRequest) -> EnrolledKey:
    key = base64.b64decode(request.public_key, validate=True)
    return EnrolledKey(kind, request.name, key)
