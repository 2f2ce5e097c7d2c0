"""Places for isolated programs, of this account and of an ordinary one."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.ordinary_account import OrdinaryAccount, ordinary_account
from tests.fleet.worker.isolation.cell import Cell, cell_in


@pytest.fixture
def here(tmp_path: Path) -> Cell:
    return cell_in(OrdinaryAccount((), tmp_path, os.getuid()))


@pytest.fixture
def ordinary() -> Iterator[Cell]:
    """Of an account without any privilege: its own where the tests are not root's."""
    with ordinary_account() as account:
        yield cell_in(account)


@pytest.fixture(params=["here", "ordinary"])
def cell(request: pytest.FixtureRequest) -> Cell:
    if request.param == "ordinary" and os.getuid() != 0:
        pytest.skip("this account is an ordinary one, and was tried")
    found: Cell = request.getfixturevalue(request.param)
    return found
