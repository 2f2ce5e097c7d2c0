"""What a proxy's own listeners tell: put together when somebody asks, from what the parts know."""

from collections.abc import Callable
from dataclasses import dataclass

from palyra_egress.proxy.core import EnforcementCore
from palyra_egress.proxy.signals.live_view import Json
from palyra_egress.proxy.signals.metrics import ProxyState, exposition
from palyra_egress.proxy.tls.interception import InterceptionAuthority


@dataclass(slots=True)
class ProxyTold:
    """One proxy. `durable_at_ms` is when everything that was written was last known to be durable
    (monotonic milliseconds)."""

    core: EnforcementCore
    authority: InterceptionAuthority
    checks: Callable[[], dict[str, str]]
    durable_at_ms: int = 0

    def problems(self) -> dict[str, str]:
        return self.checks()

    def metrics(self) -> bytes:
        policy = self.core.service.policy
        state = ProxyState(
            connections=len(self.core.connections),
            policy_digest=None if policy is None else policy.digest,
            audit_lag_s=self._audit_lag_s(),
            certificates=self.authority.ends(),
        )
        return exposition(self.core.signals.counts, state)

    def live(self) -> Json:
        """Every worker that is connected or did something lately."""
        core = self.core
        counts = core.connections.by_worker()
        rows = core.signals.live.workers
        return {
            "proxy": core.proxy_id,
            "phase": core.phase.value,
            "policy_digest": core.service.policy_digest,
            "connections": len(core.connections),
            "workers": [
                row.shown(
                    worker_id, counts.get(worker_id, 0), blocked=core.view.is_blocked(worker_id)
                )
                for worker_id, row in reversed(rows.items())
            ],
        }

    def was_durable(self, *, is_all: bool) -> None:
        """Told after each look at the audit log."""
        if is_all:
            self.durable_at_ms = self.core.clocks.now_monotonic_ms()

    def _audit_lag_s(self) -> float:
        if not self.core.audit.unsynced:
            return 0.0
        return max(0, self.core.clocks.now_monotonic_ms() - self.durable_at_ms) / 1000
