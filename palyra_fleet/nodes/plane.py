"""NodePlane: everything about nodes, put together and served beside the fleet.

Opened after the fleet's own state and closed before it: the identity, whose master key is made with
the first start and must be there at every later one; the runtime state, which must be there where
devices are; pairing; the service; the two listeners. Nothing listens before all of it is sound.
"""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from palyra_fleet.clock import now_unix_ms
from palyra_fleet.identity.manager import IdentityManager, IdentitySettings
from palyra_fleet.identity.pairing import PairingSettings
from palyra_fleet.identity.pairing_service import PairingService
from palyra_fleet.nodes.listeners import NodeListeners, NodeListenerSettings
from palyra_fleet.nodes.runtime_state import NodeRuntimeState
from palyra_fleet.nodes.service import NodeService
from palyra_fleet.private_files import NODES_KEY, credential
from palyra_fleet.store.state_directory import AUTHORITY
from palyra_fleet.wire.sealing import MasterKey, create_key_file, find_master_key

MASTER_KEY_FILE: Final = "master.key"


@dataclass(frozen=True, slots=True)
class NodePlaneSettings:
    """`master_key_file` defaults to one in the state directory; keep it apart from backups."""

    listeners: NodeListenerSettings = field(default_factory=NodeListenerSettings)
    identity: IdentitySettings = field(default_factory=IdentitySettings)
    pairing: PairingSettings = field(default_factory=PairingSettings)
    master_key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class NodePlane:
    """What is served, for whoever administers it."""

    service: NodeService
    identity: IdentityManager
    listeners: NodeListeners

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        state_dir: Path,
        settings: NodePlaneSettings,
        clock: Callable[[], int] = now_unix_ms,
    ) -> AsyncIterator["NodePlane"]:
        """Serve nodes until the block ends.

        Raises StateUnusable, SealBroken, MasterKeyError, StoreFailed, ListenError or TlsUnsound,
        each with what to do.
        """
        async with AsyncExitStack() as opened:
            master = master_key(state_dir, settings.master_key_file)
            identity = await IdentityManager.start(state_dir, master, settings.identity, clock)
            opened.push_async_callback(identity.close)
            state = await NodeRuntimeState.open(
                state_dir, identity.now(), must_exist=bool(identity.devices())
            )
            opened.push_async_callback(state.close)
            pairing = PairingService(identity, state, settings.pairing)
            service = NodeService(state, pairing, identity, identity.now)
            opened.callback(service.close)
            listeners = await opened.enter_async_context(
                NodeListeners.open(service, identity, settings.listeners, identity.now)
            )
            yield cls(service, identity, listeners)


def master_key(state_dir: Path, file: Path | None) -> MasterKey:
    """The key of the environment or the file; a new file where this fleet never had an authority.

    Raises MasterKeyError.
    """
    path = file or credential(NODES_KEY) or state_dir / MASTER_KEY_FILE
    first_start = not (state_dir / AUTHORITY).exists() and not os.path.lexists(path)
    if first_start and "PALYRA_MASTER_KEY" not in os.environ:
        return create_key_file(path)
    return find_master_key(path, os.environ)
