"""Key sets of issuers: keys for others are left out, and what must not be published refuses all."""

from typing import Any

import pytest

from palyra_fleet.wire.key_sets import MAX_KEYS, KeySetError, read_key_set, signing_keys
from tests.fakes.token_issuer import TokenIssuer

ISSUER = TokenIssuer()
RSA = ISSUER.key_set()["keys"][0]
ISSUER.rotate()
EC = ISSUER.key_set()["keys"][0]


def test_keys_of_other_uses_and_kinds_are_left_out() -> None:
    others: list[dict[str, Any]] = [
        {**RSA, "kid": "enc", "use": "enc", "alg": "RSA-OAEP"},
        {**RSA, "kid": "ps", "alg": "PS256"},
        {**EC, "kid": "large", "crv": "P-521"},
        {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "AA"},
        {name: value for name, value in RSA.items() if name != "kid"},
    ]
    keys = signing_keys({"keys": [*others, RSA, EC]})
    assert {kid: key.algorithm for kid, key in keys.items()} == {
        "key-1": "RS256",
        EC["kid"]: "ES256",
    }
    with pytest.raises(KeySetError, match="at least one key"):
        signing_keys({"keys": others})
    with pytest.raises(KeySetError, match="key 1"):
        read_key_set({"keys": [others[0], RSA]})
    with pytest.raises(KeySetError, match="key 1: expected a public RSA or EC key"):
        read_key_set({"keys": [{**RSA, "kty": ["RSA"]}]})


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([RSA, {"kty": "oct", "kid": "s", "k": "AAAA"}], "key 2: a secret or private key"),
        ([RSA, {**EC, "d": "AAAA"}], "key 2: a secret or private key"),
        ([RSA, {**EC, "kid": "key-1"}], "key 2: its kid stands twice"),
        ([RSA, {**EC, "x": "AAAA"}], "key 2: not a key of kind EC"),
        ([{**RSA, "n": "AQAB"}], "key 1"),
        ([RSA, "text"], "key 2: expected an object"),
        ([], "at least one key"),
        ([{**RSA, "kid": f"k{number}"} for number in range(MAX_KEYS + 1)], "at most"),
    ],
)
def test_a_set_that_is_wrong_gives_no_key_at_all(entries: list[Any], said: str) -> None:
    with pytest.raises(KeySetError, match=said):
        signing_keys({"keys": entries})
