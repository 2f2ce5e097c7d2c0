"""One answer per reason: well-formed HTTP that tells the reason and nothing of the inside."""

import json
import re
from http.client import HTTPResponse
from io import BytesIO

import pytest

from palyra_egress.proxy.http.denial import Answer, refuse
from palyra_egress.reasons import REASONS, Reason, row

DECISION = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
REFUSALS = [reason for reason in Reason if reason not in (Reason.ALLOWED, Reason.OBSERVED)]
CREDENTIAL_REASONS = {Reason.NO_IDENTITY, Reason.BAD_CREDENTIALS}


class _Socket:
    def __init__(self, data: bytes) -> None:
        self._data = data

    def makefile(self, _mode: str) -> BytesIO:
        return BytesIO(self._data)


def parsed(answer: Answer) -> HTTPResponse:
    response = HTTPResponse(_Socket(answer.to_bytes()))  # type: ignore[arg-type]
    response.begin()
    return response


@pytest.mark.parametrize("close", [True, False])
@pytest.mark.parametrize("reason", REFUSALS)
def test_every_refusal_is_well_formed_http(reason, close):
    answer = refuse(reason, DECISION, close=close)
    response = parsed(answer)
    assert response.status == row(reason).http_status
    assert response.reason == f"Palyra: {reason.value}"
    assert response.headers["content-type"] == "application/problem+json"
    assert (response.headers["connection"] == "close") is close
    body = response.read()
    assert len(body) == int(response.headers["content-length"])
    problem = json.loads(body)
    assert (problem["reason"], problem["status"]) == (reason.value, response.status)
    assert problem["decision_id"] == response.headers["x-palyra-decision"] == DECISION
    assert problem["title"] and problem["detail"]


@pytest.mark.parametrize("reason", REFUSALS)
def test_no_header_can_end_its_line(reason):
    for name, value in refuse(reason, DECISION, close=True).headers:
        assert re.fullmatch(r"[A-Za-z-]+", name)
        assert re.fullmatch(r"[\x20-\x7e]+", value)


@pytest.mark.parametrize("reason", REFUSALS)
def test_407_is_for_credentials_only_and_asks_for_them(reason):
    answer = refuse(reason, DECISION, close=True)
    challenged = "Proxy-Authenticate" in dict(answer.headers)
    assert (answer.status == 407) is (reason in CREDENTIAL_REASONS) is challenged


@pytest.mark.parametrize("reason", REFUSALS)
def test_429_says_when_to_come_back(reason):
    answer = refuse(reason, DECISION, close=True)
    assert ("Retry-After" in dict(answer.headers)) is (answer.status == 429)


@pytest.mark.parametrize("reason", REFUSALS)
def test_proxy_status_names_us_the_reason_and_a_registered_error(reason):
    value = dict(refuse(reason, DECISION, close=True).headers)["Proxy-Status"]
    match = re.fullmatch(
        r'palyra-egress(?:; error=(?P<error>[a-z_]+))?; details="([a-z._]+)"', value
    )
    assert match is not None
    assert match["error"] == REASONS[reason].proxy_status_error


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_is_never_a_success_or_a_redirect(reason):
    assert 400 <= row(reason).http_status < 600
