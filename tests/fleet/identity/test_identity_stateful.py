"""Pairing and identity together, in any order, with clocks that move both ways and restarts.

After every step: nothing that was ever refused as revoked passes again, and nothing that an
operator wanted replaced passes after its deadline; a request has one
certificate at most; a code paired one device at most; a request's state never leaves its end; a
device that is revoked has nothing that passes.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from palyra_fleet.identity.manager import IdentitySettings
from palyra_fleet.identity.messages import BegunPairing, MintedCode, PairedDevice
from palyra_fleet.identity.pairing import PairingSettings
from palyra_fleet.identity.records import CodeMethod, RequestState
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused
from tests.fakes.fleet_world import Clock
from tests.fakes.identity_world import (
    HERE,
    QUIET,
    IdentityWorld,
    MemoryPairingStore,
    asking,
    der,
    identity_world,
)
from tests.fakes.ledger_world import ulid
from tests.fakes.pairing_device import PairingDevice

DEVICES = [PairingDevice(ulid(n)) for n in (1, 1, 2)]
"""The second claims the first one's id with another key."""
devices = st.sampled_from(DEVICES)
some = st.integers(0, 20)
SETTINGS = IdentitySettings(
    device_life_ms=60_000, overlap_ms=5_000, reap_every_ms=QUIET, server_life_ms=60_000
)
PAIRING = PairingSettings(session_ms=20_000, request_ms=50_000, collect_ms=10_000)


