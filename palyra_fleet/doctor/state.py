"""What the fleet has written down: its databases, its authority, its principals and its token."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography import x509

from palyra_fleet.doctor.finding import Finding, fail, ok, warn
from palyra_fleet.doctor.machine import not_set_back
from palyra_fleet.identity.identity_core import ROOT_FILE
from palyra_fleet.identity.identity_schema import IDENTITY_DATABASE
from palyra_fleet.principals.book import PrincipalBook, PrincipalFileError, token_sha256
from palyra_fleet.private_files import read_private
from palyra_fleet.serve import TOKEN_BYTES
from palyra_fleet.store.inspection import inspect, read_only
from palyra_fleet.store.protocol import ChainBroken, SchemaUnknown, StateUnusable
from palyra_fleet.store.sqlite_connection import FLEET_DATABASE, DatabaseDesign
from palyra_fleet.store.state_directory import AUTHORITY
from palyra_fleet.wire.keys import KeyFileError

DAY_MS: Final = 24 * 3600 * 1000
RENEW_WITHIN_MS: Final = 90 * DAY_MS
_MAX_TOKEN_BYTES: Final = 4096
_RESTORE: Final = "`palyra-fleet snapshot restore FILE`, docs/how-to/back-up-and-restore.md"
_TAMPERED: Final = (
    f"stop the fleet, keep a copy of its state as evidence, and restore a backup: {_RESTORE}"
)
STARTING: Final = "`palyra-fleet serve` (or `palyra-egress up`, which serves both)"
"""What begins a fleet."""


def fleet_store(state_dir: Path, now_unix_ms: int) -> Iterator[Finding]:
    """The ledger opens, its chain holds, and the clock is not behind it."""
    if is_untouched(state_dir):
        said = f"{state_dir} holds no state: no fleet was started here, or all of it was removed"
        remedy = f"start it with {STARTING}; if one ran here before, restore a backup: {_RESTORE}"
        yield fail("store.fleet", said, remedy)
        return
    yield from _store("store.fleet", state_dir, FLEET_DATABASE, now_unix_ms)


def identity_store(state_dir: Path, now_unix_ms: int) -> Iterator[Finding]:
    """The same for the nodes' identities, and the authority in it."""
    database = state_dir / IDENTITY_DATABASE.files.database
    if not database.exists() and not (state_dir / AUTHORITY).exists():
        yield ok("store.identity", "nodes were never served here")
        return
    yield from _store("store.identity", state_dir, IDENTITY_DATABASE, now_unix_ms)
    if database.exists():
        yield from _authorities(state_dir, database, now_unix_ms)


def is_untouched(state_dir: Path) -> bool:
    """Whether no fleet ever kept state here: nothing lies here but, at most, the lock of a start
    that came to nothing. Whatever else there is without a database is a loss."""
    if not state_dir.is_dir():
        return not state_dir.exists()
    return {one.name for one in state_dir.iterdir()} <= {FLEET_DATABASE.files.lock}


def token(file: Path) -> Iterator[Finding]:
    """The operator's token is there, private, and long enough to be one."""
    if not os.path.lexists(file):
        remedy = f"start the fleet with {STARTING}: it makes one; if it runs, start it again"
        yield fail("token", f"{file} is not there", remedy)
        return
    try:
        text = read_private(file, _MAX_TOKEN_BYTES).decode("ascii").strip()
    except (KeyFileError, UnicodeDecodeError) as error:
        yield fail("token", str(error), "remove the file and start the fleet: it makes a new one")
        return
    if len(text) < TOKEN_BYTES:
        yield fail("token", f"{file} holds no token", "remove it and start the fleet again")
        return
    yield ok("token", f"{file} is private")


def principals(file: Path) -> Iterator[Finding]:
    """The principals' file reads as the fleet will read it."""
    try:
        PrincipalBook.open(file, token_sha256(""))
    except PrincipalFileError as error:
        yield fail("principals", str(error), "restore the file: the fleet does not start with it")
        return
    yield ok("principals", f"{file} reads" if file.exists() else "nobody but the operator")


def _store(
    check: str, state_dir: Path, design: DatabaseDesign, now_unix_ms: int
) -> Iterator[Finding]:
    try:
        found = inspect(state_dir, design)
    except SchemaUnknown as error:
        remedy = "start the release that wrote it last; or restore a backup that this one made"
        yield fail(check, str(error), remedy)
        return
    except (StateUnusable, ChainBroken) as error:
        yield fail(check, str(error), _TAMPERED)
        return
    yield ok(check, f"opens; {found.events} events, the chain holds to {found.last_seq}")
    if not found.has_current_schema:
        said = f"schema {found.schema_version} is an older release's"
        yield warn(check, said, "back up, then start the fleet: it brings the state forward")
    yield not_set_back(now_unix_ms, found.high_water_unix_ms)


def _authorities(state_dir: Path, database: Path, now_unix_ms: int) -> Iterator[Finding]:
    with read_only(database) as connection:
        rows = connection.execute(
            "SELECT certificate_der FROM authorities WHERE retired_at_unix_ms IS NULL"
            " ORDER BY created_at_unix_ms"
        ).fetchall()
    trusted = [x509.load_der_x509_certificate(bytes(der)) for (der,) in rows]
    if not trusted:
        yield fail("ca.fleet", "no authority is trusted", "restore the state from a backup")
        return
    yield dated("ca.fleet", trusted[-1], now_unix_ms, "`palyra-fleet ca rotate`")
    published = state_dir / AUTHORITY / ROOT_FILE
    found = x509.load_pem_x509_certificates(published.read_bytes())
    if set(found) == set(trusted):
        yield ok("ca.published", f"{published} holds what is trusted")
    else:
        said = f"{published} is not what the fleet trusts"
        yield fail("ca.published", said, "start the fleet: it writes the file anew")


def dated(check: str, certificate: x509.Certificate, now_unix_ms: int, renewing: str) -> Finding:
    """Whether a certificate holds now, and for long enough."""
    begins = int(certificate.not_valid_before_utc.timestamp() * 1000)
    ends = int(certificate.not_valid_after_utc.timestamp() * 1000)
    until = certificate.not_valid_after_utc.date().isoformat()
    if now_unix_ms < begins:
        since = certificate.not_valid_before_utc.isoformat()
        return fail(check, f"holds only from {since} on", "set the clock")
    if now_unix_ms >= ends:
        return fail(check, f"ended on {until}", f"renew it: {renewing}")
    if ends - now_unix_ms < RENEW_WITHIN_MS:
        return warn(check, f"ends on {until}", f"renew it in time: {renewing}")
    return ok(check, f"holds until {until}")
