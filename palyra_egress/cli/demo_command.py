"""`demo`: the story on stdout, exit code 0 only when every step happened as it must."""

import asyncio
import logging
from argparse import Namespace

from palyra_egress.demo.story import DemoFailed, play
from palyra_fleet.cli.output import put
from palyra_fleet.cli.trouble import ExitCode, Trouble


def demo(arguments: Namespace) -> int:
    """Play the demo."""
    del arguments
    for name in ("palyra_egress", "palyra_fleet"):
        logging.getLogger(name).setLevel(logging.ERROR)  # what is refused, the story tells
    try:
        asyncio.run(play(put))
    except DemoFailed as failed:
        raise Trouble(
            ExitCode.OURS, "the demo did not come out as it must", str(failed), "report it"
        ) from failed
    return ExitCode.DONE
