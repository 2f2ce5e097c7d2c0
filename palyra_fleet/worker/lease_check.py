"""Asks the proxy whether it knows a lease yet, so that the program's first request is not refused.

The fleet answers the worker and tells the proxies at the same moment, on different connections:
nothing orders the two, least of all while a proxy reconnects. So the worker asks the proxy itself,
on the receipt host, with the lease's own credentials: 204 means that it knows the lease. Anything
else is asked again until the wait is over; then the program is not started, since the network would
refuse it. A proxy that does not know the question (400, 404) cannot be waited for.
"""

import base64
from collections.abc import Mapping
from enum import Enum, auto
from typing import Final

import aiohttp
from yarl import URL

from palyra_fleet.worker.receipt import RECEIPT_HOST
from palyra_fleet.worker.timekeeper import Timekeeper

LEASE_PATH: Final = "/v1/lease"
FIRST_WAIT_S: Final = 0.02
LONGEST_WAIT_S: Final = 0.5
_KNOWN: Final = 204
_NO_SUCH_QUESTION: Final = frozenset({400, 404, 405})


class LeaseCheck(Enum):
    """What the proxy said in the end."""

    KNOWN = auto()
    CANNOT_SAY = auto()


class LeaseNotKnown(Exception):
    """The proxy did not get to know the lease in time; the text says what it answered last."""


async def wait_until_known(
    proxy_address: str,
    lease_id: str,
    egress_secret: str,
    time: Timekeeper,
    *,
    within_ms: int,
    timeout_ms: int = 10_000,
) -> LeaseCheck:
    """Ask the proxy at `host:port` until it knows the lease. Raises LeaseNotKnown."""
    url = URL.build(scheme="http", host=RECEIPT_HOST, path=LEASE_PATH)
    until_s = time.now_s() + within_ms / 1000
    wait_s = FIRST_WAIT_S
    credentials = base64.b64encode(f"{lease_id}:{egress_secret}".encode()).decode()
    headers = {"Proxy-Authorization": f"Basic {credentials}", "Connection": "close"}
    waits = aiohttp.ClientTimeout(total=timeout_ms / 1000)
    async with aiohttp.ClientSession(timeout=waits, trust_env=False) as session:
        while True:
            said = await _ask(session, url, proxy_address, headers)
            if said == str(_KNOWN):
                return LeaseCheck.KNOWN
            if said in map(str, _NO_SUCH_QUESTION):
                return LeaseCheck.CANNOT_SAY
            if time.now_s() + wait_s > until_s:
                raise LeaseNotKnown(
                    f"the proxy at {proxy_address} did not get to know the lease"
                    f" within {within_ms / 1000:g} s (it said {said})"
                )
            await time.sleep(wait_s)
            wait_s = min(wait_s * 2, LONGEST_WAIT_S)


async def _ask(
    session: aiohttp.ClientSession, url: URL, proxy_address: str, headers: Mapping[str, str]
) -> str:
    """The status as text, or the kind of failure."""
    proxy = f"http://{proxy_address}"
    try:
        async with session.get(
            url, proxy=proxy, headers=headers, allow_redirects=False
        ) as response:
            return str(response.status)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        return type(error).__name__
