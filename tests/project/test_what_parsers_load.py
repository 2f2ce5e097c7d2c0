"""What a command line loads before it knows what was asked for: nothing that serves or speaks."""

import subprocess
import sys

import pytest

HEAVY = ("aiohttp", "grpc", "jinja2", "mitmproxy", "opentelemetry", "sqlite3")
ASKED = (("--help",), ("config", "--help"), ("serve", "--help"), ("no-such-command",))
_LOOK = """
import sys
from {program}.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print("loaded:", *sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("program", ["palyra_fleet", "palyra_egress"])
def test_to_say_what_there_is_nothing_heavy_is_loaded(program: str, asked: tuple[str, ...]) -> None:
    look = _LOOK.format(program=program)
    done = subprocess.run(
        [sys.executable, "-c", look, *asked], capture_output=True, text=True, check=True
    )
    (line,) = [one for one in done.stdout.splitlines() if one.startswith("loaded: ")]
    loaded = line.split()[1:]
    assert "argparse" in loaded
    assert [name for name in HEAVY if name in loaded] == []
