"""The change of a root: in a running proxy, and when somebody is killed half-way."""

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from palyra_egress.clock import now_utc
from palyra_egress.proxy.tls.interception import InterceptionAuthority
from palyra_egress.proxy.tls.root_files import AuthorityError, RootFiles, Roots
from tests.egress.proxy.lanes import Chaos, chaos, inner_head
from tests.fakes.process_limits import without_descriptors
from tests.fakes.proxy_harness import read_reply


def files_in(directory: Path) -> RootFiles:
    files = RootFiles.make(directory / "ca")
    files.load_or_create(now_utc())
    return files


async def followed(world: Chaos) -> None:
    """The running proxy has read the roots again."""
    authority = world.harness.proxy.enforcement.authority
    roots = authority.read_again()
    if roots is not None:
        authority.use(roots)


async def handshake(world: Chaos, roots: Path) -> bool:
    """Whether a worker that trusts `roots` accepts what the proxy shows it."""
    try:
        reply, _, writer = await world.harness.tunnel(
            f"api.example:{world.secure.port}", roots=roots
        )
    except ssl.SSLError:
        return False
    assert reply is not None and reply.status == 200
    writer.close()
    return True


async def test_workers_old_and_new_are_served_through_a_change_of_root(tmp_path: Path):
    async with chaos(tmp_path) as world:
        authority = world.harness.proxy.enforcement.authority
        files = RootFiles(authority.root_path.parent)
        old, both = tmp_path / "old.pem", tmp_path / "both.pem"
        old.write_bytes(authority.root_path.read_bytes())
        authority_name = f"api.example:{world.secure.port}"
        _, reader, writer = await world.harness.tunnel(authority_name, roots=old)

        files.prepare(now_utc())
        await followed(world)
        both.write_bytes(authority.root_path.read_bytes())
        assert both.read_bytes().count(b"BEGIN CERTIFICATE") == 2
        assert both.read_bytes() in authority.bundle_path.read_bytes()
        assert await handshake(world, old) and await handshake(world, both)

        files.activate()
        await followed(world)
        assert not await handshake(world, old)
        assert await handshake(world, both)

        files.retire()
        await followed(world)
        new = authority.root_path
        assert new.read_bytes().count(b"BEGIN CERTIFICATE") == 1
        assert await handshake(world, new)

        writer.write(inner_head(authority_name, "GET"))  # open since before the change
        reply = await read_reply(reader)
        assert reply is not None and reply.status == 200


async def test_the_running_proxy_follows_by_itself(tmp_path: Path):
    async with chaos(tmp_path) as world:
        authority = world.harness.proxy.enforcement.authority
        files = RootFiles(authority.root_path.parent)
        files.prepare(now_utc())
        signing = files.activate().signing.certificate
        taken = asyncio.Event()
        use = authority.use
        authority.use = lambda roots: (use(roots), taken.set())[0]
        async with asyncio.timeout(60):
            await taken.wait()
        assert authority._roots.signing.certificate == signing


async def test_roots_that_cannot_be_read_change_nothing_and_are_told(tmp_path: Path):
    async with chaos(tmp_path) as world:
        authority = world.harness.proxy.enforcement.authority
        old = tmp_path / "old.pem"
        old.write_bytes(authority.root_path.read_bytes())
        (authority.root_path.parent / "root.pem").write_text("damaged")
        await followed(world)
        assert await handshake(world, old)
        assert "damaged" in world.harness.proxy.enforcement.problems()["ca"]


KILLED_AFTER = ("the old root is kept", "the key has moved")


@pytest.mark.parametrize("moment", KILLED_AFTER)
def test_a_change_that_was_killed_half_way_is_finished_by_the_next_reader(
    tmp_path: Path, moment: str
):
    files = files_in(tmp_path)
    directory = files.directory
    old = files.load().signing.certificate
    new = files.prepare(now_utc()).coming
    (directory / "old-root.pem").write_bytes((directory / "root.pem").read_bytes())
    if moment == "the key has moved":
        (directory / "next-root-key.pem").rename(directory / "root-key.pem")
    roots = files.load()
    assert (roots.signing.certificate, roots.old, roots.coming) == (new, old, None)


def test_a_next_root_without_its_key_does_not_take_over(tmp_path: Path):
    files = files_in(tmp_path)
    files.prepare(now_utc())
    (files.directory / "next-root-key.pem").unlink()
    before = files.load().signing.certificate
    with pytest.raises(AuthorityError, match=r"next-root-key.pem: is missing"):
        files.activate()
    assert files.load().signing.certificate == before


def test_two_roots_never_have_one_name(tmp_path: Path):
    files = files_in(tmp_path)
    roots = files.prepare(now_utc())
    assert roots.coming is not None
    assert roots.coming.subject != roots.signing.certificate.subject


def test_roots_that_nobody_had_a_descriptor_for_are_read_at_the_next_look(tmp_path: Path):
    files = files_in(tmp_path)
    authority = InterceptionAuthority.load_or_create(files.directory, now_utc())
    files.prepare(now_utc())
    with without_descriptors():
        assert authority.read_again() is None
        assert "Too many open files" in (authority.problem(now_utc()) or "")
    roots = authority.read_again()
    assert roots is not None and roots.coming is not None
    assert authority.problem(now_utc()) is None and authority.read_again() is None


class _Overtaken(RootFiles):
    """Somebody changes the roots right after they were read."""

    def load(self) -> Roots:
        roots = super().load()
        RootFiles.make(self.directory).prepare(now_utc())
        return roots


def test_a_change_right_after_a_look_is_seen_by_the_next_one(tmp_path: Path):
    files = files_in(tmp_path)
    authority = InterceptionAuthority(_Overtaken.make(files.directory), files.load())
    os.utime(files.directory / "root.pem", (1, 1))
    roots = authority.read_again()
    assert roots is not None and roots.coming is None
    assert files.load().coming is not None
    authority._files = files
    roots = authority.read_again()
    assert roots is not None and roots.coming is not None
    assert authority.read_again() is None


@pytest.mark.parametrize("reads", ["load_or_create", "load"])
def test_a_change_while_an_authority_starts_is_known_at_its_first_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reads: str
):
    files, read = files_in(tmp_path), getattr(RootFiles, reads)

    def read_and_be_overtaken(self: RootFiles, *when: object) -> Roots:
        roots: Roots = read(self, *when)
        monkeypatch.setattr(RootFiles, reads, read)
        files.prepare(now_utc())
        return roots

    monkeypatch.setattr(RootFiles, reads, read_and_be_overtaken)
    authority = InterceptionAuthority.load_or_create(files.directory, now_utc())
    assert (authority.read_again() or authority._roots).coming is not None
    assert files.load().coming is not None
    assert authority.read_again() is None


def test_a_root_that_others_may_write_is_not_trusted(tmp_path: Path):
    files = files_in(tmp_path)
    files.prepare(now_utc())
    (files.directory / "next-root.pem").chmod(0o666)
    with pytest.raises(AuthorityError, match=r"next-root\.pem: mode 666 lets others write to it"):
        files.load()
