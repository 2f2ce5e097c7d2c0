"""Mirror of credentials/secret_files.py: real files, swapped links, and what is refused."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palyra_egress.credentials.held import SecretUnusable
from palyra_egress.credentials.secret_files import SecretDirectory, read_secret_file

NAMES = frozenset({"token"})


def put(path: Path, content: str | bytes, mode: int = 0o640) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".draft")
    draft.write_bytes(content if isinstance(content, bytes) else content.encode())
    draft.chmod(mode)
    draft.replace(path)


def read(directory: SecretDirectory) -> str | None:
    """The value, or the problem in brackets."""
    found = directory.read(NAMES, None)
    if "token" in found.held:
        return found.held["token"].value.reveal()
    return f"[{found.problems['token']}]"


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=8, max_size=300))
def test_what_is_written_is_read_less_one_line_end(
    tmp_path_factory: pytest.TempPathFactory, value: str
) -> None:
    path = tmp_path_factory.mktemp("secrets") / "token"
    for end in ("", "\n", "\r\n"):
        put(path, value + end)
        assert read_secret_file(path).reveal() == value


def test_a_changed_file_is_read_again_and_a_vanished_one_is_gone(tmp_path: Path) -> None:
    directory = SecretDirectory(tmp_path)
    put(tmp_path / "token", "first-secret")
    assert read(directory) == read(directory) == "first-secret"
    put(tmp_path / "token", "other-secret")
    assert read(directory) == "other-secret"
    (tmp_path / "token").write_text("third-secret")  # in place, by something careless
    assert read(directory) == "third-secret"
    (tmp_path / "token").unlink()
    assert read(directory) == f"[{tmp_path}/token: cannot be read: No such file or directory]"
    put(tmp_path / "token", "fourth-secret")
    assert read(directory) == "fourth-secret"


def test_a_secret_is_rotated_as_kubernetes_does_it(tmp_path: Path) -> None:
    """`token` leads to `..data/token`, and `..data` is swapped from one folder to the next."""
    put(tmp_path / "..first" / "token", "first-secret")
    put(tmp_path / "..second" / "token", "other-secret")
    (tmp_path / "..data").symlink_to("..first")
    (tmp_path / "token").symlink_to("..data/token")
    directory = SecretDirectory(tmp_path)
    assert read(directory) == "first-secret"
    (tmp_path / "..data_tmp").symlink_to("..second")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert read(directory) == "other-secret"


def test_the_directory_may_itself_be_a_link_that_is_swapped(tmp_path: Path) -> None:
    put(tmp_path / "one" / "token", "first-secret")
    put(tmp_path / "two" / "token", "other-secret")
    (tmp_path / "current").symlink_to("one")
    directory = SecretDirectory(tmp_path / "current")
    assert read(directory) == "first-secret"
    (tmp_path / "current").unlink()
    (tmp_path / "current").symlink_to("two")
    assert read(directory) == "other-secret"


@pytest.mark.parametrize("target", ["../outside", "/etc/hostname", "inner/../../outside"])
def test_a_link_that_leads_out_of_the_directory_is_refused(tmp_path: Path, target: str) -> None:
    put(tmp_path / "outside", "outside-SECRET")
    (tmp_path / "secrets" / "inner").mkdir(parents=True)
    (tmp_path / "secrets" / "token").symlink_to(target)
    said = read(SecretDirectory(tmp_path / "secrets"))
    assert said == f"[{tmp_path}/secrets/token: leads out of {tmp_path}/secrets]"


def test_links_that_go_round_are_refused(tmp_path: Path) -> None:
    (tmp_path / "token").symlink_to("other")
    (tmp_path / "other").symlink_to("token")
    said = read(SecretDirectory(tmp_path))
    assert said is not None and said.startswith(f"[{tmp_path}/token: cannot be read: ")


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o620, 0o642, 0o777])
def test_a_file_that_is_too_open_is_refused(tmp_path: Path, mode: int) -> None:
    put(tmp_path / "token", "open-SECRET", mode)
    said = read(SecretDirectory(tmp_path))
    assert said == (
        f"[{tmp_path}/token: mode {mode:o} is too open; expected 640 or stricter"
        " (in Kubernetes, `defaultMode: 0440`)]"
    )


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o440, 0o400])
def test_a_file_for_owner_and_group_is_read(tmp_path: Path, mode: int) -> None:
    put(tmp_path / "token", "closed-secret", mode)
    assert read(SecretDirectory(tmp_path)) == "closed-secret"


def test_a_mode_that_is_opened_later_takes_the_secret_away(tmp_path: Path) -> None:
    put(tmp_path / "token", "closed-secret")
    directory = SecretDirectory(tmp_path)
    assert read(directory) == "closed-secret"
    (tmp_path / "token").chmod(0o644)
    assert "mode 644 is too open" in (read(directory) or "")


def _directory(path: Path) -> None:
    path.mkdir()


def _pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


@pytest.mark.parametrize("make", [_directory, _pipe])
def test_what_is_no_file_is_refused_without_waiting(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "token")
    assert read(SecretDirectory(tmp_path)) == f"[{tmp_path}/token: is not a regular file]"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is shorter than 8 characters"),
        (b"\n", "it is shorter than 8 characters"),
        (b"x" * 16_385, "it is longer than 16384 characters"),
        (b"SECRET" * 1_000_000, "it is longer than 16384 characters"),
        (b"one-SECRET\ntwo-SECRET\n", "it holds a line end"),
        (b"one-SECRET\r\nX-Evil: 1", "it holds a line end"),
        (b"one-SECRET\x00", "a control character"),
        (b"\xff\xfeone-SECRET", "non-ASCII"),
        (b" one-SECRET", "a space at an end"),
    ],
)
def test_what_is_no_secret_is_refused_untold(tmp_path: Path, content: bytes, why: str) -> None:
    put(tmp_path / "token", content)
    said = read(SecretDirectory(tmp_path)) or ""
    assert said.startswith(f"[{tmp_path}/token: it ") and why in said
    assert "SECRET" not in said


def test_the_longest_secret_with_a_line_end_is_read(tmp_path: Path) -> None:
    put(tmp_path / "token", b"x" * 16_384 + b"\r\n")
    assert read(SecretDirectory(tmp_path)) == "x" * 16_384


def test_nothing_behind_an_error_holds_the_secret(tmp_path: Path) -> None:
    put(tmp_path / "token", b"\xffone-SECRET")
    with pytest.raises(SecretUnusable) as caught:
        read_secret_file(tmp_path / "token")
    error: BaseException | None = caught.value
    while error is not None:
        assert "SECRET" not in repr(error) + str(vars(error))
        error = error.__cause__ or error.__context__
