"""Gate: every call of a node, and every message of its stream, passes here.

A certificate is looked at in full once, remembered by its bytes, and its dates are compared again
each time, so that a long connection does not outlive its certificate. Whether its device may speak
is asked of the identity each time. The four published answers stand in `identity.refusals`.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from palyra_fleet.identity.messages import PairedDevice, VerifiedLeaf
from palyra_fleet.identity.ports import NodeIdentity
from palyra_fleet.identity.refusals import NodeReason, NodeRefusal, NodeRefused, refuse
from palyra_fleet.nodes.peer import Peer
from palyra_fleet.wire.ids import is_canonical_ulid

MAX_REMEMBERED: Final = 16_384

_log = logging.getLogger(__name__)


class Gate:
    """See the module. One for all listeners."""

    def __init__(self, identity: NodeIdentity, clock: Callable[[], int]) -> None:
        self._identity = identity
        self._clock = clock
        self._leaves: OrderedDict[bytes, VerifiedLeaf] = OrderedDict()

    def leaf(self, peer: Peer) -> VerifiedLeaf:
        """The peer's certificate, checked. Raises NodeRefused."""
        if not peer.session_is_sound or not peer.chain_der:
            raise NodeRefused(refuse(NodeReason.GATE_NO_CERTIFICATE))
        now = self._clock()
        key = hashlib.sha256(b"".join(peer.chain_der)).digest()
        leaf = self._leaves.get(key)
        if leaf is None:
            verified = self._identity.verify(peer.chain_der, now)
            if isinstance(verified, NodeRefusal):
                _log.info("a certificate from %s was refused: %s", peer.host, verified.reason)
                raise NodeRefused(verified)
            leaf = self._leaves[key] = verified
            if len(self._leaves) > MAX_REMEMBERED:
                self._leaves.popitem(last=False)
        self._check_dates(leaf, now)
        return leaf

    async def admit(self, leaf: VerifiedLeaf, device_id: str | None) -> PairedDevice:
        """The device that speaks; `device_id` is whom the message names. Raises NodeRefused."""
        self._check_dates(leaf, self._clock())
        malformed = device_id is not None and not is_canonical_ulid(device_id)
        admitted = await self._identity.admit(leaf, None if malformed else device_id)
        if isinstance(admitted, NodeRefusal):
            raise NodeRefused(admitted)
        if malformed:
            raise NodeRefused(refuse(NodeReason.NOT_A_ULID, field="device_id"))
        return admitted

    def check(self, leaf: VerifiedLeaf) -> None:
        """Before anything is sent unasked: is this certificate still good? Raises NodeRefused."""
        now = self._clock()
        self._check_dates(leaf, now)
        found = self._identity.check(leaf.fingerprint, now)
        if isinstance(found, NodeRefusal):
            raise NodeRefused(found)

    @staticmethod
    def _check_dates(leaf: VerifiedLeaf, now_unix_ms: int) -> None:
        if not leaf.not_before_unix_ms <= now_unix_ms < leaf.not_after_unix_ms:
            raise NodeRefused(refuse(NodeReason.GATE_NO_CERTIFICATE))
