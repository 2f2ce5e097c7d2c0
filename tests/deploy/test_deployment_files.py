"""What deploy/ holds is accepted by its own linters, and keeps what makes it safe."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from palyra_egress.cli.parser import make_parser as egress_parser
from palyra_fleet.cli.configuration import EGRESS, actions, parser_of

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
DOCKERFILE = DEPLOY / "docker" / "Dockerfile"
COMPOSE = DEPLOY / "docker" / "compose.yaml"
BIN = Path(sys.executable).parent
MOST_EXPOSED = 1.5
"""`systemd-analyze security` goes from 0 (nothing can be done from there) to 10."""


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def compose() -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe").load(COMPOSE)
    return found


@pytest.fixture
def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze is not installed, so the units were not looked at")
    return found


def test_the_dockerfile_passes_hadolint() -> None:
    done = run(BIN / "hadolint", DOCKERFILE)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_is_one_that_finds_faults(tmp_path: Path) -> None:
    faulty = tmp_path / "Dockerfile"
    faulty.write_text("FROM packages.example/python\nRUN cd /tmp && apt-get install curl\n")
    assert run(BIN / "hadolint", faulty).returncode == 1


def test_images_run_as_nobody_from_hashed_packages_and_name_no_base() -> None:
    text = DOCKERFILE.read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    assert [stage.split("\n")[0] for stage in stages] == [
        "${PYTHON_IMAGE} AS build",
        "${PYTHON_IMAGE} AS base",
        "base AS fleet",
        "base AS egress",
    ]
    assert re.search(r"^ARG PYTHON_IMAGE$", text, re.MULTILINE)
    assert "USER 10001:10001" in stages[1]
    assert all("USER" not in stage for stage in stages[2:])
    installs = re.findall(r"pip install [^\\\n]*", text)
    assert all("--require-hashes" in one or "--no-index" in one for one in installs)
    assert all("HEALTHCHECK" in stage for stage in stages[2:])


def test_what_builds_the_project_is_taken_from_the_lock_with_its_hashes() -> None:
    """The `sed` of the Dockerfile, on the real lock."""
    (expression,) = re.findall(r"sed -n '([^']*)'", DOCKERFILE.read_text())
    taken = run("sed", "-n", expression, DEPLOY.parent / "requirements" / "dev.lock").stdout
    names = re.findall(r"^([a-z0-9-]+)==", taken, re.MULTILINE)
    assert names == ["setuptools"]
    assert "--hash=sha256:" in taken


def test_everything_that_the_image_copies_is_let_in_and_no_state_is() -> None:
    ignored = (DEPLOY.parent / ".dockerignore").read_text().splitlines()
    let_in = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    copied = {
        word
        for line in DOCKERFILE.read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for word in line.split()[1:-1]
    }
    assert copied == let_in
    assert "*" in ignored


def test_the_compose_file_fits_the_compose_specification() -> None:
    done = run(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", COMPOSE)
    assert done.returncode == 0, done.stdout


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert int(service["user"].split(":")[0]) >= 10_000, name
        forbidden = {"privileged", "cap_add", "pid", "ipc", "devices", "ports", "extra_hosts"}
        assert not forbidden & service.keys(), name
        assert not any("docker.sock" in str(volume) for volume in service["volumes"]), name


def test_a_worker_has_no_way_out_but_the_proxy(compose: dict[str, Any]) -> None:
    services, networks = compose["services"], compose["networks"]
    assert services["worker"]["networks"] == ["workers"]
    assert networks["workers"]["internal"] is True
    inside = {name for name, one in services.items() if "workers" in one.get("networks", [])}
    assert inside == {"worker", "proxy"}
    outside = {name for name, one in services.items() if "outside" in one.get("networks", [])}
    assert outside == {"proxy"}
    assert services["fleet"]["network_mode"] == "none"
    assert services["worker"]["user"] != services["proxy"]["user"]
    shared = {str(volume).split(":")[0] for volume in services["worker"]["volumes"]}
    assert not shared & compose["volumes"].keys()
    assert all(str(volume).endswith(":ro") for volume in services["worker"]["volumes"])


def test_the_proxys_variables_are_settings_that_exist(compose: dict[str, Any]) -> None:
    known = actions(parser_of(egress_parser(), ("proxy", "serve")))
    start = EGRESS.variable(("proxy", "serve"), "")
    for name in compose["services"]["proxy"]["environment"]:
        assert name.removeprefix(start).lower() in known


def test_no_image_is_named(compose: dict[str, Any]) -> None:
    assert all(one["image"].startswith("${PALYRA_") for one in compose["services"].values())


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_is_one_that_systemd_takes(unit: Path, tmp_path: Path, systemd_analyze: str) -> None:
    for one in UNITS:
        text = re.sub(r"/opt/palyra/bin/palyra-\w+", "/bin/true", one.read_text())
        (tmp_path / one.name).write_text(text)
    done = run(systemd_analyze, "verify", "--man=no", tmp_path / unit.name)
    assert (done.returncode, done.stderr.strip()) == (0, "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_can_do_little_else(unit: Path, systemd_analyze: str) -> None:
    done = run(systemd_analyze, "security", "--offline=yes", "--no-pager", unit)
    level = re.search(r"exposure level for \S+ (?P<level>[0-9.]+)", done.stdout)
    assert level is not None, done.stdout + done.stderr
    assert float(level["level"]) <= MOST_EXPOSED


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_starts_a_command_that_exists(unit: Path) -> None:
    commands = re.findall(
        r"^ExecStart(?:Pre)?=/opt/palyra/bin/(.*)$", unit.read_text(), re.MULTILINE
    )
    assert len(commands) == 2
    for command in commands:
        program, *words = command.split()
        wanted = [word for word in words if word.startswith("--")]
        verb = words[: words.index(wanted[0])] if wanted else words
        told = run(BIN / program, *verb, "--help")
        assert told.returncode == 0, told.stderr
        assert all(flag in told.stdout for flag in wanted)
