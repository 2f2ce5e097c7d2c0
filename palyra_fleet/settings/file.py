"""The fleet's settings file: TOML, read strictly; each mistake is told with file, line and key.

Tables: `[attestors.NAME]` for each attestor beside `launcher` (see docs/attestation.md), and
`[issuers.NAME]` for each issuer whose tokens principals may bring (see docs/operators.md). What the
file does not name is not there: an empty file configures no attestor and believes no issuer.
Unknown keys, wrong types, unreadable files and lists that would admit nobody are refused. Paths are
relative to the file.
"""

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from palyra_fleet.attestation.attestor import Attestor
from palyra_fleet.attestation.attestors.join_token import JoinTokenAttestor
from palyra_fleet.attestation.attestors.k8s_psat import ClusterTrust, ServiceAccountAttestor
from palyra_fleet.attestation.attestors.launcher import LauncherAttestor
from palyra_fleet.attestation.attestors.oci_dsse import ProvenanceAttestor
from palyra_fleet.attestation.attestors.x509pop import CertificateSelector, X509PopAttestor
from palyra_fleet.attestation.join_tokens import JoinTokenBook
from palyra_fleet.issuers.key_sources import KeysUnreadable, read_key_file, trusting
from palyra_fleet.issuers.trusted import (
    LEEWAY_S,
    LONGEST_LIFE_S,
    MOST_LEEWAY_S,
    MOST_LIFE_S,
    TrustedIssuer,
    checked_https,
)
from palyra_fleet.model_keys import keys_at
from palyra_fleet.nearest_word import did_you_mean
from palyra_fleet.settings.errors import SettingsFileError, line_of
from palyra_fleet.trusted_files import UntrustedFile, read_edited, read_trusted
from palyra_fleet.wire.key_sets import KeySetError, VerifyingKey, read_key_set
from palyra_fleet.wire.models import Name
from palyra_fleet.wire.principal_models import IssuerUrl
from palyra_fleet.wire.signatures import KeyNotSupported, supported

MAX_FILE_BYTES: Final = 1024 * 1024
MOST_ISSUERS: Final = 8
_Text = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
_Texts = Annotated[tuple[_Text, ...], Field(min_length=1, strict=False)]
_Account = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{1,63}:[a-z0-9.-]{1,253}$")]
type _Key = tuple[str | int, ...]
__all__ = ["SettingsFile", "SettingsFileError", "line_of", "read_settings", "settings_file"]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Selector(_Table):
    uri: _Text | None = None
    dns: _Text | None = None
    common_name: _Text | None = None


class _X509Pop(_Table):
    ca_files: _Texts
    admit: Annotated[tuple[_Selector, ...], Field(min_length=1, strict=False)]


class _JoinToken(_Table):
    pass


class _Psat(_Table):
    cluster: Name
    issuer: _Text
    audience: _Text
    jwks_file: _Text
    service_accounts: Annotated[tuple[_Account, ...], Field(min_length=1, strict=False)]


class _OciDsse(_Table):
    builder_keys: _Texts
    builder_ids: _Texts


class _Attestors(_Table):
    x509pop: _X509Pop | None = None
    join_token: _JoinToken | None = None
    k8s_psat: _Psat | None = None
    oci_dsse: _OciDsse | None = None


class _Issuer(_Table):
    issuer: IssuerUrl
    audience: _Text
    jwks_file: _Text | None = None
    discovery: bool = False
    ca_file: _Text | None = None
    leeway_s: int = Field(default=LEEWAY_S, ge=0, le=MOST_LEEWAY_S)
    longest_life_s: int = Field(default=LONGEST_LIFE_S, ge=60, le=MOST_LIFE_S)
    authorized_parties: _Texts = ()


class _File(_Table):
    attestors: _Attestors = _Attestors()
    issuers: dict[Name, _Issuer] = Field(default_factory=dict, max_length=MOST_ISSUERS)


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """What a file says, its keys and certificates read. `join_tokens`: whether that attestor is
    on; its book lies with the fleet's state. `issuers`: whose tokens principals may bring."""

    attestors: Mapping[str, Attestor] = field(default_factory=dict)
    join_tokens: bool = False
    issuers: tuple[TrustedIssuer, ...] = ()

    def with_launcher(self, book: JoinTokenBook) -> dict[str, Attestor]:
        """Every attestor of the fleet by kind. `launcher` is always there: it admits whom an
        enrolled launcher vouches for, and no launcher is enrolled at first."""
        made: dict[str, Attestor] = {LauncherAttestor.kind: LauncherAttestor(), **self.attestors}
        if self.join_tokens:
            made[JoinTokenAttestor.kind] = JoinTokenAttestor(book)
        return made


def settings_file(path: Path | None) -> SettingsFile:
    """What the file says; without one, that there is no attestor but `launcher`."""
    return SettingsFile() if path is None else read_settings(path)


def read_settings(path: Path) -> SettingsFile:
    """Read and build. Raises SettingsFileError."""
    text = _text(path)
    reader = _Reader(path, text)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsFileError(f"{path}: not TOML: {error}") from error
    try:
        said = _File.model_validate(content)
    except ValidationError as error:
        raise reader.mistake_of(error) from None
    return SettingsFile(
        _attestors(said.attestors, reader),
        said.attestors.join_token is not None,
        _issuers(said.issuers, reader),
    )


def _text(path: Path) -> str:
    try:
        content, _ = read_edited(path, MAX_FILE_BYTES)
        return content.decode()
    except UntrustedFile as error:
        raise SettingsFileError(str(error)) from None
    except OSError as error:
        raise SettingsFileError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise SettingsFileError(f"{path}: is not UTF-8 at byte {error.start}") from error


