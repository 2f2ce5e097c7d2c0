"""The program that the demo runs as a worker: an ordinary client, until it misbehaves.

It knows nothing of Palyra. It uses curl when there is one, and Python's own client, and reports
what it saw as JSON lines on stdout: what each request gave, and after the violation how long its
open connection lived on. Arguments: the upstream's base URL, and a URL the policy does not allow.
"""

import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Final

METADATA_URL: Final = "http://169.254.169.254/latest/meta-data/"
WITHIN_S: Final = 10.0


def _report(step: str, **seen: str | int | float | bool | None) -> None:
    sys.stdout.write(json.dumps({"step": step, **seen}) + "\n")
    sys.stdout.flush()


def _fetch(url: str) -> tuple[int | None, str]:
    """The status and what Python's client says."""
    try:
        with urllib.request.urlopen(url, timeout=WITHIN_S) as answer:  # noqa: S310 (http only)
            return answer.status, answer.reason
    except urllib.error.HTTPError as error:
        return error.code, f"HTTPError: HTTP {error.code} {error.reason}"
    except OSError as error:
        return None, f"{type(error).__name__}: {error}"


def _allowed(url: str) -> None:
    curl = shutil.which("curl")
    if curl is None:
        status, text = _fetch(url)
        _report("allowed", client="python", url=url, status=status, text=text)
        return
    done = subprocess.run(  # noqa: S603 (fixed arguments)
        [curl, "-sS", "-o", "/dev/null", "-w", "%{http_code}", url],
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    status = int(done.stdout or 0)
    _report("allowed", client="curl", url=url, status=status, text=done.stderr.strip())


class _OpenConnection(threading.Thread):
    """Reads a stream until it is cut, and notes when."""

    def __init__(self, url: str) -> None:
        super().__init__(daemon=True)
        self._url = url
        self.flowing = threading.Event()
        self.ended_at: float | None = None

    def run(self) -> None:
        try:
            with urllib.request.urlopen(self._url, timeout=WITHIN_S) as answer:  # noqa: S310
                while answer.readline():
                    self.flowing.set()
        except (OSError, http.client.HTTPException):
            pass
        self.ended_at = time.monotonic()


def main() -> int:
    base, refused_url = sys.argv[1:3]
    signal.signal(signal.SIGTERM, lambda *_: None)  # a stubborn program; the runtime kills it later
    _allowed(f"{base}/simple/")
    status, text = _fetch(refused_url)
    _report("refused", client="python", url=refused_url, status=status, text=text)
    stream = _OpenConnection(f"{base}/stream")
    stream.start()
    if not stream.flowing.wait(WITHIN_S):
        _report("stream", text="the stream did not start")
        return 1
    started = time.monotonic()
    status, text = _fetch(METADATA_URL)
    _report("violation", client="python", url=METADATA_URL, status=status, text=text)
    stream.join(WITHIN_S)
    ended_at = stream.ended_at
    cut_after_ms = None if ended_at is None else round(max(0.0, ended_at - started) * 1000, 1)
    _report("cut", after_ms=cut_after_ms)
    status, text = _fetch(f"{base}/simple/")
    _report("afterwards", client="python", url=f"{base}/simple/", status=status, text=text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
