"""A worker's program that runs others, each for itself: argument a JSON list of [name, words…];
prints a JSON object of name → exit code."""

import json
import subprocess
import sys


def main() -> None:
    codes = {}
    for name, *words in json.loads(sys.argv[1]):
        done = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        codes[name] = done.returncode
        sys.stderr.write(f"{name}: {done.stderr.decode(errors='replace')[-200:]}")
    sys.stdout.write(json.dumps(codes))


if __name__ == "__main__":
    main()
