"""A fleet on another machine, as the command line names it, and this machine's pairing with it."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from palyra_fleet.cli.trouble import ExitCode, Trouble
from palyra_fleet.node_agent.keeper import DeviceKeeper
from palyra_fleet.node_agent.material import AgentHome, MaterialUnusable, NotPaired

_URL: Final = re.compile(r"https://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}/?")


@dataclass(frozen=True, slots=True)
class PairedDevice:
    """This machine's pairing."""

    keeper: DeviceKeeper
    device_id: str

    @staticmethod
    def url(given: str) -> str:
        """The fleet's address. Raises Trouble."""
        if _URL.fullmatch(given) is None:
            raise Trouble(
                ExitCode.YOURS,
                "that is no address of a fleet",
                f"{given!r} is not https://HOST:PORT",
                "pass what `palyra-fleet serve --listen` says for other machines",
            )
        return given.rstrip("/")


def paired_device(home: Path, kind: str) -> PairedDevice:
    """The pairing in this directory, of this kind. Raises Trouble."""
    remedy = f"`palyra-fleet node install --kind {kind} --home {home}` pairs this machine"
    keeper = DeviceKeeper(AgentHome(home))
    try:
        material = keeper.material
    except NotPaired as error:
        text = "this machine is not paired"
        raise Trouble(ExitCode.YOURS, text, str(error), remedy) from error
    except MaterialUnusable as error:
        text = "the stored pairing cannot be used"
        raise Trouble(ExitCode.YOURS, text, str(error), "restore it, or pair again") from error
    if material.client_kind != kind:
        raise Trouble(
            ExitCode.YOURS,
            f"this machine did not pair as a {kind}",
            f"{home}: it paired as a {material.client_kind}",
            remedy,
        )
    return PairedDevice(keeper, material.device_id)
