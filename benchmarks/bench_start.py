"""What it costs to start a program, as ratios within one run.

Processes are started one after the other, in turns: an empty Python (`-c pass`), and each of the
commands. A cell is the median over rounds of a command's CPU time (user and system, of the child)
against the empty Python of the same round; `empty/empty` is that one measured a second time, which
is the noise.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

FLEET = "from palyra_fleet.cli.main import main"
EGRESS = "from palyra_egress.cli.main import main"
POLICY = "policies/default-deny.yaml"
COMMANDS = {
    "empty/empty": "pass",
    "palyra-fleet --help": f"{FLEET}; main(['--help'])",
    "palyra-fleet worker list": f"{FLEET}; main(['worker', 'list'])",
    "palyra-egress --help": f"{EGRESS}; main(['--help'])",
    "palyra-egress policy check": f"{EGRESS}; main(['policy', 'check', '{POLICY}'])",
}


def cpu_s(code: str) -> float:
    """Of one process that runs this and ends."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    elsewhere = {**os.environ, "PALYRA_HOME": "/nonexistent"}
    subprocess.run([sys.executable, "-c", code], check=False, env=elsewhere, **quiet)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    os.chdir(Path(__file__).resolve().parents[1])
    for code in COMMANDS.values():  # compiled, and in the page cache
        cpu_s(code)
    ratios: dict[str, list[float]] = {name: [] for name in COMMANDS}
    empties = []
    for _ in range(rounds):
        empty = cpu_s("pass")
        empties.append(empty)
        for name, code in COMMANDS.items():
            ratios[name].append(cpu_s(code) / empty)
    print(f"empty Python: {statistics.median(empties) * 1000:.0f} ms of CPU; ratios to it:")
    for name, found in ratios.items():
        print(f"{name:28} {statistics.median(found):5.1f}")


if __name__ == "__main__":
    main()
