"""`palyra-egress ca`, as a person calls it."""

import json
import subprocess
from pathlib import Path

import pytest
from cryptography import x509

from palyra_egress.cli.main import main
from palyra_egress.cli.system_stores import STORES


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "egress"


def called(state: Path, *words: str) -> int:
    return main(["ca", *words, "--state-dir", str(state)])


def shown(state: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    capsys.readouterr()
    assert called(state, "show", "-o", "json") == 0
    return {row["state"]: row["sha256"] for row in json.loads(capsys.readouterr().out)}


def test_init_makes_a_root_once(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert called(state, "init") == 0
    first = shown(state, capsys)
    assert called(state, "init") == 0
    assert shown(state, capsys) == first
    assert (state / "ca" / "root-key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("verb", ["show", "bundle", "install", "rotate"])
def test_without_a_root_it_says_how_to_make_one(
    state: Path, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert called(state, verb) == 2
    assert "palyra-egress ca init" in capsys.readouterr().err


def test_a_change_of_root_has_three_steps_and_no_other_order(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(state, "init")
    before = shown(state, capsys)["signing"]
    for early in ("--activate", "--retire"):
        assert called(state, "rotate", early) == 2
    assert called(state, "rotate") == 0
    prepared = shown(state, capsys)
    assert prepared["signing"] == before and prepared.keys() == {"signing", "next"}
    assert called(state, "rotate") == 2
    assert called(state, "rotate", "--activate") == 0
    assert shown(state, capsys) == {"signing": prepared["next"], "old": before}
    for early in ((), ("--activate",)):
        assert called(state, "rotate", *early) == 2
    assert called(state, "rotate", "--retire") == 0
    assert shown(state, capsys) == {"signing": prepared["next"]}


def test_the_bundle_holds_every_trusted_root(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(state, "init")
    called(state, "rotate")
    capsys.readouterr()
    assert called(state, "bundle") == 0
    assert len(x509.load_pem_x509_certificates(capsys.readouterr().out.encode())) == 2
    assert called(state, "bundle", "--form", "combined") == 2
    assert "is older than the roots" in capsys.readouterr().err


def test_the_bundle_as_variables_is_read_by_a_shell(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spaced = state.parent / "it's here"
    called(spaced, "init")
    capsys.readouterr()
    assert called(spaced, "bundle", "--form", "env") == 0
    script = capsys.readouterr().out + 'echo "$SSL_CERT_FILE|$NODE_EXTRA_CA_CERTS"'
    said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    combined, ours = said.stdout.strip().split("|")
    assert Path(combined) == spaced / "ca" / "bundle.pem"
    assert len(x509.load_pem_x509_certificates(Path(ours).read_bytes())) == 1


@pytest.mark.parametrize("store", STORES, ids=lambda store: store.place)
def test_install_puts_the_roots_where_the_system_looks(
    state: Path, tmp_path: Path, store, capsys: pytest.CaptureFixture[str]
) -> None:
    called(state, "init")
    image = tmp_path / "image"
    (image / store.place).mkdir(parents=True)
    capsys.readouterr()
    assert called(state, "install", "--prefix", str(image), "--dry-run") == 0
    planned = capsys.readouterr().out
    assert list((image / store.place).iterdir()) == []
    assert f"in the image: run {' '.join(store.command)}" in planned
    assert called(state, "install", "--prefix", str(image)) == 0
    (written,) = (image / store.place).iterdir()
    assert str(written) in planned and written.suffix == ".crt"
    assert written.read_text() == (state / "ca" / "root.pem").read_text()


def test_install_says_how_where_the_store_is_not_known(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(state, "init")
    assert called(state, "install", "--prefix", str(tmp_path / "empty")) == 2
    assert "palyra-egress ca bundle" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["usr/local/share/ca-certificates", "usr/local"])
def test_an_image_whose_links_lead_out_of_it_gets_nothing_written_there(
    state: Path, tmp_path: Path, at: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever made the image is a stranger, and this may run as root."""
    called(state, "init")
    image, outside = tmp_path / "image", tmp_path / "outside"
    (outside / "share" / "ca-certificates").mkdir(parents=True)
    (image / at).parent.mkdir(parents=True)
    is_last = at.endswith("ca-certificates")
    (image / at).symlink_to(outside / "share" / "ca-certificates" if is_last else outside)
    assert called(state, "install", "--prefix", str(image)) == 2
    assert "a link leads out of" in capsys.readouterr().err
    assert [path for path in outside.rglob("*") if path.is_file()] == []


def test_a_link_in_the_place_of_a_root_is_replaced_and_not_followed(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(state, "init")
    image, victim = tmp_path / "image", tmp_path / "victim"
    victim.write_text("mine")
    store = image / "usr/local/share/ca-certificates"
    store.mkdir(parents=True)
    name = f"palyra-egress-{shown(state, capsys)['signing']:.12}.crt"
    for planted in (name, f".{name}.new"):
        (store / planted).symlink_to(victim)
    assert called(state, "install", "--prefix", str(image)) == 0
    assert victim.read_text() == "mine"
    (written,) = store.iterdir()
    assert not written.is_symlink()
    assert written.stat().st_mode & 0o777 == 0o644
    assert written.read_text() == (state / "ca" / "root.pem").read_text()


def test_a_link_in_the_place_of_what_workers_read_is_not_followed(
    state: Path, tmp_path: Path
) -> None:
    called(state, "init")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    for name in ("worker-roots.pem.new", "bundle.pem.new", "worker-roots.new", "bundle.new"):
        (state / "ca" / name).symlink_to(victim)
    (state / "ca" / "worker-roots.pem").unlink()
    assert called(state, "init") == 0
    assert victim.read_text() == "mine"
    assert (state / "ca" / "worker-roots.pem").stat().st_mode & 0o777 == 0o644


def test_a_key_that_is_a_link_is_not_read(
    state: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    called(state, "init")
    key = state / "ca" / "root-key.pem"
    moved = key.rename(tmp_path / "moved.pem")
    key.symlink_to(moved)
    assert called(state, "show") == 2
    assert "root-key.pem" in capsys.readouterr().err
