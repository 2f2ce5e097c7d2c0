"""A worker's program that does what it is told, line by line, with Python's own HTTP client.

It knows nothing of Palyra: it honours the usual variables like any program. First line out: the
proxy's URL as it found it. Then, for each JSON line in: `{"get": URL}` answers the status and what
the client says; `{"exit": CODE}` ends it. The end of the input ends it too.
"""

import json
import os
import sys
import urllib.error
import urllib.request

WITHIN_S = 60.0


def _say(**seen: object) -> None:
    sys.stdout.write(json.dumps(seen) + "\n")
    sys.stdout.flush()


def _get(url: str) -> None:
    try:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:
            _say(status=answer.status, text=answer.read().decode())
    except urllib.error.HTTPError as error:
        _say(status=error.code, text=f"HTTP {error.code} {error.reason}")
    except OSError as error:
        _say(status=None, text=f"{type(error).__name__}: {error}")


def main() -> int:
    _say(proxy=os.environ["HTTPS_PROXY"], pid=os.getpid())
    for line in sys.stdin:
        command = json.loads(line)
        if "exit" in command:
            return int(command["exit"])
        _get(command["get"])
    return 0


if __name__ == "__main__":
    sys.exit(main())
