"""The fleet's settings file: what it turns on, and how a mistake in it is told."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palyra_fleet.attestation.join_tokens import JoinTokenBook
from palyra_fleet.issuers.trusted import TrustedIssuer
from palyra_fleet.settings.file import SettingsFileError, read_settings
from tests.fakes.attestation_material import ServiceAccountProver, new_authority

GOOD = """
[attestors.x509pop]
ca_files = ["ca.pem"]
[[attestors.x509pop.admit]]
uri = "spiffe://example.org/machine/*"
[[attestors.x509pop.admit]]
dns = "*.workers.example"

[attestors.join_token]

[attestors.k8s_psat]
cluster = "prod"
issuer = "https://kubernetes.example"
audience = "palyra-fleet"
jwks_file = "jwks.json"
service_accounts = ["agents:runner"]

[attestors.oci_dsse]
builder_keys = ["builder.pem"]
builder_ids = ["https://builder.example/ci"]
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with everything that GOOD names."""
    _, ca = new_authority()
    (tmp_path / "ca.pem").write_bytes(ca.public_bytes(Encoding.PEM))
    builder = ec.generate_private_key(ec.SECP256R1()).public_key()
    pem = builder.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "builder.pem").write_bytes(pem)
    odd = ec.generate_private_key(ec.SECP521R1()).public_key()
    pem = odd.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "odd.pem").write_bytes(pem)
    (tmp_path / "jwks.json").write_text(json.dumps(ServiceAccountProver().key_set()))
    secret = base64.urlsafe_b64encode(b"s" * 32).decode()
    symmetric = {"keys": [{"kty": "oct", "kid": "key-1", "k": secret}]}
    (tmp_path / "symmetric.json").write_text(json.dumps(symmetric))
    return tmp_path


def kinds_of(place: Path, text: str) -> set[str]:
    file = place / "fleet.toml"
    file.write_text(text)
    return set(read_settings(file).with_launcher(JoinTokenBook(None)))


def test_every_table_turns_its_attestor_on_and_an_empty_file_none(place: Path) -> None:
    everything = {"launcher", "x509pop", "join_token", "k8s_psat", "oci_dsse"}
    assert kinds_of(place, GOOD) == everything
    assert kinds_of(place, "") == {"launcher"}
    assert kinds_of(place, "[attestors]") == {"launcher"}
    assert kinds_of(place, "[attestors.join_token]") == {"launcher", "join_token"}


MISTAKES = [
    ('ca_files = ["ca.pem"]', 'ca_file = ["ca.pem"]', 2, "ca_files: Field required"),
    ('ca_files = ["ca.pem"]', "ca_files = []", 3, "ca_files: Tuple should have at least 1 item"),
    ('ca_files = ["ca.pem"]', 'ca_files = "ca.pem"', 3, "ca_files: Input should be"),
    ('["ca.pem"]', '["gone.pem"]', 3, "ca_files.0: gone.pem: cannot be read: No such file"),
    ('["ca.pem"]', '["jwks.json"]', 3, "ca_files.0: jwks.json: expected PEM certificates"),
    ('uri = "spiffe', '# uri = "spiffe', 4, "admit.0: expected uri, dns or common_name"),
    ('dns = "*.workers', 'host = "*.workers', 7, "admit.1.host: there is no such key"),
    ("[attestors.join_token]", "[attestors.join_token]\non = true", 10, "on: there is no such key"),
    ("[attestors.join_token]", "[attestors.tpm]", 9, "attestors.tpm: there is no such key"),
    ('cluster = "prod"', 'cluster = "Prod!"', 12, "cluster: String should match pattern"),
    ('"jwks.json"', '"ca.pem"', 15, "jwks_file: ca.pem: expected JSON"),
    ('"jwks.json"', '"symmetric.json"', 15, "expected a public RSA or EC key"),
    ('["agents:runner"]', "[]", 16, "service_accounts: Tuple should have at least 1 item"),
    ('["agents:runner"]', '["runner"]', 16, "service_accounts.0: String should match pattern"),
    ('["builder.pem"]', '["ca.pem"]', 19, "builder_keys.0: ca.pem: expected a PEM public key"),
    ('["builder.pem"]', '["odd.pem"]', 19, "builder_keys.0: odd.pem: expected Ed25519, ECDSA"),
    ('["https://builder.example/ci"]', "[]", 20, "builder_ids: Tuple should have at least 1"),
]


@pytest.mark.parametrize(("good", "bad", "line", "said"), MISTAKES)
def test_a_mistake_is_told_with_file_line_and_key(
    good: str, bad: str, line: int, said: str, place: Path
) -> None:
    assert good in GOOD
    with pytest.raises(SettingsFileError) as caught:
        kinds_of(place, GOOD.replace(good, bad, 1))
    assert str(caught.value).startswith(f"{place / 'fleet.toml'}:{line}: attestors.")
    assert said in str(caught.value)


ISSUERS = """
[issuers.corp]
issuer = "https://issuer.example/team"
audience = "palyra-fleet"
jwks_file = "jwks.json"

