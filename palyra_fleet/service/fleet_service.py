"""FleetService: every command the fleet answers. Those of workers are here, others are mixed in.

Each command is a few lines: decide in the pure core, settle (durable, applied, told), answer. A
refusal is raised as `FleetRefusal`. Callers have proved possession of their key before they come
here (`caller_by_key` names them); operators come with the name of their principal. Egress secrets
are minted here and leave in the one answer to the one worker. Times: Unix ms.
"""

import asyncio
import base64
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self

from ulid import ULID

from palyra_fleet.attestation.evidence import WorkerAttestationExpectation
from palyra_fleet.attestation.result import AttestationResult
from palyra_fleet.attestation.succession import succeeded_key
from palyra_fleet.attestation.verifier import judge, open_evidence
from palyra_fleet.clock import process_clock, timekeeper
from palyra_fleet.leases.credential import EgressSecret
from palyra_fleet.leases.records import LeaseOrder, WorkerLease
from palyra_fleet.leases.workspace import WorkerWorkspaceScope
from palyra_fleet.ledger import storm
from palyra_fleet.ledger.decision import Decision
from palyra_fleet.ledger.facts import ends_of, lifecycle_state
from palyra_fleet.ledger.liveness import heartbeat_within_ms, leases_to_stop
from palyra_fleet.ledger.manager import Outcome
from palyra_fleet.ledger.wire_views import carried_of, demanded, lease_state, transport_of
from palyra_fleet.refusals import (
    FleetReason,
    FleetRefusal,
    Refusal,
    worker_already_registered,
    worker_unknown,
)
from palyra_fleet.service.approval_rule_commands import ApprovalRuleCommands
from palyra_fleet.service.core import FleetCore, open_store
from palyra_fleet.service.enrolment_commands import EnrolmentCommands
from palyra_fleet.service.join_token_commands import JoinTokenCommands
from palyra_fleet.service.placement_commands import PlacementCommands
from palyra_fleet.service.policy_commands import PolicyCommands
from palyra_fleet.service.release_commands import ReleaseCommands
from palyra_fleet.service.snapshot_commands import SnapshotCommands
from palyra_fleet.settings.fleet_settings import FleetSettings
from palyra_fleet.store.protocol import FleetStore
from palyra_fleet.store.sqlite import SqliteFleetStore
from palyra_fleet.wire import models as wire
from palyra_fleet.wire.keys import thumbprint_sha256
from palyra_fleet.wire.placement_models import WorkerOrder


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a key belongs to. It is good only on connections of `device_id` (None: this machine)."""

    kind: Literal["worker", "proxy"]
    id: str
    public_key: bytes
    session_epoch: int = 0
    device_id: str | None = None


class FleetService(
    ReleaseCommands,
    SnapshotCommands,
    PlacementCommands,
    EnrolmentCommands,
    JoinTokenCommands,
    ApprovalRuleCommands,
    PolicyCommands,
    FleetCore,
):
    """The fleet. `start` it, `close` it. What operators and proxies may ask is mixed in."""

    @classmethod
    async def start(cls, settings: FleetSettings, clock: Callable[[], int] = process_clock) -> Self:
        """Open the embedded store and begin. Raises FleetRefusal on unusable state."""
        return await cls.start_on(SqliteFleetStore(settings.state_dir), settings, clock)

    @classmethod
    async def start_on(
        cls, store: FleetStore, settings: FleetSettings, clock: Callable[[], int]
    ) -> Self:
        """Begin on a given store."""
        keeper = timekeeper(clock)
        snapshot, time_is_sound = await open_store(store, keeper)
        try:
            service = cls(settings, keeper, store, snapshot)
            await service._begin(time_is_sound)
        except BaseException:
            await store.close()
            raise
        return service

    @property
    def epoch(self) -> int:
        """Grows with every start of the store."""
        return self._epoch

    def caller_by_key(self, key_sha256: str) -> Caller | None:
        """Enrolled proxies and registered workers, quarantined ones too: the commands refuse."""
        proxy = self._proxies.get(key_sha256)
        if proxy is not None:
            enrolled = self._manager.state.enrolled["proxy", proxy[0]]
            return Caller("proxy", proxy[0], proxy[1], device_id=enrolled.device_id)
        worker_id = self._manager.state.worker_by_key.get(key_sha256)
        if worker_id is None:
            return None
        worker = self._manager.state.workers[worker_id]
        proof = worker.proof
        if worker.candidate is not None and worker.candidate.key_sha256 == key_sha256:
            proof = worker.candidate
        return Caller("worker", worker_id, proof.public_key, worker.session_epoch, proof.device_id)

    def health(self) -> dict[str, str]:
        """Check name → "ok" or what is wrong."""
        frozen = self._frozen(by_storm=True)
        reaping = self._reaper is not None and not self._reaper.done()
        return {
            "service": "closed" if self._closed else "ok",
            "store": self._store_problem or "ok",
            "ledger": self._ledger_problem or "ok",
            "reaper": "ok" if reaping else "stopped",
            "storm_breaker": frozen or "ok",
        }

    def _frozen(self, *, by_storm: bool) -> str | None:
        """What is frozen, if so: by a storm, which is a fault, or by an operator, who knows."""
        refusal = storm.refusal(self._manager.state, self._settings.policy)
        if refusal is None or (refusal.reason is FleetReason.STORM) is not by_storm:
            return None
        return refusal.text

    def alarms(self) -> dict[str, str]:
        """What an operator should look at although the fleet works. Empty is good."""
        raised = {
            "evidence": self._unbound_evidence.alarm(self._now()),
            "proxies": self._watch.alarm(),
            "storm": self._frozen(by_storm=True),
            "frozen": self._frozen(by_storm=False),
            "approval_rules": None if self._rule_file is None else self._rule_file.alarm,
            **{
                f"export_{name}": counts.alarm(self._now())
                for name, counts in self.counts.exports.items()
            },
            **{f"issuer_{name}": text for name, text in self.counts.issuer_problems.items()},
        }
        found = {name: text for name, text in raised.items() if text is not None}
        behind_s = self._keeper.behind_ms() // 1000
        if behind_s:
            found["clock"] = f"the machine's clock is {behind_s} s behind the fleet's time"
        return found

    async def issue_nonce(self, request: wire.NonceRequest) -> wire.NonceAnswer:
        key_sha256 = thumbprint_sha256(base64.b64decode(request.public_key, validate=True))
        nonce = secrets.token_urlsafe(32)

        async def act(now: int) -> wire.NonceAnswer:
            expires = self._nonces.issue(nonce, key_sha256, request.purpose, now)
            if isinstance(expires, Refusal):
                raise FleetRefusal.of(expires)
            return wire.NonceAnswer(nonce=nonce, expires_at_unix_ms=expires)

        return await self._locked(act)

    async def register(
        self, request: wire.RegisterRequest, device_id: str | None = None
    ) -> wire.RegisterAnswer:
        """The API has verified the request proof with `request.public_key`, and that the call came
        from `device_id` (None: this machine): from there on the worker's key is good only there."""
        return await self._locked(lambda now: self._register(request, device_id, now))

    async def _register(
        self, request: wire.RegisterRequest, device_id: str | None, now: int
    ) -> wire.RegisterAnswer:
        keys = self._trusted_keys(device_id)
        evidence = open_evidence(request, self._attestors, keys, now)
        if isinstance(evidence, Refusal):
            raise FleetRefusal.of(evidence)
        attestation = evidence.attestation
        issued = self._nonces.spend(attestation.nonce, attestation.key_sha256, "register", now)
        if isinstance(issued, Refusal):
            raise FleetRefusal.of(issued)
        result = judge(evidence, request.receipt, keys, self._expectation(), now)
        if isinstance(result, Refusal):
            raise FleetRefusal.of(result)
        if self._is_enrolled(result.public_key):
            text = "this key is enrolled as a proxy's or a launcher's"
            raise FleetRefusal(FleetReason.KEY_MISMATCH, text)
        known = self.caller_by_key(result.key_sha256)
        if known is not None and known.device_id != device_id:
            raise FleetRefusal(FleetReason.KEY_MISMATCH, "this key belongs to another device")
        worker = self._manager.state.workers.get(result.worker_id)
        if worker is not None and worker.proof.device_id != device_id:
            # no machine takes over another one's worker, whoever vouches for it there
            raise FleetRefusal.of(worker_already_registered(result.worker_id))
        known_until = self._known_until(result, device_id)
        if isinstance(known_until, Refusal):
            raise FleetRefusal.of(known_until)
        succeeded = None
        if worker is not None:
            current = (worker.candidate or worker.proof).public_key
            succeeded = succeeded_key(request.succession, attestation, current)
        if isinstance(succeeded, Refusal):
            raise FleetRefusal.of(succeeded)
        result = replace(
            result,
            device_id=device_id,
            known_until_unix_ms=known_until,
            nonce_issued_at_unix_ms=issued,
            succeeds_key_sha256=succeeded,
        )
        attestor = self._attestors[result.evidence_kind]
        used = await asyncio.to_thread(attestor.claim, request, now)
        if used is not None:
            raise FleetRefusal.of(used)
        await self._settle(self._manager.register(result, now, request.continues_session))
        worker = self._manager.state.workers[result.worker_id]
        proof = worker.candidate or worker.proof
        return wire.RegisterAnswer(
            worker_id=worker.worker_id,
            session_epoch=worker.session_epoch,
            state=lifecycle_state(worker, now).value,
            heartbeat_within_ms=self._beat_within_ms(worker.worker_id, 0),
            attested_until_unix_ms=proof.attested_until_unix_ms,
        )

    def _known_until(
        self, result: AttestationResult, device_id: str | None
    ) -> int | Refusal | None:
        """When what the worker, its machine and its proxy's machine are known by ends; a machine
        whose certificate has ended, or is not known, vouches for nobody."""
        proxy = self._manager.state.enrolled["proxy", result.binding_proxy_id]
        ends = [*ends_of(result.known_until_unix_ms)]
        for device in {device_id, proxy.device_id} - {None}:
            end = self._certificate_end(str(device))
            if end is None:
                text = f"device '{device}' has no certificate that is good now"
                return Refusal(FleetReason.ATTESTATION_EXPIRED, text)
            ends.append(end)
        return min(ends, default=None)

    def _expectation(self) -> WorkerAttestationExpectation:
        policy = self._settings.policy
        values: dict[str, set[str]] = {"image": set(), "build": set(), "artifact": set()}
        for reference in self._manager.state.references:
            values[reference.digest_field].add(reference.digest_sha256)
        return WorkerAttestationExpectation(
            image_digests_sha256=frozenset(values["image"]),
            build_digests_sha256=frozenset(values["build"]),
            artifact_digests_sha256=frozenset(values["artifact"]),
            sdk_protocol_version=policy.required_sdk_protocol_version,
            wit_abi_version=policy.required_wit_abi_version,
            capability_authority_sha256=policy.required_capability_authority_sha256,
        )

    async def heartbeat(
        self, worker_id: str, request: wire.HeartbeatRequest
    ) -> wire.HeartbeatAnswer:
        async def act(now: int) -> wire.HeartbeatAnswer:
            await self._settle(
                self._manager.heartbeat(
                    worker_id, request.session_epoch, request.seq, now, request.waits
                )
            )
            held = tuple((lease.lease_id, lease.fence) for lease in request.held_leases)
            within_ms = self._beat_within_ms(worker_id, request.seq)
            return wire.HeartbeatAnswer(
                state=self._manager.lifecycle(worker_id, now).value,
                heartbeat_within_ms=within_ms,
                stop_leases=leases_to_stop(self._manager.state, worker_id, held),
                demanded=demanded(self._manager.state.workers[worker_id]),
            )

        return await self._locked(act)

    def _beat_within_ms(self, worker_id: str, seq: int) -> int:
        return heartbeat_within_ms(self._manager.state, self._settings.policy, worker_id, seq)

    async def request_lease(self, worker_id: str, request: wire.LeaseRequest) -> wire.LeaseAnswer:
        scope = request.workspace_scope
        order = LeaseOrder(
            run_id=request.run_id,
            ttl_ms=request.ttl_ms,
            required_capabilities=request.required_capabilities,
            workspace_scope=WorkerWorkspaceScope(
                scope.workspace_root, scope.allowed_paths, scope.read_only
            ),
            artifact_transport=transport_of(request.artifact_transport),
            offer_id=request.offer_id,
        )
        secret = EgressSecret.mint()

        async def act(now: int) -> wire.LeaseAnswer:
            self._refuse_on_ledger_problem()
            lease_id = str(ULID.from_timestamp(now))
            if self._manager.state.usable_grant(order.run_id, now, worker_id) is None:
                await self._approve_by_rule(worker_id, request, now)
            grant_id = self._grant_for(order.run_id, worker_id, now)
            outcome = self._manager.grant_lease(
                worker_id, request.session_epoch, grant_id, order, lease_id, secret.sha256, now
            )
            lease = _lease_of(await self._settle(outcome), lease_id)
            return wire.LeaseAnswer(
                lease_id=lease.lease_id,
                fence=lease.fence,
                worker_id=lease.worker_id,
                run_id=lease.run_id,
                egress_profile=lease.egress_profile,
                expires_at_unix_ms=lease.expires_at_unix_ms,
                egress_secret=secret.reveal(),
            )

        return await self._locked(act)

    def _grant_for(self, run_id: str, worker_id: str, now: int) -> str | None:
        """The approval that the worker may spend on the run: of what it is offered, the offer's."""
        state = self._manager.state
        offer = state.placing.offer_of(run_id)
        if offer is not None and offer.worker_id == worker_id:
            return offer.grant_id
        grant = state.usable_grant(run_id, now, worker_id)
        return None if grant is None else grant.grant_id

    async def start_lease(
        self, worker_id: str, lease_id: str, request: wire.LeaseCommand
    ) -> wire.LeaseState:
        return await self._lease_command(
            lease_id,
            lambda now: self._manager.start_lease(
                worker_id, request.session_epoch, lease_id, request.fence, now
            ),
        )

    async def renew_lease(
        self, worker_id: str, lease_id: str, request: wire.LeaseCommand
    ) -> wire.LeaseState:
        return await self._lease_command(
            lease_id,
            lambda now: self._manager.renew_lease(
                worker_id, request.session_epoch, lease_id, request.fence, request.ttl_ms, now
            ),
        )

    async def complete_lease(
        self, worker_id: str, lease_id: str, request: wire.CompleteRequest
    ) -> wire.LeaseState:
        report = request.cleanup
        clean = report.workspace_removed and report.processes_ended and report.secrets_removed
        carried = carried_of(report)
        return await self._lease_command(
            lease_id,
            lambda now: self._manager.complete_lease(
                worker_id, request.session_epoch, lease_id, request.fence, clean, now, carried
            ),
        )

    async def _lease_command(
        self, lease_id: str, decide: Callable[[int], Outcome]
    ) -> wire.LeaseState:
        async def act(now: int) -> wire.LeaseState:
            decision = await self._settle(decide(now))
            if decision.records:
                return lease_state(_lease_of(decision, lease_id))
            return lease_state(self._manager.state.leases[lease_id])

        return await self._locked(act)

    async def orders(
        self,
        worker_id: str,
        after_seq: int,
        wait_ms: int,
        may_hear: Callable[[], bool] = lambda: True,
    ) -> tuple[WorkerOrder, ...]:
        """Long poll. A quarantined worker may ask too: it must be told. It ends at once, without
        an order, when `may_hear` does not hold any more of who asked."""
        if worker_id not in self._manager.state.workers:
            raise FleetRefusal.of(worker_unknown(worker_id))
        return await self._desk.wait(worker_id, after_seq, wait_ms, may_hear)


def _lease_of(decision: Decision, lease_id: str) -> WorkerLease:
    for record in decision.records:
        if isinstance(record, WorkerLease) and record.lease_id == lease_id:
            return record
    raise LookupError(f"the decision writes no lease {lease_id}")
