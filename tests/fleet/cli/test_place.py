"""Where the token goes: to this machine only, unless the operator says otherwise."""

from pathlib import Path

import pytest

from palyra_fleet.cli.place import HOME_VARIABLE, URL_VARIABLE, find_url
from palyra_fleet.cli.trouble import Trouble
from palyra_fleet.serve import write_admin_url


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8931", "http://[::1]:8931", "http://127.1.2.3:65535"]
)
def test_the_file_names_a_listener_of_this_machine(tmp_path: Path, url: str) -> None:
    write_admin_url(tmp_path / "admin.url", url)
    assert find_url(None, {HOME_VARIABLE: str(tmp_path)}) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://attacker.example:80",
        "http://127.0.0.1.attacker.example:80",
        "http://127.0.0.1:80@attacker.example",
        "http://attacker.example/#http://127.0.0.1:80",
        "http://127.0.0.1:80/path",
        "https://127.0.0.1:80",
        "http://192.0.2.1:80",
        "http://[::ffff:192.0.2.1]:80",
        "http://127.0.0.1:80\nhttp://attacker.example",
    ],
)
def test_a_file_that_names_anything_else_gets_no_token(tmp_path: Path, url: str) -> None:
    write_admin_url(tmp_path / "admin.url", url)
    with pytest.raises(Trouble, match="not sent"):
        find_url(None, {HOME_VARIABLE: str(tmp_path)})
    assert find_url(url, {HOME_VARIABLE: str(tmp_path)}) == url
    assert find_url(None, {HOME_VARIABLE: str(tmp_path), URL_VARIABLE: url}) == url
