"""`palyra-egress`: the proxy's command line.

Data goes to stdout, everything else to stderr. Errors are three lines (what, why, what to do); exit
codes: 0 done, 1 the answer is no, 2 yours to fix, 69 server unreachable, 70 our fault; `run` passes
the program's own code through.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from palyra_egress.cli.parser import make_parser
from palyra_egress.errors import OperatorMustAct
from palyra_egress.policy.errors import PolicyFileError
from palyra_fleet.cli.configuration import EGRESS, with_settings
from palyra_fleet.cli.log_arguments import begin_log
from palyra_fleet.cli.output import say
from palyra_fleet.cli.trouble import ExitCode, Trouble


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        parser = make_parser()
        parsed = parser.parse_args(with_settings(EGRESS, parser, given, os.environ))
        begin_log("palyra-egress", parsed)
        return int(parsed.run(parsed))
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:
        if os.environ.get("PALYRA_DEBUG"):
            raise
        trouble = _trouble(error)
        say(f"palyra-egress: {trouble}", logging.ERROR)
        return int(trouble.exit_code)


def _trouble(error: Exception) -> Trouble:
    if isinstance(error, Trouble):
        return error
    words = importlib.import_module("palyra_fleet.cli.trouble_words")
    match error:
        case PolicyFileError():
            return Trouble(
                ExitCode.YOURS,
                "the policy is not good",
                str(error),
                "correct the lines named above; `palyra-egress policy check FILE` shows them",
            )
        case OperatorMustAct() | OSError() if not isinstance(error, words.EXPECTED):
            return Trouble(
                ExitCode.YOURS, "the setup is not usable", str(error), "correct it and try again"
            )
        case _:
            told: Trouble = words.trouble_of(error)
            return told


if __name__ == "__main__":
    sys.exit(main())
