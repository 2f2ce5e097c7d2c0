"""A worker's program that runs others, each for itself: argument a JSON list of [name, words…];
prints a JSON object of name → exit code, NOT_RUN where a program cannot be executed."""

import json
import subprocess
import sys

NOT_RUN = 126


def main() -> None:
    codes = {}
    for name, *words in json.loads(sys.argv[1]):
        try:
            done = subprocess.run(words, capture_output=True, check=False, stdin=subprocess.DEVNULL)
        except OSError as error:
            codes[name], said = NOT_RUN, str(error)
        else:
            codes[name], said = done.returncode, done.stderr.decode(errors="replace")
        sys.stderr.write(f"{name}: {said[-200:]}\n")
    sys.stdout.write(json.dumps(codes))


if __name__ == "__main__":
    main()
