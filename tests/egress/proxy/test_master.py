"""Our own Master: what its connections read as options, and that nothing can change it."""

import pytest
from mitmproxy.options import Options

from palyra_egress.proxy.master import (
    KEY_LOG_VARIABLES,
    LOCKED_OPTIONS,
    FrozenOptions,
    UnsafeEnvironment,
    check_environment,
    make_master,
)


async def test_the_options_of_a_connection_are_the_locked_ones_and_cannot_be_set():
    master = make_master()
    frozen = FrozenOptions(master.options)
    assert {name: getattr(frozen, name) for name in LOCKED_OPTIONS} == dict(LOCKED_OPTIONS)
    with pytest.raises(AttributeError, match="ssl_insecure is locked"):
        frozen.ssl_insecure = True
    await master.done()


async def test_changing_the_masters_options_later_changes_no_connection():
    master = make_master()
    frozen = FrozenOptions(master.options)
    master.options.update(ssl_insecure=True, connection_strategy="eager", rawtcp=True)
    assert (frozen.ssl_insecure, frozen.connection_strategy, frozen.rawtcp) == (
        False,
        "lazy",
        False,
    )
    await master.done()


async def test_every_locked_option_is_one_that_mitmproxy_has():
    known = make_master().options.keys()
    assert set(LOCKED_OPTIONS) <= set(known)


async def test_no_configuration_file_of_a_home_folder_is_read(tmp_path, monkeypatch):
    """mitmproxy's own command line would read it; our Master is none of its programs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".mitmproxy").mkdir()
    (tmp_path / ".mitmproxy" / "config.yaml").write_text("ssl_insecure: true\nrawtcp: true\n")
    master = make_master()
    assert (master.options.ssl_insecure, master.options.rawtcp) == (False, False)
    assert Options().ssl_insecure is False
    await master.done()


@pytest.mark.parametrize("name", KEY_LOG_VARIABLES)
def test_a_variable_that_would_log_tls_keys_stops_the_start(name, monkeypatch):
    monkeypatch.setenv(name, "keys.log")
    with pytest.raises(UnsafeEnvironment, match=name):
        check_environment()
