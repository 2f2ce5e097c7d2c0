"""A resolver whose answers wait until the test lets them go."""

import asyncio
from typing import Any


class WaitingResolver:
    """Answers when the test says so: `asked` is set by the first question, `go_on` is the test's.
    What it answers then is what `inner` does."""

    def __init__(self, inner: Any) -> None:
        self.asked, self.go_on = asyncio.Event(), asyncio.Event()
        self._inner = inner

    async def resolve(self, host: str, port: int, asker: str = "") -> Any:
        self.asked.set()
        await self.go_on.wait()
        return await self._inner.resolve(host, port)

    def close(self) -> None:
        self._inner.close()
