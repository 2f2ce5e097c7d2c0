"""How servers are met: each way that rules may name, with its roots and what we show, for TLS.

`ServerTls` is one way at one time: it verifies by the named roots alone, or by those of the proxy's
bundle, and shows the named certificate, or none. Two requests may share a connection to a server
only if theirs is the same object: when a file changes, the next request gets another one, and
connections of the old one take no new requests. `find` answers from memory, None for what is not
there: a name that is not set up, a file that is gone or that somebody else may change, a
certificate that has ended. A file whose content makes no sense changes nothing until it does (two
files are replaced one after the other), and `problem` says so; one that could not be read is read
again at each look. TLS 1.2 or newer, exactly the judged host, as for every server (`interception`).
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from OpenSSL import SSL, crypto

from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.values import EXPECTED_ID, is_identifier
from palyra_egress.proxy.tls.interception import client_context
from palyra_egress.proxy.tls.tls_material import (
    CertificateFiles,
    ClientCertificate,
    MaterialDamaged,
    MaterialGone,
    MaterialUnread,
    for_openssl,
    read_bundle,
    read_client_certificate,
    read_roots,
    show,
)
from palyra_egress.verdict import UpstreamTls
from palyra_fleet.trusted_files import TrustedLook, look_at

_log = logging.getLogger(__name__)

type _Roots = tuple[crypto.X509, ...]


class ServerTlsRefused(OperatorMustAct):
    """Roots or client certificates are set up in a way that cannot work."""


@dataclass(frozen=True, slots=True)
class ServerTlsSettings:
    """What policies may name, and where it lies."""

    roots: Mapping[str, Path] = field(default_factory=dict)
    client_certificates: Mapping[str, CertificateFiles] = field(default_factory=dict)


NOTHING_NAMED: Final = ServerTlsSettings()


def server_tls_settings(roots: list[str], client_certificates: list[str]) -> ServerTlsSettings:
    """The settings in texts of the form NAME=FILE, and NAME=FILE or NAME=CERTIFICATE,KEY. Raises
    ServerTlsRefused."""
    found = _named("--upstream-roots", roots, "NAME=FILE")
    shown = _named("--client-certificate", client_certificates, "NAME=CERTIFICATE,KEY")
    pairs: dict[str, CertificateFiles] = {}
    for name, text in shown.items():
        certificate, *rest = text.split(",")
        if len(rest) > 1 or not all([certificate, *rest]):
            raise ServerTlsRefused(
                f"--client-certificate {name}={text}: expected NAME=CERTIFICATE,KEY, or NAME=FILE"
                " with both in one file; no commas in the paths"
            )
        pairs[name] = CertificateFiles(Path(certificate), Path(rest[0] if rest else certificate))
    return ServerTlsSettings({name: Path(text) for name, text in found.items()}, pairs)


def _named(flag: str, texts: list[str], form: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise ServerTlsRefused(f"{flag} {text}: expected {form}")
        if not is_identifier(name):
            raise ServerTlsRefused(
                f"{flag} {text}: the name {name!r} is none; expected {EXPECTED_ID}"
            )
        if name in found:
            raise ServerTlsRefused(f"{flag} {text}: {name!r} is given already; expected each once")
        found[name] = path
    return found


@dataclass(slots=True, eq=False)
class ServerTls:
    """One way to meet servers. Equal to itself alone."""

    names: UpstreamTls
    roots: _Roots = field(repr=False)
    shown: ClientCertificate | None = field(default=None, repr=False)
    _context: SSL.Context | None = field(default=None, init=False, repr=False)

    def context(self) -> SSL.Context:
        """The TLS context of these connections; made once."""
        if self._context is None:
            self._context = self._make()
        return self._context

    def _make(self) -> SSL.Context:
        context = client_context()
        store = context.get_cert_store()
        if store is None:
            raise ServerTlsRefused("this OpenSSL has no store for roots")
        for root in self.roots:
            store.add_cert(root)
        if self.shown is not None:
            show(context, self.shown)
        return context


class ServerTlsLookup(Protocol):
    """What the core asks."""

    def find(self, names: UpstreamTls) -> ServerTls | None:
        """The way that these names stand for now; None if any of it is not there."""
        ...


@dataclass(slots=True)
class _File[T]:
    """What is held under one name, what its files were then, and what is wrong with them now."""

    paths: tuple[Path, ...]
    read: Callable[[], T]
    held: T | None = None
    problem: str | None = None
    looks: tuple[TrustedLook, ...] = ()

    def read_again(self) -> bool:
        """Whether what is held is another now."""
        found = tuple(look_at(path) for path in self.paths)
        if found == self.looks:
            return False
        before = self.held
        try:
            self.held, self.problem = self.read(), None
        except MaterialUnread as error:
            self.held, self.problem, found = None, str(error), ()
        except MaterialGone as error:
            self.held, self.problem = None, str(error)
        except MaterialDamaged as error:
            self.problem = str(error)
        self.looks = found
        return self.held is not before


class ServerTlsStore:
    """Every way that rules may name here. `read_again` is for a thread, the rest for the loop."""

    def __init__(
        self, settings: ServerTlsSettings, bundle: Path, now_utc: Callable[[], datetime]
    ) -> None:
        self._now = now_utc
        self._bundle = {"": _File((bundle,), lambda: read_bundle(bundle))}
        self._roots = {
            name: _File((path,), lambda path=path: for_openssl(read_roots(path)))  # type: ignore[misc]
            for name, path in settings.roots.items()
        }
        self._shown = {
            name: _File(tuple(files), lambda files=files: read_client_certificate(files))  # type: ignore[misc]
            for name, files in settings.client_certificates.items()
        }
        self._ways: dict[UpstreamTls, ServerTls] = {}
        self.read_again()

    def find(self, names: UpstreamTls) -> ServerTls | None:
        has_own = names.roots is not None
        roots = _held(self._roots if has_own else self._bundle, names.roots or "")
        shown = None if names.client_certificate is None else self._certificate(names)
        if roots is None or (shown is None) != (names.client_certificate is None):
            self._ways.pop(names, None)
            return None
        way = self._ways.get(names)
        if way is None or way.roots is not roots or way.shown is not shown:
            way = self._ways[names] = ServerTls(names, roots, shown)
        return way

    def _certificate(self, names: UpstreamTls) -> ClientCertificate | None:
        """The certificate that is named, while it lasts."""
        held = _held(self._shown, names.client_certificate or "")
        return held if held is not None and held.problem(self._now()) is None else None

    def read_again(self) -> None:
        """Look at every file, and say what has changed."""
        for name, file in self._named():
            before = file.problem
            is_another = file.read_again()
            if file.problem is not None and (is_another or file.problem != before):
                what = "is gone" if file.held is None else "stays as it was"
                _log.error("the %s %s: %s", name, what, file.problem)
            elif is_another:
                _log.info("the %s was read", name)

    @property
    def problem(self) -> str | None:
        """What is not as it should be, for people; None if all is."""
        now, found = self._now(), []
        for name, file in self._named():
            held = file.held
            ended = held.problem(now) if isinstance(held, ClientCertificate) else None
            if (problem := file.problem or ended) is not None:
                found.append(f"{name}: {problem}")
        return "; ".join(found) or None

    def _named(self) -> Iterator[tuple[str, _File[_Roots] | _File[ClientCertificate]]]:
        """Every file, and what it is called towards people."""
        yield "bundle", self._bundle[""]
        for name, roots in sorted(self._roots.items()):
            yield f"roots {name}", roots
        for name, shown in sorted(self._shown.items()):
            yield f"client certificate {name}", shown


def _held[T](files: Mapping[str, _File[T]], name: str) -> T | None:
    file = files.get(name)
    return None if file is None else file.held
