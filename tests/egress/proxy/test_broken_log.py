"""A log that cannot be written costs nothing: what fails is refused first, and told afterwards."""

import asyncio
from typing import Any

import pytest

from palyra_egress.proxy.guard.guard import ConnectionGuard
from tests.egress.proxy.lanes import chaos
from tests.fakes.proxy_harness import Injection


class BrokenLog:
    def __init__(self, struck: asyncio.Event) -> None:
        self.struck = struck

    def error(self, *_told: Any) -> None:
        self.struck.set()
        raise RuntimeError("the log is broken")


async def test_who_cannot_be_judged_again_is_cut_though_the_fault_cannot_be_logged(
    tmp_path, monkeypatch
):
    class Guard(ConnectionGuard):
        def review(self):
            raise RuntimeError("injected")

    struck = asyncio.Event()
    for module in ("handler", "connections"):
        monkeypatch.setattr(f"palyra_egress.proxy.{module}._log", BrokenLog(struck))
    async with chaos(tmp_path, Injection(guard_class=Guard)) as world:
        for _ in range(2):
            await world.harness.tunnel(f"api.example:{world.secure.port}")
        with pytest.raises(RuntimeError, match="the log is broken"):
            world.core.connections.review()
        assert struck.is_set()
        await world.everything_is_closed()
