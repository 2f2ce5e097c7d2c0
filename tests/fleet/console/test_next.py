"""Where signing in leads: back to the page of ours that was asked for, and nowhere else.

Every value is sent over a real socket, in each spelling that a link may have; what the page holds
for its script is looked at as a browser would: its entities resolved.
"""

import html
import re
from collections.abc import AsyncIterator
from urllib.parse import quote

import pytest

from palyra_fleet.console.gate import LOGIN_PATH, PREFIX
from tests.fakes.raw_http import ask, ask_raw
from tests.fakes.served_fleet import ServedFleet, served_fleet

ELSEWHERE = (
    "//evil.example",
    "///evil.example/console",
    "/\\evil.example",
    "\\\\evil.example/console",
    "/\t/evil.example",
    "\t//evil.example",
    " //evil.example",
    "/\n/evil.example",
    "h\nttps://evil.example",
    "https:evil.example",
    "https://evil.example/console",
    "https://localhost@evil.example/console",
    "//localhost:1/console",
    "javascript:alert(1)",
    "java\nscript:alert(1)",
    "JaVaScRiPt:alert(1)//console",
    "data:text/html,x",
    "/console:80@evil.example",
    "/console.evil.example",
    "/consolex",
    "/console//evil.example",
    "/console/..//evil.example",
    "/console/../v1/workers",
    "/console/%2e%2e//evil.example",
    "/console/.%2e/v1/workers",
    "/console/\\evil.example",
    "/console\\@evil.example",
    "/console\t/workers",
    "/console/workers\r\nSet-Cookie: a=b",
    "/console/workers\n",
    "/console?q=a\r\nSet-Cookie: a=b",
    "/console?q=\\evil",
    "/console#//evil.example",
    "/console/\u2028",
    "/CONSOLE",
    "/v1/workers",
    "",
)
OURS = (
    "/console",
    "/console?state=live",
    "/console/workers",
    "/console/workers/01ARZ3NDEKTSV4RRFFQ69G5FAV",
    "/console/policies?profile=api&method=GET&url=https%3A%2F%2Fapi.example%2F",
    '/console/audit?q="><script>alert(1)</script>',
)


@pytest.fixture
async def fleet() -> AsyncIterator[ServedFleet]:
    async with served_fleet() as served:
        yield served


async def leads_to(fleet: ServedFleet, query: str) -> str:
    answer = await ask(fleet.admin_url, "GET", f"{LOGIN_PATH}?next={query}")
    assert answer.status == 200
    assert "set-cookie" not in answer.headers and "location" not in answer.headers
    (found,) = re.findall(r'data-next="([^"]*)"', answer.body.decode())
    return html.unescape(found)


@pytest.mark.parametrize("wanted", ELSEWHERE)
async def test_signing_in_leads_nowhere_else(fleet: ServedFleet, wanted: str) -> None:
    once, all_of_it = quote(wanted, safe=""), "".join(f"%{b:02x}" for b in wanted.encode())
    for query in (once, all_of_it, quote(once, safe="")):
        assert await leads_to(fleet, query) == PREFIX, query


@pytest.mark.parametrize("wanted", OURS)
async def test_signing_in_leads_back_to_a_page_of_ours(fleet: ServedFleet, wanted: str) -> None:
    assert await leads_to(fleet, quote(wanted, safe="")) == wanted


@pytest.mark.parametrize(
    "asked",
    [
        "/console",
        "/console/workers?state=quarantined",
        "/console/audit?q=%0d%0aSet-Cookie:%20a=b",
        "/console/audit?q=%0aLocation:%20//evil.example&cursor=x",
        "/console/audit?q=//evil.example/%5c",
        "/console/audit?q=%00%e2%80%a8%ff",
    ],
)
async def test_a_page_without_a_session_leads_to_the_sign_in_by_one_header(
    fleet: ServedFleet, asked: str
) -> None:
    answer = await ask_raw(
        fleet.admin_url,
        f"GET {asked} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode(),
    )
    assert answer.status == 303
    assert "set-cookie" not in answer.headers
    place = answer.headers["location"]
    assert re.fullmatch(rf"{LOGIN_PATH}\?next=%2Fconsole[A-Za-z0-9%._~-]*", place)
    back = await leads_to(fleet, place.partition("=")[2])
    assert back.partition("?")[0] == asked.partition("?")[0]


async def test_a_target_that_names_another_host_leads_to_our_own_sign_in(
    fleet: ServedFleet,
) -> None:
    for target in ("http://evil.example/console", "http://evil.example/console/workers"):
        answer = await ask(fleet.admin_url, "GET", target)
        assert answer.status in {303, 400, 404, 421}
        assert "evil" not in answer.headers.get("location", "")
