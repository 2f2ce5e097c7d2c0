"""The environment a worker's program gets: one table of variables, and what is taken away first.

`egress_environment` is the pure table: which variable gets the proxy's URL (with the lease's
credential in it), the combined CA bundle, or our own CA. `child_environment` lays it over what was
inherited, after dropping every inherited proxy setting in any spelling (a left-over `no_proxy`
would lead around the proxy), the operator's own PALYRA_ settings, and what would make the program
run code that nobody measured (`inherited`). Everything else is left alone.

This is a convenience for well-behaved clients. What enforces is that nothing else leads out.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Final, assert_never
from urllib.parse import quote

from palyra_fleet.worker.inherited import reaches_program


class Value(Enum):
    """What a row of the table is set to."""

    PROXY_URL = auto()
    ANY_PROXY_URL = auto()
    NOTHING = auto()
    COMBINED_BUNDLE = auto()
    PALYRA_CA = auto()
    YES = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """One variable and the programs that read it. With the first of them the row is tried, alone
    (tests/e2e/test_env.py)."""

    name: str
    value: Value
    readers: tuple[str, ...]


_CURL_FIRST: Final = ("curl", "wget", "requests", "httpx")
_EVERYBODY: Final = ("curl", "most HTTP clients")


TABLE: Final = (
    # curl and many others read only the lower-case http_proxy (CGI's HTTP_PROXY is an attack)
    Row("HTTP_PROXY", Value.PROXY_URL, ("requests", "most HTTP clients")),
    Row("http_proxy", Value.PROXY_URL, _CURL_FIRST),
    Row("HTTPS_PROXY", Value.PROXY_URL, _EVERYBODY),
    Row("https_proxy", Value.PROXY_URL, _CURL_FIRST),
    Row("ALL_PROXY", Value.ANY_PROXY_URL, ("curl", "git", "httpx")),
    Row("all_proxy", Value.ANY_PROXY_URL, ("curl", "git", "httpx")),
    # set and empty: no destination goes around the proxy, not even loopback
    Row("NO_PROXY", Value.NOTHING, _EVERYBODY),
    Row("no_proxy", Value.NOTHING, _CURL_FIRST),
    Row(
        "SSL_CERT_FILE",
        Value.COMBINED_BUNDLE,
        ("curl", "what else uses OpenSSL", "Go", "httpx", "rustls-native-certs"),
    ),
    Row("REQUESTS_CA_BUNDLE", Value.COMBINED_BUNDLE, ("requests",)),
    Row("CURL_CA_BUNDLE", Value.COMBINED_BUNDLE, ("curl", "requests")),
    Row("PIP_CERT", Value.COMBINED_BUNDLE, ("pip",)),
    Row("GIT_SSL_CAINFO", Value.COMBINED_BUNDLE, ("git",)),
    Row("AWS_CA_BUNDLE", Value.COMBINED_BUNDLE, ("AWS CLI", "boto3")),
    Row("CARGO_HTTP_CAINFO", Value.COMBINED_BUNDLE, ("cargo",)),
    Row("npm_config_cafile", Value.COMBINED_BUNDLE, ("npm",)),
    # Node adds this file to its built-in roots, so it gets our CA alone
    Row("NODE_EXTRA_CA_CERTS", Value.PALYRA_CA, ("Node.js",)),
    Row("NODE_USE_ENV_PROXY", Value.YES, ("Node.js from 22.21 and 24 on",)),
)

DROPPED_PROXY_NAMES: Final = frozenset(
    {
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
        "ftp_proxy",
        "rsync_proxy",
        "socks_proxy",
        "socks5_proxy",
        "ws_proxy",
        "wss_proxy",
        "pip_proxy",
        "cargo_http_proxy",
        "npm_config_proxy",
        "npm_config_http_proxy",
        "npm_config_https_proxy",
        "npm_config_noproxy",
    }
)
"""Inherited names that are dropped, compared in lower case."""

_OWN_PREFIX: Final = "palyra_"
_TABLE_NAMES: Final = frozenset(row.name.lower() for row in TABLE)


@dataclass(frozen=True, slots=True)
class EgressAccess:
    """How one lease reaches the network. Addresses are `host:port`, IPv6 in brackets; where there
    is a `socks_address`, the variables that stand for every protocol name it. Without a lease the
    URLs carry no credential: for workers whom the proxy knows by another channel."""

    proxy_address: str
    lease_id: str
    egress_secret: str = field(repr=False)
    combined_bundle: Path
    palyra_ca: Path
    socks_address: str = ""

    @property
    def proxy_url(self) -> str:
        """The proxy's URL with this lease's credential: a secret."""
        return self._url("http", self.proxy_address)

    @property
    def any_proxy_url(self) -> str:
        """The URL for whatever is not HTTP: a secret. With `socks5h` the proxy resolves names."""
        return self._url("socks5h", self.socks_address) if self.socks_address else self.proxy_url

    def _url(self, scheme: str, address: str) -> str:
        if not self.lease_id:
            return f"{scheme}://{address}"
        secret = quote(self.egress_secret, safe="")
        return f"{scheme}://{quote(self.lease_id, safe='')}:{secret}@{address}"


def egress_environment(access: EgressAccess) -> dict[str, str]:
    """The table's variables for one lease."""
    return {row.name: _value(row.value, access) for row in TABLE}


def child_environment(
    inherited: Mapping[str, str],
    access: EgressAccess,
    own: Mapping[str, str] | None = None,
    kept_names: Collection[str] = frozenset(),
) -> dict[str, str]:
    """What the worker's program gets: inherited, less what is dropped, plus the table and `own`.

    `kept_names` are passed on although they may make the program run other code; proxy and CA
    variables and our own are dropped in any case.
    """
    kept = {
        name: value
        for name, value in inherited.items()
        if not _is_dropped(name) and reaches_program(name, kept_names)
    }
    return {**kept, **egress_environment(access), **(own or {})}


def _is_dropped(name: str) -> bool:
    lower = name.lower()
    return lower in DROPPED_PROXY_NAMES or lower in _TABLE_NAMES or lower.startswith(_OWN_PREFIX)


def _value(value: Value, access: EgressAccess) -> str:
    match value:
        case Value.PROXY_URL:
            return access.proxy_url
        case Value.ANY_PROXY_URL:
            return access.any_proxy_url
        case Value.NOTHING:
            return ""
        case Value.COMBINED_BUNDLE:
            return str(access.combined_bundle)
        case Value.PALYRA_CA:
            return str(access.palyra_ca)
        case Value.YES:
            return "1"
        case _:
            assert_never(value)
