"""Mirror of credentials/settings.py and cli/secret_arguments.py."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from palyra_egress.cli.secret_arguments import add_secret_arguments, secrets_of
from palyra_egress.credentials.binding import SecretSource
from palyra_egress.credentials.kv_settings import KvSettings
from palyra_egress.credentials.settings import SecretSettings, SecretSettingsRefused


def settings(*words: str) -> SecretSettings:
    """As a command that serves makes them of its arguments."""
    parser = ArgumentParser()
    add_secret_arguments(parser)
    return secrets_of(parser.parse_args(words))


def test_without_arguments_the_vault_is_the_only_source() -> None:
    assert settings() == SecretSettings()
    assert settings().allowed == {SecretSource.VAULT}


def test_every_source_can_be_set_up() -> None:
    found = settings(
        *("--master-key-file", "k", "--secrets-dir", "d", "--secret-env", "A", "--secret-env", "B"),
        *("--kv-url", "https://vault.example", "--kv-token-file", "t", "--kv-ca", "c"),
        *("--kv-namespace", "n", "--kv-v1-mount", "old"),
    )
    kv = KvSettings("https://vault.example", Path("t"), Path("c"), "n", frozenset({"old"}))
    assert found == SecretSettings(Path("k"), Path("d"), frozenset({"A", "B"}), kv)
    assert found.allowed == frozenset(SecretSource)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--kv-url", "https://vault.example"], "both, or neither"),
        (["--kv-token-file", "t"], "both, or neither"),
        (["--kv-namespace", "n"], "both, or neither"),
        (["--secret-env", "PALYRA_MASTER_KEY"], "never a credential"),
        (["--secret-env", "TOKEN=hunter2"], "the name alone, never its value"),
        (["--secret-env", ""], "no name that policies can write"),
    ],
)
def test_what_cannot_work_is_refused(words: list[str], said: str) -> None:
    with pytest.raises(SecretSettingsRefused) as caught:
        settings(*words)
    assert said in str(caught.value) and "hunter2" not in str(caught.value)