def _attestors(said: _Attestors, reader: "_Reader") -> dict[str, Attestor]:
    made: dict[str, Attestor] = {}
    if said.x509pop is not None:
        key = ("attestors", "x509pop")
        selectors = [
            reader.checked_selector(selector, (*key, "admit", number))
            for number, selector in enumerate(said.x509pop.admit)
        ]
        roots = [
            root
            for number, name in enumerate(said.x509pop.ca_files)
            for root in reader.certificates(name, (*key, "ca_files", number))
        ]
        made[X509PopAttestor.kind] = X509PopAttestor(roots, selectors)
    if said.k8s_psat is not None:
        made[ServiceAccountAttestor.kind] = ServiceAccountAttestor(_cluster(said.k8s_psat, reader))
    if said.oci_dsse is not None:
        key = ("attestors", "oci_dsse")
        keys = [
            reader.public_key(name, (*key, "builder_keys", number))
            for number, name in enumerate(said.oci_dsse.builder_keys)
        ]
        made[ProvenanceAttestor.kind] = ProvenanceAttestor(keys, said.oci_dsse.builder_ids)
    return made


def _cluster(said: _Psat, reader: "_Reader") -> ClusterTrust:
    accounts = [tuple(account.split(":", 1)) for account in said.service_accounts]
    return ClusterTrust(
        cluster=said.cluster,
        issuer=said.issuer,
        audience=said.audience,
        keys=reader.key_set(said.jwks_file, ("attestors", "k8s_psat", "jwks_file")),
        service_accounts=[(namespace, name) for namespace, name in accounts],
    )


def _issuers(said: Mapping[str, _Issuer], reader: "_Reader") -> tuple[TrustedIssuer, ...]:
    made: list[TrustedIssuer] = []
    for name, one in said.items():
        key = ("issuers", name)
        if (one.jwks_file is None) is not one.discovery:
            raise reader.mistake(key, "expected jwks_file, or discovery = true")
        if one.ca_file is not None and not one.discovery:
            raise reader.mistake((*key, "ca_file"), "nothing is asked without discovery = true")
        if one.issuer in {other.url for other in made}:
            raise reader.mistake((*key, "issuer"), "another table has this issuer")
        made.append(
            TrustedIssuer(
                name,
                reader.address(one.issuer, (*key, "issuer")),
                one.audience,
                reader.signing_key_file(one.jwks_file, (*key, "jwks_file")),
                reader.ca_file(one.ca_file, (*key, "ca_file")),
                one.leeway_s,
                one.longest_life_s,
                one.authorized_parties,
            )
        )
    return tuple(made)


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads the files that the settings name; knows where each key stands."""

    path: Path
    text: str

    def checked_selector(self, said: _Selector, key: _Key) -> CertificateSelector:
        if said.uri is None and said.dns is None and said.common_name is None:
            raise self.mistake(key, "expected uri, dns or common_name; it would admit nobody")
        return CertificateSelector(said.uri, said.dns, said.common_name)

    def certificates(self, name: str, key: _Key) -> Sequence[x509.Certificate]:
        try:
            return x509.load_pem_x509_certificates(self._bytes(name, key))
        except ValueError:
            raise self.mistake(key, f"{name}: expected PEM certificates") from None

    def public_key(self, name: str, key: _Key) -> PublicKeyTypes:
        try:
            return supported(load_pem_public_key(self._bytes(name, key)))
        except (ValueError, UnsupportedAlgorithm):
            raise self.mistake(key, f"{name}: expected a PEM public key") from None
        except KeyNotSupported as error:
            raise self.mistake(key, f"{name}: {error}") from None

    def key_set(self, name: str, key: _Key) -> dict[str, VerifyingKey]:
        try:
            content = json.loads(self._bytes(name, key))
        except (ValueError, RecursionError):
            raise self.mistake(key, f"{name}: expected JSON") from None
        try:
            return read_key_set(content if isinstance(content, dict) else {})
        except KeySetError as error:
            raise self.mistake(key, f"{name}: {error}") from None

    def address(self, text: str, key: _Key) -> str:
        try:
            return checked_https(text)
        except ValueError as error:
            raise self.mistake(key, str(error)) from None

    def signing_key_file(self, name: str | None, key: _Key) -> Path | None:
        """The file, once it was read: it is read again while the fleet runs."""
        if name is None:
            return None
        try:
            read_key_file(self.path.parent / name)
        except KeysUnreadable as error:
            raise self.mistake(key, str(error)) from None
        return self.path.parent / name

    def ca_file(self, name: str | None, key: _Key) -> Path | None:
        if name is None:
            return None
        try:
            trusting(self.path.parent / name)
        except KeysUnreadable as error:
            raise self.mistake(key, str(error)) from None
        return self.path.parent / name

    def _bytes(self, name: str, key: _Key) -> bytes:
        try:
            content, _ = read_trusted(self.path.parent / name, MAX_FILE_BYTES)
            return content
        except UntrustedFile as error:
            raise self.mistake(key, str(error)) from None
        except OSError as error:
            raise self.mistake(key, f"{name}: cannot be read: {error.strerror}") from None

    def mistake_of(self, error: ValidationError) -> SettingsFileError:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        unknown = first["type"] == "extra_forbidden"
        said = str(first["msg"])
        if unknown:
            *above, key = first["loc"]
            said = f"there is no such key{did_you_mean(str(key), keys_at(_File, above))}"
        return self.mistake(first["loc"], said)

    def mistake(self, key: _Key, said: str) -> SettingsFileError:
        named = ".".join(str(part) for part in key)
        return SettingsFileError(f"{self.path}:{line_of(self.text, key)}: {named}: {said}")
