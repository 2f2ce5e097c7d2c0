"""The book of principals: what it remembers, what it refuses, and what a damaged file does."""

import json
import stat
from pathlib import Path

import pytest

from palyra_fleet.principals.book import (
    Principal,
    PrincipalBook,
    PrincipalFileError,
    PrincipalRefused,
    PrincipalUnknown,
    new_token,
    token_sha256,
)
from palyra_fleet.wire.principal_models import Role

FIRST = "the-token-in-the-file"


def opened(directory: Path) -> PrincipalBook:
    return PrincipalBook.open(directory / "principals.json", token_sha256(FIRST))


def somebody(name: str, token: str, expires: int | None = None) -> Principal:
    return Principal(name, frozenset({Role.VIEWER}), token_sha256(token), 1, expires)


def test_without_a_file_only_the_first_principal_is_known_and_is_an_admin(tmp_path: Path) -> None:
    book = opened(tmp_path)
    (first,) = book.all()
    assert (first.name, first.roles) == ("operator", {Role.ADMIN})
    assert book.by_token(FIRST, 0) == first
    assert book.by_token("another", 0) is None
    assert list(tmp_path.iterdir()) == []


def test_who_was_made_known_is_known_after_a_restart(tmp_path: Path) -> None:
    token = new_token()
    opened(tmp_path).create(somebody("vera", token))
    found = opened(tmp_path).by_token(token, 0)
    assert found == somebody("vera", token)
    file = tmp_path / "principals.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in file.read_text()


def test_who_was_revoked_stays_unknown_after_a_restart(tmp_path: Path) -> None:
    book = opened(tmp_path)
    book.create(somebody("vera", "token-v"))
    book.create(somebody("olaf", "token-o"))
    book.revoke("vera")
    for known in (book, opened(tmp_path)):
        assert known.by_token("token-v", 0) is None
        assert known.by_token("token-o", 0) is not None


def test_a_new_token_ends_the_one_before(tmp_path: Path) -> None:
    book = opened(tmp_path)
    book.create(somebody("vera", "old"))
    book.replace_token("vera", token_sha256("new"))
    for known in (book, opened(tmp_path)):
        assert known.by_token("old", 0) is None
        assert known.by_token("new", 0) == somebody("vera", "new")


def test_a_token_ends_when_it_was_said_to_end(tmp_path: Path) -> None:
    book = opened(tmp_path)
    book.create(somebody("vera", "token", expires=1000))
    assert book.by_token("token", 999) is not None
    assert book.by_token("token", 1000) is None


def test_nobody_is_made_known_twice_and_the_first_is_not_changed(tmp_path: Path) -> None:
    book = opened(tmp_path)
    book.create(somebody("vera", "token"))
    for name in ("vera", "operator"):
        with pytest.raises(PrincipalRefused):
            book.create(somebody(name, "other"))
    with pytest.raises(PrincipalRefused):
        book.create(somebody("olaf", "token"))
    for change in (book.revoke, lambda name: book.replace_token(name, token_sha256("x"))):
        with pytest.raises(PrincipalRefused):
            change("operator")
        with pytest.raises(PrincipalUnknown):
            change("nobody")
    assert book.by_token(FIRST, 0) is not None


def test_a_change_that_cannot_be_saved_changes_nothing(tmp_path: Path) -> None:
    book = opened(tmp_path / "there")
    book.create(somebody("vera", "token"))
    (tmp_path / "there").rename(tmp_path / "elsewhere")
    (tmp_path / "there").write_text("a file where the directory was")
    for change in (
        lambda: book.create(somebody("olaf", "other")),
        lambda: book.revoke("vera"),
        lambda: book.replace_token("vera", token_sha256("new")),
    ):
        with pytest.raises(OSError):
            change()
    assert book.by_token("token", 0) is not None
    assert book.by_token("other", 0) is None
    assert book.by_token("new", 0) is None


GOOD = {
    "name": "vera",
    "roles": ["viewer"],
    "token_sha256": "0" * 64,
    "created_at_unix_ms": 1,
}


def file_of(*principals: dict[str, object]) -> str:
    return json.dumps({"version": 1, "principals": principals})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"version":2,"principals":[]}',
        '{"version":1}',
        '{"version":1,"principals":[],"more":1}',
        file_of(GOOD | {"roles": []}),
        file_of(GOOD | {"roles": ["root"]}),
        file_of(GOOD | {"name": "Vera!"}),
        file_of(GOOD | {"name": "operator"}),
        file_of(GOOD, GOOD),
        file_of(GOOD, GOOD | {"name": "olaf"}),
    ],
)
def test_a_file_that_does_not_say_what_we_write_stops_the_start(
    tmp_path: Path, content: str
) -> None:
    file = tmp_path / "principals.json"
    file.write_text(content)
    file.chmod(0o600)
    with pytest.raises(PrincipalFileError, match=r"principals\.json"):
        opened(tmp_path)


def test_a_file_that_others_may_read_stops_the_start(tmp_path: Path) -> None:
    opened(tmp_path).create(somebody("vera", "token"))
    (tmp_path / "principals.json").chmod(0o644)
    with pytest.raises(PrincipalFileError, match="too open"):
        opened(tmp_path)


def test_neither_book_nor_principal_shows_a_digest(tmp_path: Path) -> None:
    book = opened(tmp_path)
    assert token_sha256(FIRST) not in repr(book) + repr(book.all())
