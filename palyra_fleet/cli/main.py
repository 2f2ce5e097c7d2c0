"""`palyra-fleet`: the fleet's command line.

Data goes to stdout, everything else to stderr. Errors are three lines (what, why, what to do);
exit codes are those of `trouble.ExitCode`, and `worker run` passes the program's own through.
"""

import importlib
import logging
import os
import signal
import sys
from collections.abc import Sequence

from palyra_fleet.cli.configuration import FLEET, with_settings
from palyra_fleet.cli.log_arguments import begin_log
from palyra_fleet.cli.output import say
from palyra_fleet.cli.parser import make_parser
from palyra_fleet.cli.trouble import ExitCode, Trouble


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        parser = make_parser()
        parsed = parser.parse_args(with_settings(FLEET, parser, given, os.environ))
        begin_log("palyra-fleet", parsed)
        return int(parsed.run(parsed))
    except Trouble as trouble:
        return _tell(trouble)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.DONE
    except Exception as error:
        words = importlib.import_module("palyra_fleet.cli.trouble_words")
        if os.environ.get("PALYRA_DEBUG") and not isinstance(error, words.EXPECTED):
            raise
        return _tell(words.trouble_of(error))


def _tell(trouble: Trouble) -> int:
    say(f"palyra-fleet: {trouble}", logging.ERROR)
    return int(trouble.exit_code)


if __name__ == "__main__":
    sys.exit(main())
