"""Opens what identity keeps sealed, or makes it at the very first start.

Sealed are the authorities' keys and the pepper of pairing codes. At the first start, and only
then, one authority and one pepper are made, in one transaction. Whatever an older master key sealed
is sealed anew under the first, so that the older one can be dropped after one start.
"""

import os
from dataclasses import dataclass, field, replace
from typing import Final

from palyra_fleet.identity.authority import AuthorityRecord, key_record_name, make_authority
from palyra_fleet.identity.device_ledger import IdentityLedger
from palyra_fleet.identity.device_records import IdentityDecision, IdentitySnapshot
from palyra_fleet.identity.identity_store import IdentityStore
from palyra_fleet.store.protocol import StateUnusable
from palyra_fleet.wire.sealing import MasterKey, key_id_of

PEPPER: Final = "pairing/pepper"
PEPPER_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class OpenedState:
    """A snapshot that has an authority, and the secrets that go with it."""

    snapshot: IdentitySnapshot
    master: MasterKey
    pepper: bytes = field(repr=False)
    high_water_unix_ms: int
    is_new: bool


async def open_or_make(
    store: IdentityStore, snapshot: IdentitySnapshot, master: MasterKey, now_unix_ms: int
) -> OpenedState:
    """Raises StateUnusable or SealBroken with what to do."""
    now = max(now_unix_ms, snapshot.high_water_unix_ms)
    is_new = not (snapshot.authorities or snapshot.devices or snapshot.sealed)
    if is_new:
        snapshot = await _make(store, snapshot, master, now)
    if PEPPER not in snapshot.sealed or all(a.retired_at_unix_ms for a in snapshot.authorities):
        raise StateUnusable(
            "identity.sqlite3: holds devices but no authority or pepper; restore it from a backup"
        )
    snapshot = await _sealed_by_first_key(store, snapshot, master, now)
    pepper = master.open(PEPPER, snapshot.sealed[PEPPER])
    return OpenedState(snapshot, master, pepper, now, is_new)


async def _make(
    store: IdentityStore, snapshot: IdentitySnapshot, master: MasterKey, now: int
) -> IdentitySnapshot:
    authority = make_authority(master, now)
    sealed = {PEPPER: master.seal(PEPPER, os.urandom(PEPPER_BYTES))}
    await store.commit(
        IdentityLedger().add_authority(now, authority, "fleet", "first start"), sealed
    )
    return replace(snapshot, authorities=(authority,), sealed=sealed, high_water_unix_ms=now)


async def _sealed_by_first_key(
    store: IdentityStore, snapshot: IdentitySnapshot, master: MasterKey, now: int
) -> IdentitySnapshot:
    authorities = tuple(_resealed(authority, master) for authority in snapshot.authorities)
    sealed = {
        name: _again(master, name, box) if _is_old(master, name, box) else box
        for name, box in snapshot.sealed.items()
    }
    if authorities == snapshot.authorities and sealed == snapshot.sealed:
        return snapshot
    changed = tuple(a for a in authorities if a not in snapshot.authorities)
    await store.commit(IdentityDecision(now, authorities=changed), sealed)
    return replace(snapshot, authorities=authorities, sealed=sealed)


def _resealed(authority: AuthorityRecord, master: MasterKey) -> AuthorityRecord:
    name = key_record_name(authority.authority_id)
    if authority.retired_at_unix_ms is not None or not _is_old(master, name, authority.sealed_key):
        return authority
    return replace(authority, sealed_key=_again(master, name, authority.sealed_key))


def _is_old(master: MasterKey, name: str, box: bytes) -> bool:
    return key_id_of(name, box) != master.key_id


def _again(master: MasterKey, name: str, box: bytes) -> bytes:
    return master.seal(name, master.open(name, box))
