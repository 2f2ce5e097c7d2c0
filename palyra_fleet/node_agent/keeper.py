"""DeviceKeeper: the certificate of this paired machine, for programs that speak to the fleet's API.

Gives the TLS of each new connection and renews the certificate by itself: at half of its life, and
when the fleet says that it is time, which it is asked at each look, by one program of a machine at
a time. Many programs may share a home: the file is looked at anew for every connection, and one of
them renews, under the home's lock; while a node agent holds that lock, the agent does. A new
certificate is stored before it is used, and takes the place of the old one once the fleet has
answered to it. TLS 1.3 only; the roots are those of the pairing and no others, and the server must
be the fleet by name. Times: Unix ms.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import random
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from palyra_fleet.client.device import DeviceClient
from palyra_fleet.client.errors import FleetError, FleetProblem
from palyra_fleet.client.transport import RemoteFleet
from palyra_fleet.clock import now_unix_ms
from palyra_fleet.node_agent.keys import CertificateKey, CertificateRefused, merged_roots
from palyra_fleet.node_agent.material import AgentHome, Certificate, NodeMaterial
from palyra_fleet.wire.keys import SigningKey

LOOK_EVERY_S: Final = 30.0
_REFUSED: Final = frozenset({401, 403})

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class DeviceKeeper:
    """One paired home. Raises NotPaired or MaterialUnusable where it holds no usable pairing."""

    home: AgentHome
    clock: Callable[[], int] = now_unix_ms
    look_every_s: float = LOOK_EVERY_S
    _seen: tuple[int, int] | None = None
    _material: NodeMaterial | None = field(default=None, repr=False)
    _context: ssl.SSLContext | None = field(default=None, repr=False)

    @property
    def material(self) -> NodeMaterial:
        """What the home holds now."""
        found = self.home.material_file.stat() if self.home.is_paired else None
        seen = None if found is None else (found.st_ino, found.st_mtime_ns)
        if self._material is None or seen != self._seen:
            self._material = self.home.load()
            self._seen, self._context = seen, None
        return self._material

    @property
    def signing_key(self) -> SigningKey:
        """The key this machine paired with: a proxy's or a launcher's own."""
        return SigningKey.of_seed(bytes.fromhex(self.material.signing_seed_hex))

    def fleet(self, url: str) -> RemoteFleet:
        """The fleet there, with the TLS of this machine."""
        return RemoteFleet(url, self.tls)

    def tls(self) -> ssl.SSLContext:
        """For one connection: the newest certificate, and the roots it trusts."""
        material = self.material
        if self._context is None:
            self._context = client_context(material.newest, material.trusted_roots_pem)
        return self._context

    async def keep(self, url: str) -> None:
        """Renew in time, until cancelled. Trouble is told in the log and tried again."""
        while True:
            try:
                await self.renew_if_due(url)
            except (FleetError, CertificateRefused, OSError) as error:
                _log.warning("the certificate of this machine was not renewed: %s", error)
            pause = self.look_every_s * random.uniform(0.5, 1.0)  # noqa: S311 spread, no secret
            await asyncio.sleep(pause)

    async def renew_if_due(self, url: str) -> bool:
        """Renew from half of the certificate's life on, or where the fleet wants it; whether that
        was done here."""
        wanted = None if self._due(self.material) else await self._wanted(url)
        if wanted is None and not self._due(self.material):
            return False
        with _alone(self.home) as alone:
            material = self.material  # another program may have renewed it meanwhile
            if not alone or not (self._due(material) or wanted == material.newest.fingerprint):
                return False
            async with DeviceClient(self.fleet(url)) as client:
                if material.next_certificate is None:
                    material = await self._next(client, material)
                await self._settle(client, material)
        return True

    async def _wanted(self, url: str) -> str | None:
        """The certificate in use, if the fleet wants it replaced. Of all programs of this home one
        asks at a time, since a machine has few calls; a fleet that cannot be asked is asked again
        at a later look."""
        if self._asked_lately():
            return None
        with contextlib.suppress(FleetError):
            async with DeviceClient(self.fleet(url)) as client:
                own = await client.certificate()
            return own.fingerprint_sha256 if own.renewal_due else None
        return None

    def _asked_lately(self) -> bool:
        """Whether a program asked within the last half of a look; if not, this one does now."""
        asked = self.home.asked_file
        with contextlib.suppress(FileNotFoundError):
            age_s = self.clock() / 1000 - asked.stat().st_mtime
            if 0 <= age_s < self.look_every_s / 2:
                return True
        asked.touch(mode=0o600)
        return False

    async def _next(self, client: DeviceClient, material: NodeMaterial) -> NodeMaterial:
        """Ask for the next certificate, and store it beside the one in use."""
        key = CertificateKey.make(material.device_id)
        answer = await client.rotate_certificate(key.request_pem)
        roots = merged_roots(material.trusted_roots_pem, answer.gateway_ca_certificate_pem)
        issued = key.certificate(
            answer.certificate_pem, material.device_id, roots, answer.cert_expires_at_unix_ms
        )
        following = material.with_next(issued, roots)
        await asyncio.to_thread(self.home.save, following)
        return following

    async def _settle(self, client: DeviceClient, material: NodeMaterial) -> None:
        """Use the next certificate; where the fleet knows nothing of it, go on with the old one."""
        try:
            await client.is_accepted()
        except FleetProblem as problem:
            if problem.status not in _REFUSED:
                raise
            await asyncio.to_thread(self.home.save, material.without_next())
            raise
        await asyncio.to_thread(self.home.save, material.settled())

    def _due(self, material: NodeMaterial) -> bool:
        if material.next_certificate is not None:
            return True
        issued, expires = (
            material.certificate.issued_at_unix_ms,
            material.certificate.expires_at_unix_ms,
        )
        return self.clock() >= issued + (expires - issued) // 2


def client_context(certificate: Certificate, roots_pem: str) -> ssl.SSLContext:
    """TLS 1.3 to a server under these roots, with this certificate. The key goes to OpenSSL through
    a file that lives in memory."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=roots_pem)
    context.set_alpn_protocols(["http/1.1"])
    descriptor = os.memfd_create("palyra-client-certificate")
    try:
        os.write(descriptor, (certificate.certificate_pem + certificate.private_key_pem).encode())
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    return context


@contextlib.contextmanager
def _alone(home: AgentHome) -> Iterator[bool]:
    """Whether nobody else renews this home's certificate now."""
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)
