"""The first thing a newcomer runs: `palyra-egress demo` tells the whole story and ends with 0."""

import re
from pathlib import Path

from tests.e2e.place import EGRESS, Place
from tests.project.documents import blocks

README = Path(__file__).parent.parent.parent / "README.md"


async def test_the_demo_shows_an_allowed_request_a_refused_one_and_a_quarantine(
    place: Place,
) -> None:
    done = await place.programs.finished(EGRESS, "demo", environment=place.environment)
    assert done.code == 0, done.said
    for word in ("allowed", "refused: ", "quarantined by the fleet", "both chains hold"):
        assert any(word in line for line in done.out.splitlines()), done.out
    assert "egress.host_not_allowed" in done.out
    assert "egress.metadata_target" in done.out
    assert done.err == ""  # the story says it all
    assert not place.home.exists()  # it keeps to a temporary directory
    (shown,) = (block for block in blocks(README) if "both chains hold" in block.text)
    words = "[^\\n]*".join(map(re.escape, shown.text.split("…"))).replace("\n", "\n(?:.*\n)*? *")
    assert re.search(words.removesuffix(" *"), done.out), (
        f"the README shows another story: {done.out}"
    )
