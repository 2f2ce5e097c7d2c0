"""Deadlines of a proxy's connections that pass when a test says so, however slow the machine is."""

from collections.abc import Callable

import pytest

from palyra_egress.proxy.handler import EnforcingHandler


def held_deadlines(monkeypatch: pytest.MonkeyPatch, held_s: float) -> Callable[[], None]:
    """Deadlines of this length, in seconds, stand still. Calling the answer makes the time of
    those that have begun pass."""
    begun: list[Callable[[], None]] = []
    runs = EnforcingHandler.after

    def after(self: EnforcingHandler, delay_s: float, callback: Callable[[], None]) -> None:
        if delay_s == held_s:
            begun.append(callback)
        else:
            runs(self, delay_s, callback)

    def passes() -> None:
        due = begun.copy()
        begun.clear()
        assert due, "none has begun"
        for callback in due:
            callback()

    monkeypatch.setattr(EnforcingHandler, "after", after)
    return passes
