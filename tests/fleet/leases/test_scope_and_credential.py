"""Workspace scopes, hostile ones by the row; egress secrets that do not show themselves."""

import re

import pytest

from palyra_fleet.leases.credential import EgressSecret, secret_matches, secret_sha256
from palyra_fleet.leases.workspace import WorkerWorkspaceScope


@pytest.mark.parametrize(
    ("root", "paths"),
    [
        ("/job", ("/job",)),
        ("/job/run", ("/job/run/a", "/job/run/b/c")),
        ("/job/..run", ("/job/..run/...",)),  # dots that are names
        ("/job", ("/job/a b",)),
    ],
)
def test_a_normal_scope_inside_its_root_is_taken(root: str, paths: tuple[str, ...]) -> None:
    assert WorkerWorkspaceScope(root, paths).problem() is None


@pytest.mark.parametrize(
    ("root", "paths"),
    [
        ("", ("/job",)),
        ("/", ("/job",)),  # everything is not a workspace
        ("//", ("//",)),
        ("//job", ("//job/a",)),  # POSIX leaves the meaning of two slashes open
        ("work", ("work/a",)),  # relative
        ("/job/", ("/job/a",)),
        ("/job/./run", ("/job/run",)),
        ("/job/../etc", ("/job/../etc/a",)),
        ("/job", ()),  # an empty list allows nothing
        ("/job", ("/jobshop",)),  # a prefix of the name is not a parent
        ("/job", ("/etc",)),
        ("/job", ("/job/../etc",)),
        ("/job", ("/job//a",)),
        ("/job", ("/job/a/",)),
        ("/job", ("work/a",)),
        ("/job", ("/job/a\x00b",)),
        ("/job", ("/job/a\nb",)),
        ("/job", ("/job/a\x1fb",)),
        ("/job", ("/job/a\x7fb",)),
        ("/job", ("/job/a\\..\\b",)),
        ("/job", ("/job/a", "/etc/passwd")),  # one bad path spoils the scope
    ],
)
def test_a_scope_that_is_not_plainly_inside_is_refused(root: str, paths: tuple[str, ...]) -> None:
    assert WorkerWorkspaceScope(root, paths).problem() is not None


@pytest.mark.parametrize(("root", "accepted"), [("/srv/a", True), ("/srv", True), ("/srvx", False)])
def test_a_scope_stays_inside_the_fleets_root(root: str, accepted: bool) -> None:
    scope = WorkerWorkspaceScope(root, (root,))
    assert (scope.problem("/srv") is None) is accepted


def test_a_secret_is_43_characters_and_never_the_same() -> None:
    texts = {EgressSecret.mint().reveal() for _ in range(100)}
    assert len(texts) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", text) for text in texts)


def test_a_secret_matches_its_digest_only() -> None:
    secret = EgressSecret.mint()
    assert secret_matches(secret.reveal(), secret.sha256)
    assert not secret_matches(secret.reveal() + "x", secret.sha256)
    assert not secret_matches("", secret_sha256("x"))


def test_a_secret_stays_out_of_repr_and_formatting() -> None:
    secret = EgressSecret.mint()
    shown = f"{secret} {secret!r} {[secret]}"
    assert secret.reveal() not in shown
