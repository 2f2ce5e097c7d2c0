"""Mirror of proxy/tls/upstream_bundle.py: what servers are verified against, and how it is made."""

import errno
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from palyra_egress.demo.upstream_ca import UpstreamCa
from palyra_egress.errors import OperatorMustAct
from palyra_egress.proxy.tls.tls_material import read_bundle
from palyra_egress.proxy.tls.upstream_bundle import read_extra_roots, write_bundle
from tests.fakes.client_certificates import key_pem


@pytest.fixture
def ca(tmp_path: Path) -> UpstreamCa:
    return UpstreamCa.create(tmp_path / "ca")


def test_a_link_in_the_bundles_place_is_replaced_and_not_followed(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / "upstream-roots.pem").symlink_to(victim)
    bundle = write_bundle(tmp_path, ca.ca_file.read_bytes())
    assert victim.read_text() == "kept"
    assert not bundle.is_symlink() and stat.S_IMODE(bundle.stat().st_mode) == 0o600
    assert bundle.read_bytes().endswith(ca.ca_file.read_bytes())
    assert len(read_bundle(bundle)) > 100


def test_whoever_reads_the_bundle_reads_a_whole_one(
    ca: UpstreamCa, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = write_bundle(tmp_path, b"")
    before, inode = bundle.read_bytes(), bundle.stat().st_ino

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_bundle(tmp_path, ca.ca_file.read_bytes())
    assert (bundle.read_bytes(), bundle.stat().st_ino) == (before, inode)


def test_of_the_extra_roots_the_certificates_are_taken_and_nothing_else(
    ca: UpstreamCa, tmp_path: Path
) -> None:
    """A key that lies in the same file would be in every worker's bundle."""
    file = tmp_path / "both.pem"
    key = key_pem(ec.generate_private_key(ec.SECP256R1()))
    file.write_bytes(b"# of the house\n" + key + ca.ca_file.read_bytes())
    assert read_extra_roots(file) == ca.ca_file.read_bytes()
    assert read_extra_roots(None) == b""


def test_extra_roots_that_others_may_write_are_refused(ca: UpstreamCa, tmp_path: Path) -> None:
    ca.ca_file.chmod(0o664)
    with pytest.raises(OperatorMustAct) as refused:
        read_extra_roots(ca.ca_file)
    assert str(refused.value).startswith(f"--extra-roots: {ca.ca_file}: mode 664 lets others write")
    empty = tmp_path / "empty.pem"
    empty.write_bytes(b"")
    with pytest.raises(OperatorMustAct, match="holds no PEM certificates"):
        read_extra_roots(empty)
    with pytest.raises(OperatorMustAct, match="cannot be read"):
        read_extra_roots(tmp_path / "missing.pem")
