"""Writes the pages of docs/reference/ that are made from the code. `make reference` runs it.

tests/project/test_reference.py makes the same pages and compares, so that none goes out of step.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from palyra_fleet.api.openapi import openapi_bytes

FOLDER: Final = Path(__file__).parent.parent / "docs" / "reference"
PAGES: Final[Mapping[str, Callable[[], bytes]]] = {
    "openapi.json": openapi_bytes,
}
"""What each page holds."""


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for name, make in PAGES.items():
        (FOLDER / name).write_bytes(make())


if __name__ == "__main__":
    main()