class IdentityMachine(RuleBasedStateMachine):
    """Operators, devices, time and crashes."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm")
        self.store, self.clock = MemoryPairingStore(), Clock()
        self.codes: list[MintedCode] = []
        self.begun: list[tuple[BegunPairing, MintedCode, PairingDevice]] = []
        self.requested: list[tuple[str, str, PairingDevice]] = []
        self.code_of: dict[str, str] = {}
        self.given: dict[str, str] = {}
        self.owner: dict[str, str] = {}
        self.dead: set[str] = set()
        self.due: dict[str, int] = {}
        self.ended: dict[str, RequestState] = {}

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(work)

    def attempt(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The answer, or None for a refusal."""
        try:
            return self.run(work)
        except NodeRefused:
            return None

    @initialize()
    def start(self) -> None:
        self.context = identity_world(
            Path(self.folder.name) / "state",
            store=self.store,
            clock=self.clock,
            identity=SETTINGS,
            pairing=PAIRING,
        )
        self.world: IdentityWorld = self.run(self.context.__aenter__())

    @rule()
    def restart(self) -> None:
        self.run(self.context.__aexit__(None, None, None))
        self.start()

    @rule(ms=st.sampled_from([1, 1_000, 5_000, 10_000, 20_000, 60_000, -1, -60_000]))
    def clock_moves(self, ms: int) -> None:
        self.clock.forward(ms)

    @rule(method=st.sampled_from(CodeMethod))
    def mint(self, method: CodeMethod) -> None:
        minted = self.attempt(self.world.pairing.mint_code(method, "anna", 30_000))
        if minted is not None:
            self.codes.append(minted)

    @rule(device=devices, method=st.sampled_from(CodeMethod))
    def ask_to_pair(self, device: PairingDevice, method: CodeMethod) -> None:
        """The usual way in one step, so that what comes after it is reached often."""
        self.mint(method)
        if self.codes:
            begun = len(self.begun)
            self.begin(-1, device)
            if len(self.begun) > begun:
                self.complete(-1, "")

    @rule(device=devices, replacing=st.booleans())
    def pair(self, device: PairingDevice, replacing: bool) -> None:
        requested = len(self.requested)
        self.ask_to_pair(device, CodeMethod.QR)
        if len(self.requested) > requested:
            self.decide(-1, True, replacing)
            self.poll(-1, 2)

    @precondition(lambda self: self.codes)
    @rule(which=some, device=devices)
    def begin(self, which: int, device: PairingDevice) -> None:
        minted = self.codes[which % len(self.codes)]
        asked = asking(device.client_kind, minted.method, minted.code)
        begun = self.attempt(self.world.pairing.begin(asked, HERE))
        if begun is not None:
            self.begun.append((begun, minted, device))

    @precondition(lambda self: self.begun)
    @rule(which=some, spoiled=st.sampled_from(["", "", "", "proof", "mac"]))
    def complete(self, which: int, spoiled: str) -> None:
        begun, minted, device = self.begun[which % len(self.begun)]
        asked = device.completion(begun, minted.code)
        if spoiled == "proof":
            asked = replace(asked, proof="wrong")
        if spoiled == "mac":
            asked = replace(asked, transcript_mac=bytes(32))
        done = self.attempt(self.world.pairing.complete(asked, HERE))
        if done is None:
            return
        assert not spoiled
        assert minted.code_hash not in self.code_of.values(), "a code paired twice"
        self.code_of[begun.session_id] = minted.code_hash
        self.requested.append((begun.session_id, done.approval_id, device))

    @precondition(lambda self: self.requested)
    @rule(which=some, approve=st.booleans(), replacing=st.booleans())
    def decide(self, which: int, approve: bool, replacing: bool) -> None:
        session_id, approval_id, _ = self.requested[which % len(self.requested)]
        before = self.state(session_id)
        made = self.attempt(
            self.world.pairing.decide(
                approval_id, approve=approve, decided_by="anna", replace_identity=replacing
            )
        )
        assert made is None or before is RequestState.PENDING

    @precondition(lambda self: self.requested)
    @rule(which=some, at_once=st.integers(1, 3))
    def poll(self, which: int, at_once: int) -> None:
        session_id, _, device = self.requested[which % len(self.requested)]
        for _ in range(at_once):
            status = self.attempt(self.world.pairing.status(device.poll(session_id)))
            if status is None or not status.paired:
                continue
            pem = status.mtls_client_certificate_pem
            assert self.given.setdefault(session_id, pem) == pem, "two certificates of one approval"
            self.owner[pem] = device.device_id

    @precondition(lambda self: self.owner)
    @rule(which=some)
    def use(self, which: int) -> None:
        pem = list(self.owner)[which % len(self.owner)]
        found = self.run(self.world.admit(pem))
        if isinstance(found, PairedDevice):
            assert pem not in self.dead
            assert found.device_id == self.owner[pem]
        elif found.reason is NodeReason.GATE_REVOKED:
            self.dead.add(pem)

    @precondition(lambda self: self.owner)
    @rule(which=some, new_key=st.booleans())
    def rotate(self, which: int, new_key: bool) -> None:
        pem = list(self.owner)[which % len(self.owner)]
        caller = self.run(self.world.admit(pem))
        if not isinstance(caller, PairedDevice):
            return
        assert pem not in self.dead
        key = PairingDevice(caller.device_id) if new_key else DEVICES[0]
        fresh = self.attempt(self.world.identity.rotate(caller, key.csr()))
        if fresh is not None:
            self.owner[fresh.certificate_pem] = caller.device_id

    @rule(device=devices, within_ms=st.sampled_from([1_000, 20_000]))
    def demand_rotation(self, device: PairingDevice, within_ms: int) -> None:
        """What the device has now ends by the deadline, whatever is done about it."""
        work = self.world.identity.demand_rotation(device.device_id, within_ms, "test", "anna")
        if self.attempt(work) is None:
            return
        ends = self.world.identity.now() + within_ms
        for certificate in self.world.identity.history(device.device_id):
            if not certificate.revoked:
                self.due[certificate.certificate_pem] = min(
                    ends, self.due.get(certificate.certificate_pem, ends)
                )

    @rule(device=devices)
    def revoke(self, device: PairingDevice) -> None:
        work = self.world.identity.revoke_device(device.device_id, "test", "anna")
        with contextlib.suppress(NodeRefused):
            self.run(work)
            self.bury(device.device_id)

    @rule(device=devices)
    def remove(self, device: PairingDevice) -> None:
        work = self.world.identity.remove_device(device.device_id, "test", "anna")
        with contextlib.suppress(NodeRefused):
            self.run(work)
            self.bury(device.device_id)

    @precondition(lambda self: self.owner)
    @rule(which=some)
    def revoke_one(self, which: int) -> None:
        pem = list(self.owner)[which % len(self.owner)]
        leaf = self.world.identity.verify([der(pem)])
        if isinstance(leaf, NodeRefusal):
            return
        with contextlib.suppress(NodeRefused):
            self.run(self.world.identity.revoke_fingerprint(leaf.fingerprint, "test", "anna"))
            self.dead.add(pem)

    @rule()
    def housekeeping(self) -> None:
        self.run(self.world.identity.settle())
        self.run(self.world.identity.tidy())
        self.run(self.world.pairing.sweep())

    @rule()
    def new_authority(self) -> None:
        overlapping = len(self.world.identity.authority.trusted) > 1
        try:
            self.run(self.world.identity.rotate_authority("test", "anna"))
        except NodeRefused as refused:
            assert overlapping
            assert refused.refusal.reason is NodeReason.AUTHORITY_OVERLAP
        else:
            assert not overlapping

    def bury(self, device_id: str) -> None:
        self.dead |= {pem for pem, owner in self.owner.items() if owner == device_id}

    def state(self, session_id: str) -> RequestState | None:
        found = [r for r in self.world.pairing.requests() if r.session_id == session_id]
        return found[0].state if found else None

    @invariant()
    def what_was_revoked_passes_no_more(self) -> None:
        if not hasattr(self, "world"):
            return
        for pem in self.dead:
            assert not isinstance(self.run(self.world.admit(pem)), PairedDevice)

    @invariant()
    def what_was_to_be_replaced_passes_no_more_after_its_deadline(self) -> None:
        if not hasattr(self, "world"):
            return
        over = [pem for pem, due in self.due.items() if self.world.identity.now() >= due]
        for pem in over:
            assert not isinstance(self.run(self.world.admit(pem)), PairedDevice)

    @invariant()
    def an_ended_request_stays_as_it_ended(self) -> None:
        if not hasattr(self, "world"):
            return
        for request in self.world.pairing.requests():
            if request.state.finished:
                earlier = self.ended.setdefault(request.session_id, request.state)
                assert request.state is earlier

    @invariant()
    def memory_and_disk_agree(self) -> None:
        if not hasattr(self, "world"):
            return
        assert set(self.store.requests.values()) == set(self.world.pairing.requests())
        origins = [c.origin for d in DEVICES[1:] for c in self.world.identity.history(d.device_id)]
        assert len(origins) == len(set(origins))

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.run(self.context.__aexit__(None, None, None))
        self.loop.close()
        self.folder.cleanup()


TestIdentity = IdentityMachine.TestCase
TestIdentity.settings = settings(
    max_examples=40,
    stateful_step_count=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
