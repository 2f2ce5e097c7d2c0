"""The pages of docs/reference/ say what the code says today."""

import pytest

from scripts.make_reference import FOLDER, PAGES


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_makes_today(name: str) -> None:
    assert (FOLDER / name).read_bytes() == PAGES[name](), "run `make reference`"


def test_every_page_is_made_from_the_code() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)
