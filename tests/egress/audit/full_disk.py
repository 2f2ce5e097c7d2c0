"""Run as a program: writes an audit log in a process whose files may not grow any more, then may.

Prints what happened as JSON. The limit is the kernel's (RLIMIT_FSIZE), so it is real: a line is
written in part first, and then not at all.
"""

import json
import resource
import signal
import sys
from pathlib import Path

from palyra_egress.audit.log import AuditLog, AuditUnavailable
from palyra_fleet.wire.keys import SigningKey


def main(path: Path) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    log = AuditLog.open(path, SigningKey.generate(), 0)
    log.append({"n": 1})
    limit = log.size_bytes + 10
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    refused = [_refusal(log, 2), _refusal(log, 3)]
    size_when_full, problem, broken = path.stat().st_size, log.problem, log.broken
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.append({"n": 4})
    print(
        json.dumps(
            {
                "refused": refused,
                "whole_lines_only": size_when_full == limit - 10,
                "problem_when_full": problem,
                "broken_when_full": broken,
                "problem_after": log.problem,
            }
        )
    )
    log.close()


def _refusal(log: AuditLog, number: int) -> bool:
    try:
        log.append({"n": number})
    except AuditUnavailable:
        return True
    return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