[issuers.cloud]
issuer = "https://cloud.example"
audience = "palyra"
discovery = true
ca_file = "ca.pem"
leeway_s = 5
longest_life_s = 900
authorized_parties = ["cli", "portal"]
"""


def test_issuers_are_read_with_their_bounds(place: Path) -> None:
    file = place / "fleet.toml"
    file.write_text(ISSUERS)
    corp, cloud = read_settings(file).issuers
    assert corp == TrustedIssuer(
        "corp", "https://issuer.example/team", "palyra-fleet", place / "jwks.json"
    )
    assert cloud == TrustedIssuer(
        "cloud",
        *("https://cloud.example", "palyra", None, place / "ca.pem", 5, 900),
        ("cli", "portal"),
    )
    file.write_text("")
    assert read_settings(file).issuers == ()


ISSUER_MISTAKES = [
    ('["cli", "portal"]', "[]", 14, "authorized_parties: Tuple should have at least 1 item"),
    ('jwks_file = "jwks.json"', "", 2, "corp: expected jwks_file, or discovery = true"),
    ("discovery = true", 'discovery = true\njwks_file = "jwks.json"', 7, "cloud: expected jwks"),
    ('"jwks.json"', '"gone.json"', 5, "jwks_file: "),
    ('"jwks.json"', '"ca.pem"', 5, "is not JSON"),
    ('"jwks.json"', '"symmetric.json"', 5, "a secret or private key was published"),
    ("discovery = true", 'jwks_file = "jwks.json"', 11, "nothing is asked without discovery"),
    ('"ca.pem"', '"jwks.json"', 11, "jwks.json: holds no usable CA certificates"),
    ("https://cloud.example", "https://issuer.example/team", 8, "another table has this issuer"),
    ("https://cloud.example", "http://cloud.example", 8, "issuer: String should match pattern"),
    ("https://cloud.example", "https://cloud.example?x", 8, "issuer: expected https://HOST"),
    ("leeway_s = 5", "leeway_s = 301", 12, "leeway_s: Input should be less than or equal to 300"),
    ("= 900", "= 86401", 13, "longest_life_s: Input should be less than or equal to 86400"),
    ('audience = "palyra"', "", 7, "cloud.audience: Field required"),
    ('audience = "palyra"', 'audience = ""', 9, "audience: String should have at least 1"),
    ("[issuers.cloud]", "[issuers.Cloud]", 7, "Cloud"),
    ("leeway_s = 5", 'algorithms = ["none"]', 12, "algorithms: there is no such key"),
    ("leeway_s = 5", "leway_s = 5", 12, "there is no such key; did you mean 'leeway_s'?"),
]


@pytest.mark.parametrize(("good", "bad", "line", "said"), ISSUER_MISTAKES)
def test_a_mistake_about_an_issuer_is_told_with_file_line_and_key(
    good: str, bad: str, line: int, said: str, place: Path
) -> None:
    assert good in ISSUERS
    file = place / "fleet.toml"
    file.write_text(ISSUERS.replace(good, bad, 1))
    with pytest.raises(SettingsFileError) as caught:
        read_settings(file)
    assert str(caught.value).startswith(f"{file}:{line}: issuers.")
    assert said in str(caught.value)


def test_what_is_not_toml_not_text_or_not_there_is_told(tmp_path: Path) -> None:
    file = tmp_path / "fleet.toml"
    with pytest.raises(SettingsFileError, match="cannot be read: No such file"):
        read_settings(file)
    file.write_text("[attestors.x509pop\n")
    with pytest.raises(SettingsFileError, match=r"not TOML: .*line 1"):
        read_settings(file)
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsFileError, match="not UTF-8 at byte 0"):
        read_settings(file)
    file.write_text("[other]\n")
    with pytest.raises(SettingsFileError, match=r"fleet.toml:1: other: there is no such key"):
        read_settings(file)


@pytest.mark.parametrize(
    ("name", "mode", "says"),
    [
        ("fleet.toml", 0o666, r"fleet\.toml: mode 666 lets everybody write to it"),
        ("ca.pem", 0o664, r"fleet\.toml:3: attestors\.x509pop\.ca_files\.0: .*ca\.pem: mode 664"),
        ("jwks.json", 0o664, r"attestors\.k8s_psat\.jwks_file: .*jwks\.json: mode 664"),
        ("builder.pem", 0o664, r"attestors\.oci_dsse\.builder_keys\.0: .*builder\.pem: mode 664"),
    ],
)
def test_what_others_may_write_admits_nobody(place: Path, name: str, mode: int, says: str) -> None:
    """Settings are a team's to edit; what is trusted because of them is not."""
    (place / "fleet.toml").write_text(GOOD)
    (place / "fleet.toml").chmod(0o664)
    read_settings(place / "fleet.toml")
    (place / name).chmod(mode)
    with pytest.raises(SettingsFileError, match=says):
        read_settings(place / "fleet.toml")
