"""Coverage-guided fuzzing of one target, until a crash or a limit.

`python -m tests.fuzz.fuzz_policy TARGET [corpus folder] [libFuzzer options]`, for example
`-runs=100000` or `-max_total_time=60`; needs atheris. The seeds of the target are always part of
the corpus. A crash is written to a file whose name libFuzzer prints; give it as the only argument
after the target to see it again.
"""

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any


def main(arguments: list[str]) -> None:
    """Fuzz the target that the first argument names."""
    atheris: Any = importlib.import_module("atheris")
    with atheris.instrument_imports(include=["palyra_egress", "palyra_fleet"]):
        targets: Any = importlib.import_module("tests.fuzz.targets")
    if len(arguments) < 2 or arguments[1] not in targets.TARGETS:
        sys.exit(f"usage: fuzz_policy TARGET [options]; one of {', '.join(targets.TARGETS)}")
    name, options = arguments[1], arguments[2:]
    with tempfile.TemporaryDirectory() as folder:
        for number, seed in enumerate(targets.SEEDS[name]):
            Path(folder, f"seed-{number}").write_bytes(seed)
        seeds = [] if any(Path(option).is_file() for option in options) else [folder]
        atheris.Setup([arguments[0], *options, *seeds], targets.TARGETS[name])
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
