"""The one table of environment variables, row by row, and what of the old environment goes."""

from dataclasses import replace
from pathlib import Path

import pytest

from palyra_fleet.worker.environment import (
    DROPPED_PROXY_NAMES,
    TABLE,
    EgressAccess,
    child_environment,
    egress_environment,
)

SECRET = "s3cr3t/with:odd@signs"
ACCESS = EgressAccess(
    proxy_address="127.0.0.1:7743",
    lease_id="01ARZ3NDEKTSV4RRFFQ69G5FAV",
    egress_secret=SECRET,
    combined_bundle=Path("/ca/bundle.pem"),
    palyra_ca=Path("/ca/palyra.pem"),
)
URL = "http://01ARZ3NDEKTSV4RRFFQ69G5FAV:s3cr3t%2Fwith%3Aodd%40signs@127.0.0.1:7743"
EXPECTED = {
    "HTTP_PROXY": URL,
    "http_proxy": URL,
    "HTTPS_PROXY": URL,
    "https_proxy": URL,
    "ALL_PROXY": URL,
    "all_proxy": URL,
    "NO_PROXY": "",
    "no_proxy": "",
    "SSL_CERT_FILE": "/ca/bundle.pem",
    "REQUESTS_CA_BUNDLE": "/ca/bundle.pem",
    "CURL_CA_BUNDLE": "/ca/bundle.pem",
    "PIP_CERT": "/ca/bundle.pem",
    "GIT_SSL_CAINFO": "/ca/bundle.pem",
    "AWS_CA_BUNDLE": "/ca/bundle.pem",
    "CARGO_HTTP_CAINFO": "/ca/bundle.pem",
    "npm_config_cafile": "/ca/bundle.pem",
    "NODE_EXTRA_CA_CERTS": "/ca/palyra.pem",
    "NODE_USE_ENV_PROXY": "1",
}


def test_the_table_is_the_one_of_the_specification() -> None:
    assert egress_environment(ACCESS) == EXPECTED
    assert len(TABLE) == len(EXPECTED)


def test_socks_is_named_only_where_it_is_spoken_and_only_for_every_protocol() -> None:
    made = egress_environment(replace(ACCESS, socks_address="127.0.0.1:1080"))
    socks = URL.replace("http://", "socks5h://").replace(":7743", ":1080")
    assert made == {**EXPECTED, "ALL_PROXY": socks, "all_proxy": socks}


@pytest.mark.parametrize("name", sorted(EXPECTED))
@pytest.mark.parametrize("spelling", [str, str.lower, str.upper, str.title])
def test_an_inherited_value_in_any_spelling_is_gone(name: str, spelling: type[str]) -> None:
    made = child_environment({spelling(name): "http://evil.example"}, ACCESS)
    assert made == EXPECTED


@pytest.mark.parametrize("name", sorted(DROPPED_PROXY_NAMES))
def test_every_proxy_setting_is_dropped_in_any_case(name: str) -> None:
    for spelling in (name, name.upper(), name.title()):
        assert child_environment({spelling: "http://evil.example"}, ACCESS) == EXPECTED


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "SSL_CERT_DIR", "PIP_FIND_LINKS", "GOPROXY", "MY_PROXY_NAME"]
)
def test_everything_else_is_left_alone(name: str) -> None:
    assert child_environment({name: "kept"}, ACCESS) == {name: "kept", **EXPECTED}


def test_the_operators_own_settings_do_not_reach_the_program() -> None:
    inherited = {"PALYRA_FLEET_TOKEN_FILE": "/t", "PALYRA_HOME": "/h", "PALYRA_LEASE_ID": "old"}
    made = child_environment(inherited, ACCESS, {"PALYRA_LEASE_ID": "new"})
    assert made == {**EXPECTED, "PALYRA_LEASE_ID": "new"}


def test_what_was_inherited_is_not_changed() -> None:
    inherited = {"http_proxy": "x", "PATH": "/bin"}
    child_environment(inherited, ACCESS)
    assert inherited == {"http_proxy": "x", "PATH": "/bin"}


def test_the_secret_is_never_shown() -> None:
    assert SECRET not in repr(ACCESS)


RUNNERS = [
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "DYLD_INSERT_LIBRARIES", "GLIBC_TUNABLES"),
    *("NODE_OPTIONS", "NODE_PATH", "npm_config_node_options"),
    *("PYTHONPATH", "PYTHONSTARTUP", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONBREAKPOINT"),
    *("BASH_ENV", "ENV", "SHELLOPTS", "PS4", "PROMPT_COMMAND", "BASH_FUNC_ls%%"),
    *("PERL5OPT", "RUBYOPT", "JAVA_TOOL_OPTIONS", "_JAVA_OPTIONS", "LUA_INIT", "PHPRC"),
    *("GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_EXEC_PATH", "GIT_PROXY_COMMAND"),
    *("OPENSSL_CONF", "GCONV_PATH", "RUSTC_WRAPPER", "LESSOPEN", "SSLKEYLOGFILE", "PAGER"),
]


@pytest.mark.parametrize("name", RUNNERS)
def test_what_makes_a_program_run_other_code_is_dropped_unless_it_is_named(name: str) -> None:
    assert child_environment({name: "x", name.lower(): "x"}, ACCESS) == EXPECTED
    kept = child_environment({name: "x"}, ACCESS, kept_names={name})
    assert kept == {name: "x", **EXPECTED}
    assert child_environment({name: "x"}, ACCESS, kept_names={name + "X"}) == EXPECTED


@pytest.mark.parametrize("name", ["no_proxy", "SSL_CERT_FILE", "PALYRA_HOME", "Https_Proxy"])
def test_no_name_brings_back_what_would_lead_around_the_proxy(name: str) -> None:
    assert child_environment({name: "x"}, ACCESS, kept_names={name}) == EXPECTED


@pytest.mark.parametrize("name", ["PATH", "HOME", "LANG", "TERM", "USER", "TZ", "LDFLAGS", "CC"])
def test_what_says_only_where_and_who_is_kept(name: str) -> None:
    assert name in child_environment({name: "x"}, ACCESS)
